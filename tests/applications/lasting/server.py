"""An application of requests that last."""

import asyncio

from config import CONFIG

from backlore import Backend, admin, private

app = Backend(CONFIG)


async def drip(scope, receive, send):
    """A mounted application that answers for ever."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    while True:
        await send({"type": "http.response.body", "body": b".", "more_body": True})
        await asyncio.sleep(0.1)


app.routes(*app.file_routes(), private.mount("/drip", drip), admin.mount("/admin/drip", drip))
