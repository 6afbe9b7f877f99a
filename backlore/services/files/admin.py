"""What admins can do with users' files: list them by name, and restore them from the trash.

Law: an admin never reads a content. Each look and each act is told to notify, with the admin and the user.
"""

from backlore.core.notify import Notify
from backlore.services.files.files import Files
from backlore.services.files.folder import DeadFile, FilesAsked, page_of_files, page_of_trash, show
from backlore.web.reply import Reply, reply
from backlore.web.request import Request
from backlore.web.routes import Route
from backlore.web.stages import admin


class FileAdmins:
    """The routes."""

    def __init__(self, files: Files, notify: Notify):
        self._files = files
        self._notify = notify

    def routes(self, prefix: str) -> list[Route]:
        """The routes for admins."""
        return [
            admin.get(f"/admin{prefix}/{{user}}", self._list),
            admin.get(f"/admin{prefix}/{{user}}/trash", self._trash),
            admin.post(f"/admin{prefix}/{{user}}/undelete", self._undelete),
        ]

    async def _list(self, request: Request, user: str, query: FilesAsked) -> Reply:
        """The newest files of a user, none for an unknown user; `before` leads to the next page.

        200 {"files": [{name, id, type, size, hash, created, changed}], "before": int}.
        """
        self._notify("info", "admin.files", admin=request.user.id, user=user, origin=request.origin)
        return await page_of_files(self._files, user, query)

    async def _trash(self, request: Request, user: str, query: FilesAsked) -> Reply:
        """The files that a user deleted or overwrote last, and when.

        200 {"files": [{name, id, type, size, hash, created, changed, deleted}], "before": int}.
        """
        self._notify("info", "admin.trash", admin=request.user.id, user=user, origin=request.origin)
        return await page_of_trash(self._files, user, query)

    async def _undelete(self, request: Request, user: str, body: DeadFile) -> Reply:
        """Restore a file from a user's trash. 200 {name, id, type, size, hash, created, changed}; 400; 404 `file`;
        409 `exists`."""
        back = await self._files.undelete(user, body.id, body.name)
        told = {"admin": request.user.id, "user": user, "file": back.id, "origin": request.origin}
        self._notify("warning", "admin.undelete", **told)
        return reply(200, show(back))
