"""What the parts of identity share."""

from typing import Any, NamedTuple

from backlore.core.crypto import Passwords
from backlore.core.notify import Notify
from backlore.services.identity.needs import Limiter, Mailer
from backlore.services.identity.sessions import Sessions
from backlore.services.identity.tokens import Tokens
from backlore.services.identity.users import Users


class Shared(NamedTuple):
    """Made by the identity, for each of its parts."""

    redis: Any  # redis-py's types don't know that replies are str here
    notify: Notify
    users: Users
    sessions: Sessions
    tokens: Tokens
    passwords: Passwords
    mail: Mailer
    rates: Limiter
