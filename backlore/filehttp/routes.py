"""All routes of users' files, below a prefix."""

from collections.abc import Callable

from backlore.core.notify import Notify
from backlore.filehttp.admin import FileAdmins
from backlore.filehttp.content import Content
from backlore.filehttp.folder import Folder
from backlore.filehttp.lines import LineRoutes
from backlore.filehttp.tus import Elsewhere, Tus
from backlore.filehttp.zips import Zips
from backlore.files.catalog import Changed, Exists, Gone, NoFile, Quota
from backlore.files.files import Files
from backlore.files.receiver import Mismatch
from backlore.files.transfers import Crowd, Locked, NoUpload
from backlore.web.routes import Route

# What can't be done with files, with its status and word.
REFUSALS: dict[type[Exception], tuple[int, str]] = {
    Exists: (409, "exists"),
    Changed: (409, "changed"),
    Quota: (409, "quota"),
    Crowd: (409, "uploads"),
    Elsewhere: (409, "offset"),
    NoFile: (404, "file"),
    NoUpload: (404, "upload"),
    Gone: (403, "session"),
    Locked: (423, "locked"),
    Mismatch: (460, "checksum"),
}


class FileRoutes:
    """What clients can do with files. `accel`: see `Content`; `secret` signs links; `limit`: bytes of an upload;
    `is_draining`: see `LineRoutes`."""

    def __init__(
        self, files: Files, notify: Notify, secret: str, accel: str | None, limit: int, is_draining: Callable[[], bool]
    ):
        self.content = Content(files, secret, accel)
        self._parts = (
            Folder(files),
            self.content,
            Zips(files),
            LineRoutes(files, is_draining),
            Tus(files.uploads, limit),
            FileAdmins(files, notify),
        )

    def routes(self, prefix: str) -> list[Route]:
        """For the route table."""
        return [route for part in self._parts for route in part.routes(prefix)]
