"""Backend: the one place that wires the rooms together."""

import asyncio
import sys
from typing import Any

from backlore import __version__
from backlore.clients.disk import Disk
from backlore.clients.redis.errors import NOT_NOW
from backlore.clients.redis.lease import LeaseLost
from backlore.clients.s3 import S3Unreachable
from backlore.connections import bucket, connect, file_servers, limits, postman, providers
from backlore.core.config import ConfigError, Settings, import_own, load, settle
from backlore.core.notify import Notify, console
from backlore.core.temporary import sweep
from backlore.core.turns import Busy
from backlore.services.developer import Developer
from backlore.services.docs.docs import DocsPage
from backlore.services.files import routes as file_routes
from backlore.services.files.catalog import File
from backlore.services.files.files import Files
from backlore.services.files.routes import FileRoutes
from backlore.services.health import Health
from backlore.services.identity.identity import Identity
from backlore.services.identity.openid import BACK
from backlore.services.lines.lines import Lines
from backlore.services.lines.routes import LineRoutes
from backlore.services.mail.mail import Mail
from backlore.services.mail.outbox import OutboxPage
from backlore.services.rates import Rates
from backlore.services.storage.store import Away
from backlore.services.tasks import Function, Tasks
from backlore.services.uploads import tus
from backlore.services.uploads.tus import Tus
from backlore.services.uploads.uploads import Uploads
from backlore.web import static
from backlore.web.application import Application
from backlore.web.cookie import SignedCookie
from backlore.web.openapi import describe
from backlore.web.reply import Reply, Send, reply
from backlore.web.request import Receive, Request, Scope
from backlore.web.routes import Route, RouteError
from backlore.web.stages import Keeper, public

# What our clients raise when the server behind them can't be reached: 503.
UNAVAILABLE = (*NOT_NOW, Busy, S3Unreachable, Away, LeaseLost)


REFUSALS = file_routes.REFUSALS | tus.REFUSALS


