"""Serves files from the disk: one page, or a folder. The ETag is modification time and size; no dates are sent."""

import os
import stat
from pathlib import Path

from backlore.core.media import PLAIN, guess_kind
from backlore.web.delivery import FilePart, deliver
from backlore.web.reply import REVALIDATE, SECURITY, Header, Reply, reply
from backlore.web.request import Request

# A page may load only what its own server has: no inline scripts, no plug-ins, no frames around it, no forms elsewhere.
POLICY: Header = (
    b"content-security-policy",
    b"default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    b"frame-ancestors 'none'",
)


class StaticFiles:
    """The handler that serves one file, or a folder's files by `{path...}`.

    No path reaches outside of the folder, neither by `..` nor by a symbolic link. Names that begin with a dot are
    never served from a folder.
    """

    def __init__(self, place: str, only: bool):
        self._place = Path(place)
        self._only = only  # the place is the one file to serve

    @property
    def media(self) -> str:
        """The media type of the one file; `*/*` for a folder."""
        return _kind(self._place).partition(";")[0] if self._only else "*/*"

    def settle(self, folder: Path) -> None:
        """Resolve a relative place against the application's folder."""
        self._place = Path(os.path.realpath(folder / self._place))

    def is_there(self) -> bool:
        """Whether the file or the folder exists."""
        return os.path.isfile(self._place) if self._only else os.path.isdir(self._place)

    def __repr__(self) -> str:
        return f"{'file' if self._only else 'folder'} {self._place}"

    async def __call__(self, request: Request) -> Reply:
        """Reply with the file: 200, 206, 304, 412, 416; 404 `route` if there is none."""
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
        return deliver(request, [FilePart(path, 0, status.st_size, whole=True)], _headers(path), etag)


def _kind(path: Path) -> str:
    kind = guess_kind(path.name) or PLAIN
    is_text = kind.startswith("text/") or kind in ("application/javascript", "application/json")
    return f"{kind}; charset=utf-8" if is_text else kind


def _headers(path: Path) -> list[Header]:
    kind = _kind(path)
    page = [POLICY] if kind.startswith(("text/html", "image/svg")) else []
    return [(b"content-type", kind.encode()), *SECURITY, REVALIDATE, *page]


def page(file: str) -> StaticFiles:
    """A handler that serves one file of the application: `public.get("/", page("client/index.html"))`."""
    return StaticFiles(file, only=True)


def static(folder: str) -> StaticFiles:
    """A handler that serves a folder: `public.get("/client/{path...}", static("client"))`."""
    return StaticFiles(folder, only=False)
