"""The same constant by our own door: `python door.py PORT`."""

import asyncio
import socket
import sys

import uvloop
from server import app

from backlore.web.door.door import Bounds, Door


async def serve(port: int) -> None:
    door = Door(app, Bounds(), lambda address: True, lambda status, word, address: None)
    await door.open(socket.create_server(("127.0.0.1", port)))
    await asyncio.Event().wait()


uvloop.run(serve(int(sys.argv[1])))
