"""The outbox as a page: the mails that would have been sent, where no SMTP server is configured.

Laws: mails contain tokens, so only the developer's browser sees them. Nothing in a mail is rendered as markup. A file
that is no valid mail is shown, too.
"""

import asyncio
import html
import os
import re
import time
from collections.abc import Callable
from email import message_from_bytes, policy
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from backlore.web.reply import NO_STORE, SECURITY, Reply, reply
from backlore.web.request import Request
from backlore.web.routes import Route
from backlore.web.stages import public
from backlore.web.static import POLICY

NEWEST = 100  # mails in the list
LARGEST = 1 << 20  # bytes of a file that are read
STYLE = Path(__file__).parent / "templates" / "outbox.css"

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="stylesheet" href="/outbox/style.css">
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
LIST = """\
<h1>Outbox</h1>
<p class="note">No SMTP server is configured: mails are kept here instead of being sent.</p>
{mails}"""
EMPTY = '<p class="empty">No mail yet. What the application sends appears here: reload after signing up, for one.</p>'
ROW = """\
<li><a href="/outbox/{link}">
<span class="subject">{subject}</span>
<span class="to">{to}</span>
{when}
</a></li>"""
MAIL = """\
<nav><a href="/outbox">← Outbox</a></nav>
<h1>{subject}</h1>
{above}
<pre>
{text}</pre>"""
HEADERS = "<dl>\n{}\n</dl>"
BROKEN = '<p class="warning">This file is no whole mail. Here is what stands in it.</p>'


class SavedMail(NamedTuple):
    """A file of the outbox as it was read."""

    name: str
    written: float  # seconds since the epoch
    headers: list[tuple[str, str]]
    text: str  # the plain text; for a broken file its whole content
    broken: bool

    def header(self, name: str) -> str:
        """The first header of this name; empty when there is none."""
        return next((value for known, value in self.headers if known.lower() == name), "")

    @property
    def title(self) -> str:
        """The mail's title in the page: its subject, or the file's name if it is broken."""
        return self.name if self.broken else self.header("subject") or "(no subject)"


class OutboxPage:
    """Shows the .eml files of a folder, newest first, to requests for which `refuse` returns None."""

    def __init__(self, folder: Path, refuse: Callable[[Request], Reply | None]):
        self._folder = folder
        self._refuse = refuse
        self._style = STYLE.read_bytes()

    def routes(self) -> list[Route]:
        """For the route table."""
        return [
            public.get("/outbox", self._list),
            public.get("/outbox/style.css", self._look),
            public.get("/outbox/{name}", self._show),
        ]

    async def _list(self, request: Request) -> Reply:
        """The newest mails. 200 text/html; 303 with a key; 403 `key`; 404 `route` from elsewhere."""
        if refusal := self._refuse(request):
            return refusal
        mails = await asyncio.to_thread(read_newest, self._folder)
        rows = "\n".join(map(to_row, mails))
        return page("Outbox", LIST.format(mails=f"<ol>\n{rows}\n</ol>" if mails else EMPTY))

    async def _show(self, request: Request, name: str) -> Reply:
        """One mail, with clickable links. 200 text/html; 303; 403 `key`; 404 `route`, also if there is no such mail."""
        if refusal := self._refuse(request):
            return refusal
        mail = await asyncio.to_thread(read_named, self._folder, name)
        return reply(404, error="route") if mail is None else page(mail.title, to_article(mail))

    async def _look(self, request: Request) -> Reply:
        """The stylesheet of both pages. 200 text/css; 303; 403 `key`; 404 `route`."""
        if refusal := self._refuse(request):
            return refusal
        return Reply(200, self._style, [(b"content-type", b"text/css; charset=utf-8"), *SECURITY, NO_STORE])


def read_newest(folder: Path) -> list[SavedMail]:
    """The newest mails of the folder, newest first; the files' names sort by time. Blocks."""
    files = sorted(find_files(folder), key=lambda each: each.name, reverse=True)
    return [read(file) for file in files[:NEWEST]]


def read_named(folder: Path, name: str) -> SavedMail | None:
    """The mail with this file name, or None. The name is compared, never used as a path. Blocks."""
    return next((read(file) for file in find_files(folder) if file.name == name), None)


def find_files(folder: Path) -> list["os.DirEntry[str]"]:
    """The folder's regular files NAME.eml: no links, no drafts, no unprintable names."""
    try:
        with os.scandir(folder) as entries:
            return [
                entry
                for entry in entries
                if entry.name.endswith(".eml")
                and not entry.name.startswith(".")
                and entry.name.isprintable()
                and entry.is_file(follow_symlinks=False)
            ]
    except FileNotFoundError:  # the first mail creates the folder
        return []


def read(file: "os.DirEntry[str]") -> SavedMail:
    """A file as a mail, whatever it contains. Blocks."""
    written, content = 0.0, b""
    try:
        written = file.stat().st_mtime
        with open(file.path, "rb") as opened:
            content = opened.read(LARGEST)
        headers, text = parse(content)
        return SavedMail(file.name, written, headers, text, broken=False)
    except Exception:  # email's parser may raise anything, even as late as when a header is read
        return SavedMail(file.name, written, [], content.decode("utf-8", "replace"), broken=True)


def parse(content: bytes) -> tuple[list[tuple[str, str]], str]:
    """Headers and plain text of a mail (RFC 5322). Raises ValueError, or nearly anything, if it is no valid mail."""
    message = message_from_bytes(content, policy=policy.default)
    headers = [(name, str(value)) for name, value in message.items()]
    if message.defects or "to" not in message:
        raise ValueError("no whole mail")
    body = message.get_body(("plain",))
    return headers, "(no plain text)" if body is None else body.get_content()


def page(title: str, body: str) -> Reply:
    """A reply of HTML; `title` is text, `body` is markup."""
    raw = PAGE.format(title=html.escape(title), body=body).encode("utf-8", "replace")  # lone surrogates become ?
    return Reply(200, raw, [(b"content-type", b"text/html; charset=utf-8"), *SECURITY, POLICY, NO_STORE])


def to_row(mail: SavedMail) -> str:
    """The markup of a mail in the list."""
    to = "no whole mail" if mail.broken else mail.header("to")
    clock = time.localtime(mail.written)
    when = time.strftime('<time datetime="%Y-%m-%dT%H:%M:%S%z">%Y-%m-%d %H:%M:%S</time>', clock)
    return ROW.format(link=quote(mail.name, safe=""), subject=html.escape(mail.title), to=html.escape(to), when=when)


def to_article(mail: SavedMail) -> str:
    """The markup of one mail."""
    headers = "\n".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in mail.headers)
    return MAIL.format(
        subject=html.escape(mail.title),
        above=BROKEN if mail.broken else HEADERS.format(headers),
        text=html.escape(mail.text) if mail.broken else to_linked(mail.text),
    )


def to_linked(text: str) -> str:
    """The text as markup with clickable http(s) URLs. Punctuation at the end of a URL is not part of it."""
    # split by a pattern with one group: plain text and URLs alternate
    pieces = re.split(r"(https?://[^\s<>\"]*[^\s<>\".,:;!?')\]])", text)
    safe = [html.escape(piece) for piece in pieces]
    safe[1::2] = [f'<a href="{url}">{url}</a>' for url in safe[1::2]]
    return "".join(safe)
