"""Rate limits: how often a client, a user or an account may do something. Each limit is a bucket in redis.

    rate:{xyz}KIND:WHO   string  the theoretical arrival time, in microseconds; ends when the bucket is full again

The generic cell rate algorithm (ITU-T I.371): a bucket is one moment, at which it will be full again. Taking from it
moves the moment later; if it would move more than one period from now, the request is refused. Laws:

- A refused request is not counted: hammering does not prolong the wait.
- Time is redis' own, so that nodes with different clocks agree.
- No key contains a readable e-mail address.

The tag in braces is the first three hex characters of a hash of WHO up to its first comma. So the limits of an origin,
and those of an account as tried from it, lie in one partition and can be taken in one step.
"""

import hashlib
import math
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from backlore.clients.redis.script import Script
from backlore.core.addresses import normalize
from backlore.core.keys import TAG, key
from backlore.core.origins import origin_of
from backlore.core.turns import Busy
from backlore.web.reply import Reply, reply
from backlore.web.request import Request

T = TypeVar("T")
Limit = tuple[str, str]  # a kind, and whom it limits

# For each kind: how many at once, and the seconds until the bucket is full again.
DEFAULTS: dict[str, tuple[int, float]] = {
    "knock": (600, 300),  # by origin: logins before the body is read; the other limits need the body
    "signup": (20, 3600),  # by origin: an office can sign up together, a script can't fill the database
    "login": (30, 300),  # by origin: one password tried on many accounts
    "login-account": (10, 900),  # by origin and account: many passwords on one; from elsewhere one can log in
    "password": (10, 900),  # by user: the password again, before a change of credentials
    # by user, from browsers known to the user: the owner logs in while others guess from the same origin
    "login-device": (10, 900),
    "code": (5, 1800),  # by user: guessing the second factor with a known password
    "code-device": (5, 1800),  # the same from browsers known to the user
    "passkey": (30, 300),  # by origin: challenges and the answers to them
    "openid": (30, 300),  # by origin: sign-ins that begin at a provider
    "recover": (20, 3600),  # by origin: nobody makes us write to a long list of addresses
    "recover-account": (5, 3600),  # by account: nobody floods one mailbox from many origins
    "verify": (30, 3600),  # by origin: guessing mailed tokens
    "verify-account": (10, 900),  # by account: guessing a signup's password with its link
    "mail": (10, 3600),  # by account: mails to verify one address, from any origin
}
FINEST = 1_000_000  # per second, at most: redis' clock counts microseconds
LONGEST = 366 * 86_400  # seconds

# KEYS: buckets. ARGV: cost, negative to refund, and for each bucket the microseconds of one and of all.
# Takes from all buckets or from none; returns the microseconds to wait. '%.0f': Lua would write 1.8e+15.
TAKE = Script("""
local time = redis.call('TIME')
local now, wait, moments = time[1] * 1000000 + time[2], 0, {}
local function keep(name, moment)
    if moment <= now then return redis.call('DEL', name) end
    redis.call('SET', name, string.format('%.0f', moment), 'PX', math.ceil((moment - now) / 1000))
end
for i, name in ipairs(KEYS) do
    local one, all = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
    local moment = math.max(tonumber(redis.call('GET', name) or now), now)
    if moment > now + all then -- the clock went back, or the period became shorter
        moment = now + all
        keep(name, moment)
    end
    moments[i] = moment + ARGV[1] * one
    wait = math.max(wait, moments[i] - all - now)
end
if wait > 0 then return wait end
for i, name in ipairs(KEYS) do keep(name, moments[i]) end
return 0
""")


def rate_key(kind: str, who: str) -> str:
    """The key of a bucket."""
    return key("rate", _tag(who) + kind, who)


def _tag(who: str) -> str:
    return hashlib.blake2b(who.partition(",")[0].encode(), digest_size=8).hexdigest()[:TAG]


def account_of(email: str) -> str:
    """An account by its e-mail address: 16 hex characters, equal for all spellings of the address."""
    return hashlib.blake2b(normalize(email).encode(), digest_size=8).hexdigest()


def attempt_of(address: str, email: str) -> str:
    """An account as tried from an address. It lies in the partition of `origin_of(address)`."""
    return f"{origin_of(address)},{account_of(email)}"


