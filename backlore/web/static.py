"""Files from the disk: a page, or a folder. The ETag is made of modification time and size; no dates."""

import asyncio
import mimetypes
import os
import re
import stat
from pathlib import Path

from backlore.web.reply import SECURITY, Header, Reply, Send, etag_matches, reply
from backlore.web.request import Request

INLINE = 256 << 10  # bytes up to which a file goes out in one piece with its headers
PIECE = 256 << 10

# A page may load what its own server has, and nothing else: no inline script, no frame, no other's form.
POLICY: Header = (
    b"content-security-policy",
    b"default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    b"frame-ancestors 'none'",
)
REVALIDATE: Header = (b"cache-control", b"no-cache")


class FileReply(Reply):
    """A file, or the part of it from `start`, `length` bytes long, sent without loading it."""

    __slots__ = ("length", "path", "start")

    def __init__(self, status: int, headers: list[Header], path: Path, start: int, length: int):
        super().__init__(status, b"", headers)
        self.path = path
        self.start = start
        self.length = length

    async def send(self, send: Send, headers: list[Header], bodiless: bool) -> None:
        """Send by ASGI, in pieces read in a thread."""
        loop = asyncio.get_running_loop()
        with self.path.open("rb", buffering=0) as file:
            headers = [*headers, (b"content-length", b"%d" % self.length)]
            await send({"type": "http.response.start", "status": self.status, "headers": headers})
            if bodiless or not self.length:
                await send({"type": "http.response.body", "body": b""})
                return
            file.seek(self.start)
            left = self.length
            while left > 0:
                size = min(PIECE, left)
                piece = file.read(size) if self.length <= INLINE else await loop.run_in_executor(None, file.read, size)
                if not piece:
                    raise OSError(f"{self.path} has become shorter while it was sent")
                left -= len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": left > 0})


class Files:
    """The handler that serves one file, or a folder's files by `{path...}`.

    Nothing outside of the folder is reached, by no `..` and no link, nor anything whose name begins with a dot.
    """

    def __init__(self, place: str, only: bool):
        self._place = Path(place)
        self._only = only  # the place is the one file to serve

    @property
    def media(self) -> str:
        """The media type of the one file; of a folder's files, any."""
        return _kind(self._place).partition(";")[0] if self._only else "*/*"

    def settle(self, folder: Path) -> None:
        """Take relative places from the application's folder."""
        self._place = Path(os.path.realpath(folder / self._place))

    async def __call__(self, request: Request) -> Reply:
        """The file; 304, 206, 416; 404 `route`."""
        path = self._place if self._only else self._find(request.parameters.get("path", ""))
        try:
            status = path.stat() if path else None
        except (OSError, ValueError):
            status = None
        if path is None or status is None or not stat.S_ISREG(status.st_mode):
            return reply(404, error="route")
        return self._answer(request, path, status)

    def _find(self, wanted: str) -> Path | None:
        parts = wanted.split("/")
        if any(part in ("", "..") or part.startswith(".") or "\0" in part or "\\" in part for part in parts):
            return None
        try:
            path = Path(os.path.realpath(self._place.joinpath(*parts)))
        except (OSError, ValueError):
            return None
        return path if path.is_relative_to(self._place) else None

    def _answer(self, request: Request, path: Path, status: os.stat_result) -> Reply:
        etag = b'"%x-%x"' % (status.st_mtime_ns, status.st_size)
        headers = [*_headers(path), (b"etag", etag), (b"accept-ranges", b"bytes")]
        if etag_matches(request.headers.get(b"if-none-match"), etag):
            return Reply(304, b"", headers)
        wanted = request.headers.get(b"range")
        if wanted and request.headers.get(b"if-range", etag) == etag:
            span = parse_range(wanted, status.st_size)
            if span == (0, 0):
                return reply(416, error="range", headers=[("content-range", f"bytes */{status.st_size}")])
            if span:
                start, length = span
                headers.append((b"content-range", b"bytes %d-%d/%d" % (start, start + length - 1, status.st_size)))
                return FileReply(206, headers, path, start, length)
        return FileReply(200, headers, path, 0, status.st_size)


def _kind(path: Path) -> str:
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    is_text = kind.startswith("text/") or kind in ("application/javascript", "application/json")
    return f"{kind}; charset=utf-8" if is_text else kind


def _headers(path: Path) -> list[Header]:
    kind = _kind(path)
    page = [POLICY] if kind.startswith(("text/html", "image/svg")) else []
    return [(b"content-type", kind.encode()), *SECURITY, REVALIDATE, *page]


def parse_range(header: bytes, size: int) -> tuple[int, int] | None:
    """Start and length of a single byte range (RFC 9110, §14.1.2).

    (0, 0) when nothing of it is in the file; None when the header is to be ignored: another unit, several
    ranges, bad syntax.
    """
    match = re.fullmatch(rb"bytes=(\d{0,18})-(\d{0,18})", header.strip())
    if not match or header.strip() == b"bytes=-":
        return None
    first, last = match.groups()
    if not first:
        length = min(int(last), size)
        return (size - length, length) if length else (0, 0)
    start = int(first)
    end = min(int(last), size - 1) if last else size - 1
    if last and int(last) < start:
        return None
    return (start, end - start + 1) if start < size else (0, 0)


def page(file: str) -> Files:
    """A handler that serves one file of the application: `public.get("/", page("client/index.html"))`."""
    return Files(file, only=True)


def static(folder: str) -> Files:
    """A handler that serves a folder: `public.get("/client/{path...}", static("client"))`."""
    return Files(folder, only=False)
