"""granian, told to serve on a socket of the master's."""

from typing import TYPE_CHECKING

from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

if TYPE_CHECKING:
    from backlore.alone import Alone
    from backlore.app import Backend

CONNECTIONS = 20_000  # open at once in a worker; slow ones cost little


class Listener(Server):
    """granian on a socket that the master listens on: what waits in its queue survives any worker."""

    def __init__(self, handle: int, app: "Backend | Alone"):
        milliseconds = int(app.settings.config.header_timeout * 1000)
        super().__init__(
            app,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            backpressure=CONNECTIONS,
            http1_settings=HTTP1Settings(header_read_timeout=milliseconds),
            log_enabled=False,
        )
        self._handle = handle

    def _init_shared_socket(self) -> None:
        self._ssp = None
        # the stub file of granian 2.8 lags behind its SocketHolder(handle, is_unix, backlog)
        self._shd = SocketHolder(self._handle, False, self.backlog)  # type: ignore[call-arg,assignment]