class Backend:
    """An application: `app = Backend(CONFIG)`, then `app.routes(…)`. It is an ASGI application too.

    Handlers may use its `redis` (redis-py's asyncio API), `notify`, `identity`, `files`, `lines`, `mail`, `rates` and
    `settings`.
    """

    def __init__(self, config: dict[str, Any]):
        self.settings: Settings = settle(config)
        self.notify = Notify(console)
        self.redis = connect(self.settings, self.notify)
        self.tasks = Tasks(self.redis, self.notify, self.settings.data)
        known = self.settings.config
        secret = self.settings.secret.cookie
        cookie = SignedCookie(self.settings.cookie, secret, known.secure)
        self.rates = Rates(self.redis, known.rates)
        self.mail = Mail(
            self.redis,
            self.notify,
            postman(self.settings),
            application=known.name.capitalize(),
            address=self.settings.address,
            sender=known.mail.sender if known.mail else f"{known.name}@localhost",
            templates=self.settings.folder / "mail",
        )
        self.identity = Identity(
            self.redis, self.notify, self.mail, self.rates, self.settings, providers(self.settings, BACK)
        )
        self.bucket = bucket(self.settings)
        store = file_servers(self.settings, self.bucket, self.notify)
        self.files = Files(
            self.redis,
            self.notify,
            Disk(self.settings.data / "files", known.files.free),
            self.bucket,
            known.files,
            store,
            self.identity.users,
        )
        self.uploads = Uploads(self.redis, self.notify, self.files, known.files.unfinished)
        self.lines = Lines(self.files.find, self.files.spans)
        self.identity.on_destroy += [self.uploads.wipe, self.files.wipe]
        keeper = Keeper(cookie, secret, self.identity.sessions.load, self.notify, self.identity.sessions.remembered)
        self.identity.keep(keeper)
        self.web = Application(
            keeper, self.notify, limits(self.settings), UNAVAILABLE, REFUSALS, known.proxies, known.secure
        )
        self._whole_files = FileRoutes(self.files, self.notify, secret, known.files.accel)
        self.web.on_start.append(self.files.start)
        self.web.on_stop.append(self.redis.aclose)
        if store:
            self.web.on_stop.append(store.close)
        # a convenience for a developer at a terminal; output to files and pipes is a log and skips successful requests
        self.web.tells_all = self.settings.env == "dev" and sys.stderr.isatty()
        self._cookie_name = cookie.name
        self._described: Reply | None = None
        services = (Health(self.redis), self.identity)
        self.routes(
            public.get("/openapi.json", self._openapi), *(route for service in services for route in service.routes())
        )
        developer = Developer(self.settings.cookie, self.settings.key)
        if "docs" in self.settings.pages:
            self.routes(*DocsPage(developer.refuse).routes())
        if "outbox" in self.settings.pages:
            self.routes(*OutboxPage(self.settings.outbox, developer.refuse).routes())
        self.every(3600, self.identity.users.mend)
        self.every(20, self.identity.erasure.resume)
        self.every(3600, self.files.sweep, each=True)
        self.every(3600, self.uploads.sweep, each=True)
        self.every(3600, self._sweep_uploads, each=True)
        self.every(3600, self._recount_files)
        self.every(86400, self._check_files)

    def routes(self, *routes: Route) -> None:
        """Add routes; within a stage they keep the order in which they were added.

        Raises RouteError for a route that can't work or is never reached.
        """
        for route in routes:
            if isinstance(route.handler, static.StaticFiles):
                route.handler.settle(self.settings.folder)
                if not route.handler.is_there():
                    raise RouteError(f"{route}: there is no {route.handler}")
        self.web.add(*routes)
        self._described = None

    def file_routes(self, prefix: str = "/files") -> list[Route]:
        """The routes through which users manage their files below `prefix`; pass them to `routes`."""
        lines = LineRoutes(self.lines, lambda: self.web.draining)
        uploads = Tus(self.uploads, self.settings.config.upload_limit)
        return [route for part in (self._whole_files, lines, uploads) for route in part.routes(prefix)]

    async def send_file(self, request: Request, file: File, download: bool = False) -> Reply:
        """The reply to a GET of one of the user's files, with ranges and conditional requests.

        A browser runs no script in it. Raises Lost, S3Error.
        """
        return await self._whole_files.content.send(request, request.user.id, file, download)

    def every(self, seconds: float, function: Function, each: bool = False, name: str = "") -> None:
        """Run a function every `seconds`, outside the workers: on one node at a time, or with `each` on every node.

        A task that has never run starts at once. `name` is the task's unique name, by default the names of the
        function's module and the function. Raises ValueError when the name is taken, the function has no name, or the
        period is invalid.
        """
        self.tasks.add(seconds, function, each, name)

    async def run_tasks(self) -> None:
        """Run the periodic tasks, send mails and move files until cancelled. If one of them fails, the others go on."""
        await self.tasks.run(mail=self.mail.run, files=self.files.run)

    async def _recount_files(self) -> None:
        # imported here: a worker that serves requests needs neither this module nor its database
        from backlore.services.check.books import recount_all

        await recount_all(self.redis)

    async def _check_files(self) -> None:
        """Report what `backlore check` would find; only that command repairs anything."""
        from backlore.services.check.check import Check

        found = await Check(self.redis, self.files, self.uploads, self.bucket, self.identity.users.is_gone).run()
        self.notify("error" if found.left else "info", "files.check", busy=found.busy, **found.found)

    async def _sweep_uploads(self) -> None:
        """Delete the files that requests of killed workers have left."""
        await asyncio.to_thread(sweep, self.settings.temporary)

    async def _openapi(self, request: Request) -> Reply:
        """All routes in OpenAPI 3.1, from the table and the types. 200 {"openapi": str, "paths": dict}."""
        if self._described is None:  # building it takes long, and anybody may ask for it
            self._described = await asyncio.to_thread(self._describe)
        return self._described

    def _describe(self) -> Reply:
        routes = self.web.table.routes
        return reply(200, describe(self.settings.config.name, __version__, routes, self._cookie_name))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.web(scope, receive, send)


def application() -> Backend:
    """The `app` in the server.py of the application that this process has entered. Raises ConfigError."""
    load()  # first, so that an error in config.py is reported as such, and not as one that follows from it
    app = getattr(import_own("server"), "app", None)
    if not isinstance(app, Backend):
        raise ConfigError("server.py has no app: `app = Backend(CONFIG)`.")
    return app
