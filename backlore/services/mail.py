"""Mail: letters wait in redis until a server has taken them.

    mail:{out}due       sorted set  id -> when it is due or its lease ends (seconds); lives as long as letters wait
    mail:{out}letters   hash        id -> JSON {to, name, values, created}; each until sent or given up, 24 h at most
    mail:{out}attempts  hash        id -> how often it was claimed; as long as its letter

Laws: a letter that `send` has taken is delivered at least once, or its giving up is told. A try ends before its lease
does, so that a second sending needs a crash; it carries the same Message-ID. What a maker makes (tokens, links)
never lies in redis, and is made when the mail really leaves. Values are never told to notify: they may hold links.
"""

import asyncio
import hashlib
import html
import json
import random
import re
import string
import textwrap
import time
import unicodedata
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from redis.exceptions import NoScriptError, RedisError

from backlore.clients.smtp import Refused, Unreachable
from backlore.core.crypto import random_text
from backlore.core.keys import key
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
CLAIM = """
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
"""

# A letter is due again, unless somebody else has claimed it since: then it is no longer ours to move.
# KEYS: due, attempts. ARGV: id, attempt that it was claimed with, delay in seconds.
RELEASE = """
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then return 0 end
local clock = redis.call('TIME')
return redis.call('ZADD', KEYS[1], 'XX', 'CH', clock[1] + clock[2] / 1000000 + ARGV[3], ARGV[1])
"""

Maker = Callable[[str, dict[str, str]], Awaitable[dict[str, str] | None]]


class Post(Protocol):
    """What takes a mail away: `Smtp` or `Outbox`."""

    async def send(self, message: EmailMessage) -> None:
        """Raises Refused or Unreachable."""


class Template(NamedTuple):
    """A mail as its author wrote it, with `{name}` where values go."""

    subject: str
    paragraphs: list[list[str]]  # of lines
    names: frozenset[str]


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
        self._always = {"application": application, "address": address}
        self._sender = parse_sender(sender)
        self._templates = load_templates(Path(__file__).parent / "templates", templates)
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
            self._render(name, given)  # what can't be rendered is refused while its caller listens
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
        claimed = await self._script(CLAIM, [DUE, LETTERS, ATTEMPTS], LEASE, limit)
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
        subject, text, page = self._render(letter.name, values)
        to = parse_recipient(letter.to)
        message = EmailMessage(policy.SMTP if to.addr_spec.isascii() else policy.SMTPUTF8)
        message["From"] = self._sender
        message["To"] = to
        message["Subject"] = subject
        message["Date"] = datetime.now(UTC)
        message["Message-ID"] = f"<{letter.id}@{self._sender.domain}>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's absence notice answers
        message.set_content(text, cte=transfer(text))
        message.add_alternative(page, subtype="html", cte=transfer(page))
        return message

    def _render(self, name: str, values: Mapping[str, str]) -> tuple[str, str, str]:
        """Subject, text and HTML. Raises ValueError when a value is missing or the subject no line."""
        template, values = self._templates[name], {**values, **self._always}
        if missing := template.names - values.keys():
            raise ValueError(f"mail template {name}: no value for {', '.join(sorted(missing))}")
        subject = template.subject.format_map(values)
        if has_controls(subject):
            raise ValueError(f"mail template {name}: control characters in the subject")
        # a value is no line of its own: what a stranger chose may not look like a paragraph of ours, or a button
        clean = {name: "".join(" " if is_control(c) else c for c in value) for name, value in values.items()}
        filled = [[line.format_map(clean) for line in lines] for lines in template.paragraphs]
        links = [
            [is_link(line, full) for line, full in zip(*both, strict=True)]
            for both in zip(template.paragraphs, filled, strict=True)
        ]
        return subject, to_text(filled), to_html(subject, filled, links)

    async def _later(self, letter: Letter, error: Exception) -> None:
        if time.time() - letter.created > PATIENCE:
            self._tell_given_up(letter, error)
            await self._settle(lambda: self._remove(letter))
            return
        delay = min(BACKOFF * 2 ** min(letter.attempt - 1, 30), LONGEST_BACKOFF) * random.uniform(0.75, 1.25)
        release = (RELEASE, [DUE, ATTEMPTS], letter.id, letter.attempt, delay)
        await self._settle(lambda: self._script(*release))

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

    async def _script(self, script: str, keys: list[str], *arguments: str | float) -> Any:
        sha = hashlib.sha1(script.encode()).hexdigest()
        try:
            return await self._redis.execute_command("EVALSHA", sha, len(keys), *keys, *arguments)
        except NoScriptError:
            return await self._redis.execute_command("EVAL", script, len(keys), *keys, *arguments)

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


def is_control(character: str) -> bool:
    """Whether it is a control character, a separator of lines, or half of one that can't be sent."""
    return unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs")


def has_controls(text: str) -> bool:
    """Whether the text is more than one line, or can't be shown."""
    return any(map(is_control, text))


