"""Mail: letters wait in redis until a mail server has accepted them.

    mail:{out}due       sorted set  id → when it is due or its claim ends (µs); as long as letters wait
    mail:{out}letters   hash        id → JSON {to, name, values, created}; until it is sent, or given up after a day
    mail:{out}attempts  hash        id → how often it was claimed; as long as its letter

Laws: a letter that `send` has accepted is delivered at least once, or notify is told that it was given up. The process
that delivers a letter holds its claim meanwhile, so that only a crash can lead to a second sending, with the same
Message-ID. All times are redis' own. The values of a maker (tokens, links) are made when the mail leaves, and are never
stored in redis. Values are never told to notify: they may contain links. A letter that this version can't read waits
for one that can, and delays no other.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from email.message import EmailMessage
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
from redis.exceptions import RedisError

from backlore.clients.redis.agenda import CLAIMED, Agenda
from backlore.clients.redis.aside import AGAIN, Aside
from backlore.clients.redis.lease import LeaseLost
from backlore.clients.redis.script import CLOCK, Script
from backlore.clients.smtp import MailNotTaken, MailRefused
from backlore.core.crypto import random_text
from backlore.core.keys import key
from backlore.core.letters import Templates, parse_recipient
from backlore.core.notify import Notify

DUE = key("mail", "outdue")
LETTERS = key("mail", "outletters")
ATTEMPTS = key("mail", "outattempts")

TRY = 90.0  # seconds that one try may take
BACKOFF = 5.0  # seconds after the first try; doubled with each
LONGEST_BACKOFF = 3600.0
PATIENCE = 24 * 3600.0  # seconds of age at which a letter is given up
IDLE = 0.3  # seconds between two looks when nothing is due
AWAY = 1.0  # seconds between two tries to record in redis what became of a letter
SETTLED = 30  # how many such tries

# KEYS: due, letters. ARGV: id, JSON of the letter with "created" 0.
SEND = Script(
    CLOCK
    + """
redis.call('HSET', KEYS[2], ARGV[1], (ARGV[2]:gsub('"created":0', '"created":' .. clock[1], 1)))
return redis.call('ZADD', KEYS[1], now, ARGV[1])
"""
)

# Claims the letters that are due. Returns until when, the time now, and for each letter its id, text and attempt.
# KEYS: due, letters, attempts. ARGV: how long the claim lasts (µs), most letters.
CLAIM = Script(
    CLOCK
    + """
local claimed = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])) do
    local letter = redis.call('HGET', KEYS[2], id)
    if letter then
        redis.call('ZADD', KEYS[1], later(ARGV[1]), id)
        table.insert(claimed, {id, letter, redis.call('HINCRBY', KEYS[3], id, 1)})
    else
        redis.call('ZREM', KEYS[1], id)
    end
