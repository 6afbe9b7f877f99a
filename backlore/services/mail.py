"""Mail: letters wait in redis until a server has taken them.

    mail:{out}due       sorted set  id -> when it is due or its lease ends (seconds); lives as long as letters wait
    mail:{out}letters   hash        id -> JSON {to, name, values, created}; each until sent or given up, 24 h at most
    mail:{out}attempts  hash        id -> how often it was claimed; as long as its letter

Laws: a letter that `send` has taken is delivered at least once, or its giving up is told. A try ends before its lease
does, so that a second sending needs a crash; it carries the same Message-ID. What a maker makes (tokens, links)
never lies in redis, and is made when the mail really leaves. Values are never told to notify: they may hold links.
"""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from email.message import EmailMessage
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from redis.exceptions import RedisError

from backlore.clients.script import Script
from backlore.clients.smtp import Refused, Unreachable
from backlore.core.crypto import random_text
from backlore.core.keys import key
from backlore.core.letters import Templates, parse_recipient
from backlore.core.notify import Notify

DUE = key("mail", "outdue")
LETTERS = key("mail", "outletters")
ATTEMPTS = key("mail", "outattempts")

LEASE = 120.0  # seconds that a letter belongs to whoever claimed it
TRY = 0.75  # of the lease is what one try may take
BACKOFF = 5.0  # seconds after the first try; doubled with each
LONGEST_BACKOFF = 3600.0
PATIENCE = 24 * 3600.0  # seconds of age at which a letter is given up
IDLE = 0.3  # seconds between two looks when nothing is due
AWAY = 1.0  # seconds between two looks when redis is away

# Letters that are due, now leased. The clock is redis's: those of the processes may differ.
# KEYS: due, letters, attempts. ARGV: lease in seconds, most letters.
CLAIM = Script("""
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local claimed = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])) do
    local letter = redis.call('HGET', KEYS[2], id)
    if letter then
        redis.call('ZADD', KEYS[1], now + ARGV[1], id)
        table.insert(claimed, {id, letter, redis.call('HINCRBY', KEYS[3], id, 1)})
    else
        redis.call('ZREM', KEYS[1], id)
    end
end
return claimed
""")

# A letter is due again, unless somebody else has claimed it since: then it is no longer ours to move.
# KEYS: due, attempts. ARGV: id, attempt that it was claimed with, delay in seconds.
RELEASE = Script("""
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then return 0 end
local clock = redis.call('TIME')
return redis.call('ZADD', KEYS[1], 'XX', 'CH', clock[1] + clock[2] / 1000000 + ARGV[3], ARGV[1])
""")

Maker = Callable[[str, dict[str, str]], Awaitable[dict[str, str] | None]]


class Post(Protocol):
    """What takes a mail away: `Smtp` or `Outbox`."""

    async def send(self, message: EmailMessage) -> None:
        """Raises Refused or Unreachable."""


class Letter(NamedTuple):
    """What was claimed."""

    id: str
    attempt: int  # 1 at the first try
    to: str
    name: str
    values: dict[str, str]
    created: float  # seconds


class Mail:
    """Sends what templates say. `makers` are called with (to, values) when a letter leaves.

    A maker gives the values to render, or None to drop the letter without a word; it runs again at each try.
    `application` is our name to users, `address` the public URL without a slash at its end, `sender` like
    "Shoebox <hello@shoebox.example>", `templates` a folder whose NAME.txt come before ours.
    Raises ValueError for a sender or a template that can't be used.
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
        always = {"application": application, "address": address}
        self._templates = Templates(sender, always, Path(__file__).parent / "templates", templates)
        self._reachable = True

    async def send(self, to: str, name: str, values: Mapping[str, str] | None = None) -> None:
        """Take a letter for `to` by the template `name`; it leaves soon, by whichever process `run`s.

        Raises ValueError for an address that can't be one, an unknown template, a value that is missing, control
        characters in the subject; RedisError, after which the letter may or may not have been taken.
        """
        parse_recipient(to)
        if name not in self._templates:
            raise ValueError(f"there is no mail template {name!r}")
        given = dict(values or {})
        if name not in self.makers:
            self._templates.render(name, given)  # what can't be rendered is refused while its caller listens
        id, now = random_text(100), time.time()
        letter = json.dumps({"to": to, "name": name, "values": given, "created": now})
        pipeline = self._redis.pipeline()
        pipeline.hset(LETTERS, id, letter)
        pipeline.zadd(DUE, {id: now})
        await pipeline.execute()

    async def run(self) -> None:
        """Deliver for ever. Any number of processes may."""
        while True:
            try:
                pause = 0.0 if await self.deliver() else IDLE
            except RedisError:  # told by the client
                pause = AWAY
            await asyncio.sleep(pause)

    async def deliver(self, limit: int = 10) -> int:
        """Try what is due, at most `limit` letters side by side; how many they were. Raises RedisError."""
        claimed = await CLAIM(self._redis, [DUE, LETTERS, ATTEMPTS], LEASE, limit)
        letters = [Letter(id, int(attempt), **json.loads(text)) for id, text, attempt in claimed]
        # one that fails must not cancel the others halfway through their sending
        outcomes = await asyncio.gather(*map(self._try, letters), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return len(letters)

    async def _try(self, letter: Letter) -> None:
        try:
            async with asyncio.timeout(LEASE * TRY):
                message = await self._compose(letter)
                if message is not None:
                    await self._post.send(message)
                    self._reached(True)
        except Refused as error:
            self._tell_given_up(letter, error)
        except (Unreachable, TimeoutError) as error:
            self._reached(False, error)
            await self._later(letter, error)
            return
        except Exception as error:
            self._notify("error", "mail.failed", to=letter.to, template=letter.name, error=error)
            await self._later(letter, error)
            return
        await self._settle(lambda: self._remove(letter))

    async def _compose(self, letter: Letter) -> EmailMessage | None:
        """The mail, with the values that its maker makes now; None when the maker drops it."""
        maker = self.makers.get(letter.name)
        values = await maker(letter.to, letter.values) if maker else letter.values
        if values is None:
            return None
        return self._templates.compose(letter.name, values, to=letter.to, id=letter.id)

    async def _later(self, letter: Letter, error: Exception) -> None:
        if time.time() - letter.created > PATIENCE:
            self._tell_given_up(letter, error)
            await self._settle(lambda: self._remove(letter))
            return
        delay = min(BACKOFF * 2 ** min(letter.attempt - 1, 30), LONGEST_BACKOFF) * random.uniform(0.75, 1.25)
        await self._settle(lambda: RELEASE(self._redis, [DUE, ATTEMPTS], letter.id, letter.attempt, delay))

    async def _remove(self, letter: Letter) -> None:
        pipeline = self._redis.pipeline()
        pipeline.zrem(DUE, letter.id)
        pipeline.hdel(LETTERS, letter.id)
        pipeline.hdel(ATTEMPTS, letter.id)
        await pipeline.execute()

    async def _settle(self, step: Callable[[], Awaitable[Any]]) -> None:
        """Tell redis what became of a letter; while it is away, again: else a sent letter would be sent twice."""
        until = time.monotonic() + LEASE * (1 - TRY)
        while True:
            try:
                await step()
                return
            except RedisError:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(AWAY)

    def _reached(self, reachable: bool, error: Exception | None = None) -> None:
        """Tell when mail stops to leave and when it leaves again, not for each letter."""
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
