"""Turns a row's request into what is sent, and into a curl command that sends the same."""

import secrets
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec

from backlore.tools.testing.client import SAFE, Client, Outgoing, Server
from backlore.tools.testing.kept import Kept, fill, fill_path, fill_text, to_text
from backlore.tools.testing.rows import Default, File, RowRequest

HIDDEN = {"cookie", "authorization", "set-cookie"}  # not printed for a server on another machine
LONGEST = 20_000  # bytes: the longest body that is shown in a command


def compose(request: RowRequest, kept: Kept, client: Client) -> Outgoing:
    """What goes out for a request. Raises NothingKept, and OSError for a file that can't be read."""
    path = fill_path(request.path, kept).removeprefix(client.server.url)
    if request.query:
        path += f"{'&' if '?' in path else '?'}{urlencode(list(pairs(fill(request.query, kept))))}"
    headers: dict[str, str | None] = {}
    kind, body = to_body(request, kept)
    if kind:
        headers["content-type"] = kind
    if request.user is not None:
        headers["cookie"] = client.cookies.header(path.partition("?")[0]) or None
        if request.csrf and request.method not in SAFE:
            headers["x-csrf-token"] = client.csrf or None
    headers |= {name.lower(): value and fill_text(value, kept) for name, value in request.headers.items()}
    return Outgoing(request.method, path, {name: value for name, value in headers.items() if value is not None}, body)


def to_body(request: RowRequest, kept: Kept) -> tuple[str, bytes | None]:
    """The content-type of a request, "" for none, and its body."""
    if request.raw is not None:
        return "", request.raw
    if request.payload is not Default.NOTHING:
        return "application/json", msgspec.json.encode(fill(request.payload, kept))
    fields = list(pairs(fill(request.form or {}, kept)))
    if request.files is not None:
        return to_multipart(fields, request.files)
    if request.form is not None:
        return "application/x-www-form-urlencoded", urlencode(fields).encode()
    return "", None


def pairs(given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Pairs of a key and a text; a list repeats its key."""
    for key, value in given.items():
        for each in value if isinstance(value, list) else [value]:
            yield key, to_text(each)


def to_multipart(fields: Sequence[tuple[str, str]], files: Mapping[str, File | Sequence[File]]) -> tuple[str, bytes]:
    """Fields and files as multipart/form-data (RFC 7578)."""
    boundary = secrets.token_hex(16)
    parts = [(f'name="{escape(name)}"', "", text.encode()) for name, text in fields]
    for name, given in files.items():
        for each in given if isinstance(given, list) else [given]:
            title, content, kind = to_file(each)
            parts.append((f'name="{escape(name)}"; filename="{escape(title)}"', kind, content))
    body = b""
    for place, kind, content in parts:
        lines = f"--{boundary}\r\ncontent-disposition: form-data; {place}\r\n"
        lines += f"content-type: {kind}\r\n\r\n" if kind else "\r\n"
        body += lines.encode() + content + b"\r\n"
    return f"multipart/form-data; boundary={boundary}", body + f"--{boundary}--\r\n".encode()


def to_file(given: Any) -> tuple[str, bytes, str]:
    """Name, content and type of a file."""
    if isinstance(given, Path):
        return given.name, given.read_bytes(), "application/octet-stream"
    if isinstance(given, bytes):
        return "file", given, "application/octet-stream"
    title, content, *kind = given
    return title, content, kind[0] if kind else "application/octet-stream"


def escape(name: str) -> str:
    """A name for use within quotes, escaped as browsers do it."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def to_curl(sent: Outgoing, server: Server) -> str:
    """A shell command that sends the same. `…` hides the cookies and credentials of a server on another machine."""
    words = ["curl", "-sSig", "--path-as-is"]
    words += ["-I"] if sent.method == "HEAD" else [] if sent.method == "GET" and not sent.body else ["-X", sent.method]
    words.append(server.url + sent.path)
    for name, value in sent.headers.items():
        shown = value if server.is_loopback or name not in HIDDEN else "…"
        # the semicolon makes curl send a header without a value
        words += ["-H", f"{name}: {shown}" if shown else f"{name};"]
    body = sent.body if sent.body is not None else (None if sent.method in SAFE else b"")
    if body is None:
        return shlex.join(words)
    if "content-type" not in sent.headers:
        words += ["-H", "content-type:"]
    if len(body) > LONGEST:
        return f"{shlex.join([*words, '--data-binary', '@BODY'])}  # BODY: a file of its {len(body):,} bytes"
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = "\0"
    if text.isprintable() or ("\0" not in text and "\r" not in text):
        return shlex.join([*words, "--data-raw", text])
    octal = "".join(f"\\{byte:03o}" for byte in body)
    return f"printf '{octal}' | {shlex.join([*words, '--data-binary', '@-'])}"
