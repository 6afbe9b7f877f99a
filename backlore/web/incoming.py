"""The bytes of a body as they arrive: within their limits, and for as long as the session holds."""

import asyncio

from backlore.web.limits import Limits, TooLarge, TooSlow
from backlore.web.request import AGAIN, Request


class Incoming:
    """A body of at most `most` bytes. Raises TooLarge at once if the declared length is more."""

    __slots__ = (
        "_began", "_counted", "_declared", "_limits", "_looked", "_more", "_most", "_received", "_request", "_time",
        "_waited",
    )  # fmt: skip

    def __init__(self, request: Request, limits: Limits, most: int):
        self._declared = request.declared
        if self._declared > most:
            raise TooLarge
        self._request = request
        self._limits = limits
        self._most = most
        self._time = asyncio.get_running_loop().time
        self._began = self._looked = self._time()
        self._waited = 0.0  # seconds spent waiting for the client, not for our disk, since `_counted` bytes had come
        self._received = self._counted = 0
        self._more = self._declared != 0

    async def chunk(self) -> bytes:
        """The next bytes; empty when all have come. The last ones are returned only after the session was checked.

        Raises TooLarge, TooSlow, Disconnected, and Refused when the session has ended meanwhile.
        """
        chunk, request, limits = b"", self._request, self._limits
        while self._more and not chunk:
            since = self._time()
            chunk, self._more = await limits.patience.wait(request.chunk(), since - self._waited)
            now = self._time()
            self._waited += now - since
            self._received += len(chunk)
            if self._received > self._most:
                raise TooLarge
            if self._received == self._declared:  # don't wait for the message that says "no more"
                self._more = False
            elif now - self._began > limits.longest:
                raise TooSlow
            elif self._most > limits.body and self._received - self._counted >= limits.stretch:
                self._waited, self._counted = 0.0, self._received
            if request.is_late and not self._more:
                await request.look_again()
            elif request.is_late and now - self._looked > AGAIN:
                await request.glance()
                self._looked = now
        return chunk
