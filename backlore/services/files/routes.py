"""The routes of users' files, below a prefix."""

from backlore.core.notify import Notify
from backlore.services.files.admin import FileAdmins
from backlore.services.files.catalog import Changed, Exists, Gone, NoFile, Quota
from backlore.services.files.content import ContentRoutes
from backlore.services.files.files import Files
from backlore.services.files.folder import Folder
from backlore.services.files.zips import Zips
from backlore.web.routes import Route

# The status and word for each refusal of the file service.
REFUSALS: dict[type[Exception], tuple[int, str]] = {
    Exists: (409, "exists"),
    Changed: (409, "changed"),
    Quota: (409, "quota"),
    NoFile: (404, "file"),
    Gone: (403, "session"),
}


class FileRoutes:
    """All routes for whole files. `secret` signs links; `accel`: see `ContentRoutes`."""

    def __init__(self, files: Files, notify: Notify, secret: str, accel: str | None):
        self.content = ContentRoutes(files, secret, accel)
        self._parts = (Folder(files), self.content, Zips(files), FileAdmins(files, notify))

    def routes(self, prefix: str) -> list[Route]:
        """For the route table."""
        return [route for part in self._parts for route in part.routes(prefix)]
