"""Rate limits: how often something may happen, told apart by who does it; a bucket each, in redis.

    rate:{xyz}KIND:WHO   string  the theoretical arrival time, in microseconds; ends when the bucket is full again

The generic cell rate algorithm (ITU-T I.371): a bucket is one moment, that at which it will be full again. What is
taken moves the moment on; what would move it beyond one period from now is refused. Laws:

- What is refused is not counted: hammering does not prolong the wait.
- Time is redis's own, so that nodes with other clocks agree.
- Nothing readable of an address of e-mail stands in a key.

The tag in braces is the first three hex characters of a hash of WHO, up to its first comma: the limits of an origin
and those of an account as tried from there lie together, and can be taken in one step.
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
Limit = tuple[str, str]  # a kind and who

# Each kind: so many at once, and so many seconds until they are all there again.
DEFAULTS: dict[str, tuple[int, float]] = {
    "knock": (600, 300),  # by origin: bodies at login, whose own limits count when they have been read
    "signup": (20, 3600),  # by origin: an office signs up together, a script does not fill the database
    "login": (30, 300),  # by origin: one password tried on many accounts
    "login-account": (10, 900),  # by origin and account: many passwords on one; who sits elsewhere stays free to log in
    "password": (10, 900),  # by user: the password again, before what changes credentials
    "login-device": (
        10,
        900,
    ),  # by user, from browsers that were in before: the owner logs in while others guess nearby
    "code": (5, 1800),  # by user: guessing the second factor, of which a password is the first
    "code-device": (5, 1800),  # the same from browsers that were in before
    "passkey": (30, 300),  # by origin: challenges, and answers to them
    "openid": (30, 300),  # by origin: sign-ins begun at a provider
    "recover": (20, 3600),  # by origin: nobody writes to all addresses that he knows
    "recover-account": (5, 3600),  # by account: nor floods one mailbox from many origins
    "verify": (30, 3600),  # by origin: guessing what was mailed
    "verify-account": (10, 900),  # by account: guessing the password of a signup by its link
    "mail": (10, 3600),  # by account: mails to verify one address, whoever asks for them
}
FINEST = 1_000_000  # of something in a second: the grain of redis's clock
LONGEST = 366 * 86_400  # seconds

# KEYS: buckets. ARGV: cost, negative to give back, and for each bucket the microseconds of one and of all.
# Takes from all or from none; returns the microseconds to wait. '%.0f': Lua would write 1.8e+15.
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
    """Of a bucket."""
    return key("rate", _tag(who) + kind, who)


def _tag(who: str) -> str:
    return hashlib.blake2b(who.partition(",")[0].encode(), digest_size=8).hexdigest()[:TAG]


def account_of(email: str) -> str:
    """Who is meant, by an address of e-mail: 16 hex characters, the same for all ways of writing it."""
    return hashlib.blake2b(normalize(email).encode(), digest_size=8).hexdigest()


def attempt_of(address: str, email: str) -> str:
    """Who tries which account. It shares the partition of `origin_of(address)`."""
    return f"{origin_of(address)},{account_of(email)}"


class Rates:
    """The limits. `take` before the work, `refund` what turned out not to count, answer with `refusal`.

    `rates` has kinds beside those of DEFAULTS, or in their place: so many at once, refilled over so many seconds.
    Raises ValueError for a rate that can't be kept.
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
        """Take `cost` of the kind: 0.0, or when there aren't as many the seconds until there are; none is taken then.

        One command to redis. Raises KeyError for an unknown kind, ValueError for a cost that is never allowed.
        """
        return await self.take_all((kind, who), cost=cost)

    async def take_all(self, *limits: Limit, cost: int = 1) -> float:
        """Take from several limits in one command, from all of them or from none; else as `take`.

        They are different ones and lie in one partition, else ValueError: `who` is the same, or the same up to
        its comma, as with `origin_of` and `attempt_of`.
        """
        for kind, _ in limits:
            if not 1 <= cost <= self._rates[kind][0]:
                raise ValueError(f"a cost of {cost} is never allowed by the rate {kind!r}")
        if len(set(limits)) < len(limits) or len({_tag(who) for _, who in limits}) != 1:
            raise ValueError("limits that are taken together are different ones of one partition")
        return await self._move(cost, limits)

    async def refund(self, kind: str, who: str) -> None:
        """Give one back, as after a login that succeeded. A bucket never holds more than its count."""
        await self._move(-1, ((kind, who),))

    async def clear(self, kind: str, who: str) -> None:
        """Fill the bucket. Raises KeyError for an unknown kind."""
        self._rates[kind]  # a misspelt kind would clear nothing, and say nothing
        await self._redis.delete(rate_key(kind, who))

    @staticmethod
    def of_origin(kind: str, address: str) -> Limit:
        """The limit of whoever asks from this address."""
        return kind, origin_of(address)

    @staticmethod
    def of_account(kind: str, email: str) -> Limit:
        """The limit of the account that has this address of e-mail."""
        return kind, account_of(email)

    @staticmethod
    def of_attempt(kind: str, address: str, email: str) -> Limit:
        """The limit of an account as tried from this address; may be taken together with `of_origin`."""
        return kind, attempt_of(address, email)

    async def refuse(self, *limits: Limit) -> Reply | None:
        """Take one of each, as `take_all`; the refusal to reply with, or None."""
        seconds = await self.take_all(*limits)
        return self.refusal(seconds) if seconds else None

    def by_origin(self, kind: str) -> Callable[[Request], Awaitable[Reply | None]]:
        """A route's `limit`: takes one of the kind, by origin. Raises KeyError for an unknown kind."""
        self._rates[kind]  # now, not when a request comes

        async def take(request: Request) -> Reply | None:
            return await self.refuse(self.of_origin(kind, request.origin))

        return take

    async def forgive(self, *limits: Limit) -> None:
        """Give one of each back: what succeeded was no guess."""
        for kind, who in limits:
            await self.refund(kind, who)

    async def unless_busy(self, work: Awaitable[T], *taken: Limit) -> T:
        """The result of the work; when it is refused because we are busy, what was taken for it is given back."""
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
    """The microseconds of one and of all: whole ones, so that all is exactly `count` times one."""
    if count < 1 or not 0 < seconds <= LONGEST or count > seconds * FINEST:
        raise ValueError(f"the rate {kind!r} can't be kept: {count} in {seconds} seconds")
    one = round(seconds * 1e6 / count)
    return one, one * count