def parse_recipient(to: str) -> Address:
    """One bare address, its domain in ASCII (IDNA). Raises ValueError."""
    local, _, domain = to.rpartition("@")
    # no quoted local parts: whoever reads them differently than we do would send to somebody else
    if not re.fullmatch(r'[^\s"(),:;<>@\[\]\\]+', local) or has_controls(local):
        raise ValueError("no e-mail address: its part before the @")
    domain = domain.encode("idna").decode()
    if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", domain):
        raise ValueError("no e-mail address: its part after the @")
    return Address(username=local, domain=domain)


def parse_sender(sender: str) -> Address:
    """The one address in "Name <address>" or "address". Raises ValueError."""
    header = policy.SMTP.header_factory("From", "" if has_controls(sender) else sender)
    if header.defects or len(header.addresses) != 1 or not header.addresses[0].domain:
        raise ValueError(f"{sender!r} is no sender: write it like Shoebox <hello@shoebox.example>")
    address: Address = header.addresses[0]
    bare = parse_recipient(f"{address.username}@{address.domain}")
    return Address(address.display_name, bare.username, bare.domain)


def load_templates(*folders: Path | None) -> dict[str, Template]:
    """The templates NAME.txt of all folders that exist; a later folder wins. Raises ValueError."""
    files = {file.stem: file for folder in folders if folder for file in sorted(folder.glob("*.txt"))}
    return {name: parse_template(name, file.read_text("utf-8")) for name, file in files.items()}


def parse_template(name: str, content: str) -> Template:
    """`Subject: ...` and paragraphs of lines, apart by empty lines. Raises ValueError."""
    first, _, body = content.partition("\n")
    if not first.startswith("Subject: ") or not body.strip():
        raise ValueError(f"mail template {name}: begin with a line `Subject: ...`, then write paragraphs")
    names = set()
    for _, field, form, conversion in string.Formatter().parse(content):
        if field is None:
            continue
        if not field.isidentifier() or form or conversion:
            raise ValueError(f"mail template {name}: {{{field}}} is no plain name; write {{{{ for a brace")
        names.add(field)
    blocks = re.split(r"\n\s*\n", body.strip())
    lines = [[line.strip() for line in block.splitlines()] for block in blocks]
    return Template(first.removeprefix("Subject: ").strip(), lines, frozenset(names))


def is_link(line: str, filled: str) -> bool:
    """Whether a template's line, which `filled` is with its values, is only a URL."""
    return not re.search(r"\s", line) and re.fullmatch(r"https?://[^\s<>\"]+", filled) is not None


def transfer(text: str) -> str:
    """The transfer encoding: plain where it may be (RFC 5322, §2.1.1), so that an .eml can be read by eye."""
    plain = text.isascii() and all(len(line) <= 900 for line in text.splitlines())
    return "7bit" if plain else "quoted-printable"


def to_text(paragraphs: list[list[str]]) -> str:
    """The plain text of a mail. A long word, like a URL, is never broken."""

    def wrap(line: str) -> str:
        return textwrap.fill(line, 76, break_long_words=False, break_on_hyphens=False)

    return "\n\n".join("\n".join(map(wrap, lines)) for lines in paragraphs) + "\n"


PAGE = """\
<!doctype html>
<html>
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{subject}</title>
</head>
<body style="margin: 0; padding: 24px 12px; background: #f4f4f2">
<div style="max-width: 520px; margin: 0 auto; padding: 20px 32px; background: #ffffff; color: #222222;
 border: 1px solid #e4e4e0; border-radius: 10px; font: 16px/1.55 system-ui, -apple-system, Segoe UI, sans-serif;
 overflow-wrap: anywhere">
{body}
</div>
</body>
</html>
"""
PARAGRAPH = '<p style="margin: 14px 0">\n{}\n</p>'
LINK = '<a href="{url}" style="color: #1f5fbf">{url}</a>'
BUTTON = """\
<a href="{url}" style="display: inline-block; margin: 6px 0; padding: 11px 20px; background: #1f5fbf; color: #ffffff;
 font-weight: 600; text-decoration: none; border-radius: 7px">{label}</a><br>
<a href="{url}" style="font-size: 12px; color: #777777">{url}</a>"""


def to_html(subject: str, paragraphs: list[list[str]], links: list[list[bool]]) -> str:
    """The HTML of a mail. A URL on a line of its own is a link, and a button if the line above it ends in a colon."""
    blocks = []
    for lines, marks in zip(paragraphs, links, strict=True):
        pieces: list[str] = []
        for number, (line, link) in enumerate(zip(lines, marks, strict=True)):
            safe = html.escape(line)
            if not link:
                pieces.append(safe)
            elif number and lines[number - 1].endswith(":") and not marks[number - 1]:
                pieces[-1] = BUTTON.format(url=safe, label=pieces[-1].removesuffix(":"))
            else:
                pieces.append(LINK.format(url=safe))
        blocks.append(PARAGRAPH.format("<br>\n".join(pieces)))
    return PAGE.format(subject=html.escape(subject), body="\n".join(blocks))
