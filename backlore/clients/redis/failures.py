"""The errors of commands that redis did not answer, and what a caller should do then."""

from redis.exceptions import AuthenticationError, ConnectionError

from backlore.clients.redis.address import Address


class Interrupted(ConnectionError):
    """The command was sent and its reply did not come: it may or may not have run.

    Read the state before you repeat the command; repeat it blindly only if it is idempotent.
    """


class Unavailable(ConnectionError):
    """The command was never sent, so it did not run: it is safe to repeat it later."""


def interrupted(address: Address, why: str) -> Interrupted:
    """An Interrupted with its message."""
    return Interrupted(
        f"redis at {address}: {why}. The command was sent and may or may not have run: look before you repeat it"
    )


def unavailable(address: Address, why: str) -> Unavailable:
    """An Unavailable with its message."""
    return Unavailable(
        f"redis at {address} can't be reached: {why or 'not connected yet'}. "
        "The command did not run: repeat it later, and check that the server runs"
    )


def full(address: Address, limit: int) -> Unavailable:
    """The Unavailable for a command beyond the limit of those that may wait."""
    return Unavailable(
        f"redis at {address}: {limit} commands wait already. "
        "The command did not run: issue fewer at once, or raise the limit"
    )


def greeting_refused(address: Address, error: Exception) -> Exception:
    """The server's error on the first commands of a connection, with advice on what to do about it."""
    if isinstance(error, AuthenticationError):
        advice = "Check the username and the password"
    elif "HELLO" in str(error) or "NOPROTO" in str(error):
        advice = "It needs redis 6.0 or newer, or valkey"
    else:
        advice = "Check the database number and the rights of the user"
    return type(error)(f"redis at {address} refuses us: {error}. {advice}")