class Rates:
    """The limits. `take` before the work, `refund` what should not count, and answer with `refusal`.

    `rates` adds kinds to DEFAULTS or replaces them: how many at once, refilled over how many seconds.
    Raises ValueError for an impossible rate.
    """

    def __init__(
        self,
        redis: Any,  # redis-py's types don't know that replies are str here
        rates: dict[str, tuple[int, float]] | None = None,
    ):
        self._redis = redis
        self._rates = DEFAULTS | (rates or {})
        self._steps = {kind: _step(kind, *rate) for kind, rate in self._rates.items()}

    async def take(self, kind: str, who: str, cost: int = 1) -> float:
        """Take `cost` of the kind and return 0.0; if there aren't as many, take none and return the seconds to wait.

        One command to redis. Raises KeyError for an unknown kind, ValueError for a cost that is never allowed.
        """
        return await self.take_all((kind, who), cost=cost)

    async def take_all(self, *limits: Limit, cost: int = 1) -> float:
        """Like `take`, for several limits in one command: from all of them or from none.

        The limits must differ and lie in one partition, else ValueError: their `who` is equal, or equal up to the
        comma, as with `origin_of` and `attempt_of`.
        """
        for kind, _ in limits:
            if not 1 <= cost <= self._rates[kind][0]:
                raise ValueError(f"a cost of {cost} is never allowed by the rate {kind!r}")
        if len(set(limits)) < len(limits) or len({_tag(who) for _, who in limits}) != 1:
            raise ValueError("limits that are taken together are different ones of one partition")
        return await self._move(cost, limits)

    async def refund(self, kind: str, who: str) -> None:
        """Give one back, as after a successful login. A bucket never holds more than its count."""
        await self._move(-1, ((kind, who),))

    async def clear(self, kind: str, who: str) -> None:
        """Fill the bucket. Raises KeyError for an unknown kind."""
        self._rates[kind]  # a misspelt kind would silently clear nothing
        await self._redis.delete(rate_key(kind, who))

    @staticmethod
    def of_origin(kind: str, address: str) -> Limit:
        """The limit of the origin of this address."""
        return kind, origin_of(address)

    @staticmethod
    def of_account(kind: str, email: str) -> Limit:
        """The limit of the account with this e-mail address."""
        return kind, account_of(email)

    @staticmethod
    def of_attempt(kind: str, address: str, email: str) -> Limit:
        """The limit of an account as tried from this address; may be taken together with `of_origin`."""
        return kind, attempt_of(address, email)

    async def refuse(self, *limits: Limit) -> Reply | None:
        """Take one of each, as `take_all`. Returns the refusal to reply with, or None."""
        seconds = await self.take_all(*limits)
        return self.refusal(seconds) if seconds else None

    def by_origin(self, kind: str) -> Callable[[Request], Awaitable[Reply | None]]:
        """The `limit` of a route: takes one of the kind, by origin. Raises KeyError for an unknown kind."""
        self._rates[kind]  # raises now, not when a request comes

        async def take(request: Request) -> Reply | None:
            return await self.refuse(self.of_origin(kind, request.origin))

        return take

    async def forgive(self, *limits: Limit) -> None:
        """Give one of each back: an attempt that succeeded was no guess."""
        for kind, who in limits:
            await self.refund(kind, who)

    async def unless_busy(self, work: Awaitable[T], *taken: Limit) -> T:
        """Await the work. If it raises Busy, what was taken for it is given back."""
        try:
            return await work
        except Busy:
            await self.forgive(*taken)
            raise

    def refusal(self, seconds: float) -> Reply:
        """429 `rate` (RFC 6585, §4), with the whole seconds to wait, at least 1."""
        return reply(429, error="rate", headers=[("retry-after", str(max(1, math.ceil(seconds))))])

    async def _move(self, cost: int, limits: tuple[Limit, ...]) -> float:
        names = [rate_key(kind, who) for kind, who in limits]
        steps = [word for kind, _ in limits for word in self._steps[kind]]
        return int(await TAKE(self._redis, names, cost, *steps)) / 1e6


def _step(kind: str, count: int, seconds: float) -> tuple[int, int]:
    """The microseconds of one and of all, rounded so that all is exactly `count` times one."""
    if count < 1 or not 0 < seconds <= LONGEST or count > seconds * FINEST:
        raise ValueError(f"the rate {kind!r} can't be kept: {count} in {seconds} seconds")
    one = round(seconds * 1e6 / count)
    return one, one * count
