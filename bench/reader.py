"""A client that costs next to nothing: it sends one GET again and again, and the kernel throws the bodies away.

`python reader.py URL CONNECTIONS SECONDS [HEADER …]` prints replies and bytes a second, and the seconds, as JSON.

Laws: a reply is counted when the last byte of its announced length has come. If one reply is not 200, or one connection
breaks, there is no figure. Bytes are thrown away by recv(MSG_TRUNC), on Linux: otherwise a client that copies them (wrk
copies 8 KiB at a time) would be measured instead of the server.
"""

import json
import selectors
import socket
import sys
import time
from urllib.parse import urlsplit

AT_ONCE = bytearray(4 << 20)  # bytes thrown away in one call


class Reader:
    """One connection. `_left`: bytes of the body that have not come; None until the headers have."""

    def __init__(self, address: tuple[str, int], request: bytes):
        self.socket = socket.create_connection(address)
        self.socket.setblocking(False)
        self._request = request
        self._left: int | None = None
        self.bytes = self.replies = 0
        self.socket.send(request)

    def read(self) -> None:
        """Read what has come. Raises OSError, ValueError."""
        if self._left is None:
            self._left = self._head()
        if self._left:
            self._skip(self._left)
        if self._left == 0:
            self.replies += 1
            self._left = None
            self.socket.send(self._request)

    def _head(self) -> int | None:
        seen = self.socket.recv(8192, socket.MSG_PEEK)
        if not seen.startswith(b"HTTP/1.1 200 ") and len(seen) > 12:
            raise ValueError(seen[:200])
        end = seen.find(b"\r\n\r\n") + 4
        if end < 4:
            return None
        self.socket.recv(end)
        _, _, length = seen[:end].lower().partition(b"\r\ncontent-length:")
        return int(length.partition(b"\r\n")[0])

    def _skip(self, left: int) -> None:
        try:
            count = self.socket.recv_into(AT_ONCE, min(left, len(AT_ONCE)), socket.MSG_TRUNC)
        except BlockingIOError:
            return
        if not count:
            raise OSError(f"the connection broke {left} bytes before the end")
        self.bytes += count
        self._left = left - count


def main() -> None:
    url, connections, seconds, *headers = sys.argv[1:]
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    asked = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [f"GET {asked} HTTP/1.1", f"host: {parts.netloc}", *headers, "", ""]
    request = "\r\n".join(lines).encode()
    readers = [Reader((parts.hostname, parts.port), request) for _ in range(int(connections))]
    poll = selectors.DefaultSelector()
    for reader in readers:
        poll.register(reader.socket, selectors.EVENT_READ, reader)
    began = time.perf_counter()
    until = began + float(seconds)
    while time.perf_counter() < until:
        for key, _ in poll.select(1):
            key.data.read()
    took = time.perf_counter() - began
    replies, received = (sum(getattr(each, name) for each in readers) for name in ("replies", "bytes"))
    print(json.dumps({"replies": replies / took, "bytes": received / took, "seconds": took}))


if __name__ == "__main__":
    main()
