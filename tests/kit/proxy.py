"""A proxy in front of a real S3 server. It does to requests and replies what a bad network or a sick server does."""

import http.client
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

PIECE = 16 << 10  # bytes
OWN = ("connection", "transfer-encoding", "content-length")  # headers that belong to one connection


class Proxy:
    """Set `mode` at any time; `met` counts how often each mode was applied.

    A mode is a word and a method: "500 PUT", "503 *", "cut GET", "flip PUT", "slow GET", "hang *"; "" does nothing.
    """

    def __init__(self, endpoint: str):
        self.mode = ""
        self.met: Counter[str] = Counter()
        self.released = threading.Event()  # a request that hangs does so until this is set
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler(self, urlsplit(endpoint).netloc))
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> "Proxy":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def fault(self, method: str) -> str:
        """What is done to this request; "" for nothing."""
        word, _, whom = self.mode.partition(" ")
        if not word or whom not in (method, "*"):
            return ""
        self.met[self.mode] += 1
        return word


def harmed(body: bytes, fault: str) -> Iterator[bytes]:
    """A body, in pieces, as the fault lets it through."""
    if fault == "flip" and body:
        middle = len(body) // 2
        body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
    if fault == "cut":
        body = body[: len(body) // 2]
    for at in range(0, len(body), PIECE):
        if fault == "slow":
            time.sleep(0.012)
        yield body[at : at + PIECE]


def handler(proxy: Proxy, behind: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            fault = proxy.fault(self.command)
            if fault == "hang":
                proxy.released.wait(60)
                self.close_connection = True
                return
            if fault.isdigit():
                self.send_response(int(fault))
                self.send_header("content-length", "0")
                self.end_headers()
                return
            self.answer(body, fault)

        def answer(self, body: bytes, fault: str) -> None:
            upstream = http.client.HTTPConnection(behind, timeout=30)
            try:
                upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():  # with the host that was signed
                    upstream.putheader(name, value)
                upstream.endheaders()
                is_upload = self.command in ("PUT", "POST")
                for piece in harmed(body, fault if is_upload else ""):
                    upstream.send(piece)
                if fault == "cut" and is_upload:
                    self.close_connection = True
                    return
                got = upstream.getresponse()
                self.relay(got, got.read(), "" if is_upload else fault)
            except OSError:  # the server is away: our client's connection ends as well
                self.close_connection = True
            finally:
                upstream.close()

        def relay(self, got: http.client.HTTPResponse, body: bytes, fault: str) -> None:
            self.send_response(got.status)
            length = got.getheader("content-length") if self.command == "HEAD" else str(len(body))
            for name, value in got.getheaders():
                if name.lower() not in OWN:
                    self.send_header(name, value)
            self.send_header("content-length", length or "0")
            self.end_headers()
            for piece in harmed(body, fault):
                self.wfile.write(piece)
            if fault == "cut":
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on

        def log_message(self, format: str, *_: object) -> None:
            """Nothing."""

    return Handler
