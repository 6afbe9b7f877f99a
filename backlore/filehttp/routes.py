"""All routes of users' files, below a prefix."""

from backlore.core.notify import Notify
from backlore.filehttp.admin import FileAdmins
from backlore.filehttp.content import Content
from backlore.filehttp.folder import Folder
from backlore.filehttp.zips import Zips
from backlore.files.files import Files
from backlore.web.routes import Route


class FileRoutes:
    """What clients can do with files. `accel`: see `Content`; `secret` signs links."""

    def __init__(self, files: Files, notify: Notify, secret: str, accel: str | None):
        self.folder = Folder(files)
        self.content = Content(files, secret, accel)
        self.zips = Zips(files)
        self.admins = FileAdmins(files, notify)

    def routes(self, prefix: str) -> list[Route]:
        """For the route table."""
        return [route for part in (self.folder, self.content, self.zips, self.admins) for route in part.routes(prefix)]
