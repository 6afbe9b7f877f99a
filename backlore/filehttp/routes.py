"""All routes of users' files, below a prefix."""

from backlore.filehttp.content import Content
from backlore.filehttp.folder import Folder
from backlore.files.files import Files
from backlore.web.routes import Route


class FileRoutes:
    """What clients can do with files. `accel`: see `Content`; `secret` signs links."""

    def __init__(self, files: Files, secret: str, accel: str | None):
        self.folder = Folder(files)
        self.content = Content(files, secret, accel)

    def routes(self, prefix: str) -> list[Route]:
        """For the route table."""
        return [*self.folder.routes(prefix), *self.content.routes(prefix)]
