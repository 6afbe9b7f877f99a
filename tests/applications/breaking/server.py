"""An application with users' files, one of whose processes is killed at a step that a test names."""

import os

from config import CONFIG

from backlore import Backend, Payload, public, reply
from tests.kit.points import POINTS, install


class Kill(Payload):
    """At the point of this number, from now on, kill a process; 0: this one."""

    at: int
    victim: int = 0


async def arm(request, body: Kill):
    """Set the point. 200 {"passed": int}, those since the last time."""
    return reply(200, {"passed": POINTS.arm(body.at, body.victim or os.getpid())})


install()
app = Backend(CONFIG)
app.routes(public.post("/arm", arm), *app.file_routes())