end
return {later(ARGV[1]), now, claimed}
"""
)

# Makes a letter due again, unless another process has claimed it since: then it is no longer ours to move.
# KEYS: due, attempts. ARGV: id, attempt that it was claimed with, delay (µs).
RELEASE = Script(
    CLOCK
    + """
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then return 0 end
return redis.call('ZADD', KEYS[1], 'XX', 'CH', later(ARGV[3]), ARGV[1])
"""
)

Maker = Callable[[str, dict[str, str]], Awaitable[dict[str, str] | None]]


class Post(Protocol):
    """Sends a mail: `Smtp` or `Outbox`."""

    async def send(self, message: EmailMessage) -> None:
        """Raises MailRefused or MailNotTaken."""


class KeptLetter(msgspec.Struct):
    """A letter as it is stored in redis."""

    created: float  # seconds since the epoch, by redis' clock
    to: str
    name: str
    values: dict[str, str]


class Letter(NamedTuple):
    """A letter that was claimed."""

    id: str
    attempt: int  # 1 at the first try
    age: float  # seconds
    to: str
    name: str
    values: dict[str, str]


class Mail:
    """Sends mails by templates. `makers` are called with (to, values) when a letter leaves.

    A maker returns the values to render, or None to drop the letter silently; it runs again at each try.
    `application` is the name that users know, `address` the public URL without a slash at its end, `sender` like
    "Shoebox <hello@shoebox.example>", `templates` a folder whose NAME.txt take precedence over ours.
    Raises ValueError for an invalid sender or template.
    """

    def __init__(
        self,
        redis: Any,  # redis-py's types don't know that replies are str here
        notify: Notify,
        post: Post,
        *,
        application: str,
        address: str,
        sender: str,
        templates: Path | None = None,
    ):
        self.makers: dict[str, Maker] = {}
        self._redis = redis
        self._notify = notify
        self._post = post
        self._agenda = Agenda(redis, DUE)
        self._aside = Aside(redis, notify)
        always = {"application": application, "address": address}
        self._templates = Templates(sender, always, Path(__file__).parent / "templates", templates)
        self._reachable = True

    async def send(self, to: str, name: str, values: Mapping[str, str] | None = None) -> None:
        """Accept a letter for `to` by the template `name`; a process that `run`s delivers it soon.

        Raises ValueError for an invalid address, an unknown template, a missing value, or control characters in the
        subject; RedisError, after which the letter may or may not have been accepted.
        """
        parse_recipient(to)
        if name not in self._templates:
            raise ValueError(f"there is no mail template {name!r}")
        given = dict(values or {})
        if name not in self.makers:
            self._templates.render(name, given)  # refused now if it can't be rendered, while the caller can react
        letter = msgspec.json.encode(KeptLetter(0, to, name, given)).decode()
        await SEND(self._redis, [DUE, LETTERS], random_text(100), letter)

    async def run(self) -> None:
        """Deliver for ever. Any number of processes may run it. Raises RedisError."""
        while True:
            if not await self.deliver():
                await asyncio.sleep(IDLE)

    async def deliver(self, limit: int = 10) -> int:
        """Try at most `limit` due letters concurrently. Returns how many there were. Raises RedisError."""
        until, now, claimed = await CLAIM(self._redis, [DUE, LETTERS, ATTEMPTS], CLAIMED, limit)
        # a failure must not cancel the others in the middle of their sending
        tries = (self._serve(until, int(now), *each) for each in claimed)
        outcomes = await asyncio.gather(*tries, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return len(claimed)

    async def _serve(self, until: str, now: int, id: str, text: str, attempt: int) -> None:
        try:
            kept = msgspec.json.decode(text, type=KeptLetter)
        except ValueError:
            await self._aside.add("mail", id)
            await self._release(id, attempt, AGAIN)
            return
        letter = Letter(id, attempt, now / 1e6 - kept.created, kept.to, kept.name, kept.values)
        try:
            async with self._agenda.holding([id], until):
                outcome = await self._try(letter)
        except LeaseLost:  # another process has it, or redis is away: then the letter is due when redis is back
            self._notify("warning", "mail.lost", to=letter.to, template=letter.name)
            return
        if outcome is None:
            await self._settle(lambda: self._remove(letter.id))
        else:
            await self._later(letter, outcome)

    async def _try(self, letter: Letter) -> Exception | None:
        """Send a letter. Returns the error after which it must be tried again, or None."""
        try:
            async with asyncio.timeout(TRY):
                message = await self._compose(letter)
                if message is not None:
                    await self._post.send(message)
                    self._reached(True)
        except MailRefused as error:
            self._tell_given_up(letter, error)
        except (MailNotTaken, TimeoutError) as error:
            self._reached(False, error)
            return error
        except Exception as error:
            self._notify("error", "mail.failed", to=letter.to, template=letter.name, error=error)
            return error
        return None

    async def _compose(self, letter: Letter) -> EmailMessage | None:
        """The mail, with the values that its maker makes now; None if the maker drops it."""
        maker = self.makers.get(letter.name)
        values = await maker(letter.to, letter.values) if maker else letter.values
        if values is None:
            return None
        return self._templates.compose(letter.name, values, to=letter.to, id=letter.id)

    async def _later(self, letter: Letter, error: Exception) -> None:
        if letter.age > PATIENCE:
            self._tell_given_up(letter, error)
            await self._settle(lambda: self._remove(letter.id))
            return
        delay = min(BACKOFF * 2 ** min(letter.attempt - 1, 30), LONGEST_BACKOFF) * random.uniform(0.75, 1.25)
        await self._settle(lambda: self._release(letter.id, letter.attempt, delay))

    async def _remove(self, id: str) -> None:
        pipeline = self._redis.pipeline()
        pipeline.zrem(DUE, id)
        pipeline.hdel(LETTERS, id)
        pipeline.hdel(ATTEMPTS, id)
        await pipeline.execute()

    async def _release(self, id: str, attempt: int, delay: float) -> None:
        await RELEASE(self._redis, [DUE, ATTEMPTS], id, attempt, int(delay * 1e6))

    async def _settle(self, step: Callable[[], Awaitable[None]]) -> None:
        """Record in redis what became of a letter. Retries while redis is away: no sent letter should leave twice."""
        for left in reversed(range(SETTLED)):
            try:
                await step()
                return
            except RedisError:
                if not left:
                    raise
                await asyncio.sleep(AWAY)

    def _reached(self, reachable: bool, error: Exception | None = None) -> None:
        """Notify when mail stops leaving and when it leaves again, not for each letter."""
        if reachable == self._reachable:
            return
        self._reachable = reachable
        if reachable:
            self._notify("info", "mail.reachable")
        else:
            self._notify("warning", "mail.unreachable", why=str(error) or "no answer in time")

    def _tell_given_up(self, letter: Letter, error: Exception) -> None:
        facts = {"to": letter.to, "template": letter.name, "attempts": letter.attempt}
        self._notify("error", "mail.given_up", **facts, why=str(error) or type(error).__name__)
