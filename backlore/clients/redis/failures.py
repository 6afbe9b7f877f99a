"""What becomes of a command that redis did not answer, and what to do then."""

from redis.exceptions import AuthenticationError, ConnectionError

from backlore.clients.redis.address import Address


class Interrupted(ConnectionError):
    """The command was sent and its reply did not come: it may or may not have run.

    Read the state before you repeat it; repeat it blindly only if running twice does no harm.
    """


class Unavailable(ConnectionError):
    """The command was never sent: it certainly did not run, and it is safe to repeat it later."""


def interrupted(address: Address, why: str) -> Interrupted:
    """With its words."""
    return Interrupted(
        f"redis at {address}: {why}. The command was sent and may or may not have run: look before you repeat it"
    )


def unavailable(address: Address, why: str) -> Unavailable:
    """With its words."""
    return Unavailable(
        f"redis at {address} can't be reached: {why or 'not connected yet'}. "
        "The command did not run: repeat it later, and see that the server runs"
    )


def full(address: Address, limit: int) -> Unavailable:
    """More commands wait than may."""
    return Unavailable(
        f"redis at {address}: {limit} commands wait already. "
        "The command did not run: issue fewer at once, or raise the limit"
    )


def refused(address: Address, error: Exception) -> Exception:
    """The server's own error at the first words of a connection, with what to do about it."""
    if isinstance(error, AuthenticationError):
        advice = "Check the username and the password"
    elif "HELLO" in str(error) or "NOPROTO" in str(error):
        advice = "It needs redis 6.0 or newer, or valkey"
    else:
        advice = "Check the database number and the rights of the user"
    return type(error)(f"redis at {address} refuses us: {error}. {advice}")
