"""All routes of users' files, below a prefix."""

from backlore.filehttp.content import Content
from backlore.filehttp.folder import Folder
from backlore.filehttp.zips import Zips
from backlore.files.files import Files
from backlore.web.routes import Route


class FileRoutes:
    """What clients can do with files. `accel`: see `Content`; `secret` signs links."""

    def __init__(self, files: Files, secret: str, accel: str | None):
        self.folder = Folder(files)
        self.content = Content(files, secret, accel)
        self.zips = Zips(files)

    def routes(self, prefix: str) -> list[Route]:
        """For the route table."""
        return [route for part in (self.folder, self.content, self.zips) for route in part.routes(prefix)]
