"""How much of a body is taken, and how long it may take."""

import contextlib
import select
import time
from collections.abc import Iterable
from itertools import repeat

import pytest

from backlore.core.temporary import FOLDER
from tests.conftest import Server, User
from tests.kit.raw import connect

FIELD = b'--b\r\ncontent-disposition: form-data; name="%s"\r\n\r\n'
FORM = b"multipart/form-data; boundary=b"


def drip(
    server: Server, path: str, media: bytes, pieces: Iterable[bytes], pause: float, declared: int = -1
) -> tuple[int, bytes]:
    """Send a body in pieces with pauses between them, until it is answered. Status and body of the answer."""
    how = b"transfer-encoding: chunked" if declared < 0 else b"content-length: %d" % declared
    with connect(server) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(b"POST %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\n" % path.encode())
        connection.sendall(b"content-type: %s\r\n%s\r\n\r\n" % (media, how))
        for piece in pieces:
            connection.sendall(piece if declared >= 0 else b"%x\r\n%s\r\n" % (len(piece), piece))
            if select.select([connection], [], [], pause)[0]:
                break
        else:
            connection.sendall(b"" if declared >= 0 else b"0\r\n\r\n")
        answer = b""
        while piece := connection.recv(1 << 16):
            answer += piece
    return int(answer[9:12]), answer.partition(b"\r\n\r\n")[2]


def test_a_form_ends_where_its_parts_end(kinds: Server) -> None:
    """However it is cut into pieces: the line break behind the last boundary may come alone."""
    body = FIELD % b"title" + b"t\r\n--b--\r\n"
    for pieces in (
        [body[:-2], body[-2:]],
        [body[:-1], body[-1:]],
        [body[:50], body[50:]],
        [body, b"more", b"and more"],
    ):
        assert drip(kinds, "/form", FORM, pieces, 0.1)[0] == 200
    for pieces in ((b"x" * 50, body), (body[:-4], b"  ", b"\r\n")):
        assert drip(kinds, "/form", FORM, pieces, 0.1)[0] == 400


def test_no_body_is_told_at_once(kinds: Server) -> None:
    """Whatever says that there is none: one that is waited for would be 408."""
    for framing in (b"", b"content-length: 0\r\n", b"transfer-encoding: chunked\r\n"):
        with connect(kinds) as connection:
            connection.sendall(
                b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n" + framing + b"\r\n"
            )
            connection.sendall(b"0\r\n\r\n" if framing.startswith(b"transfer") else b"")
            assert connection.recv(1000).startswith(b"HTTP/1.1 400 "), framing


@pytest.mark.parametrize("path", ["/auth/login", "/echo", "/count", "/form"])
def test_no_file_where_none_belongs(kinds: Server, path: str) -> None:
    """It is refused at its head, before anything is written."""
    folder = kinds.data / FOLDER
    folder.mkdir(exist_ok=True)
    before = folder.stat().st_mtime_ns
    first = b'--b\r\ncontent-disposition: form-data; name="title"; filename="a"\r\n\r\nx'
    pieces = (first, *repeat(b"x" * 1000, 100))
    status, said = drip(kinds, path, FORM, pieces, 0.2, 15_000)
    assert (status, said) == (400, b'{"error":"payload","where":"title","why":"Takes no file."}')
    assert folder.stat().st_mtime_ns == before


LARGE = [
    # path, content-type, declared length; nothing of it is sent
    ("/auth/login", b"application/json", 20_001),
    ("/auth/login", FORM, 20_001),
    ("/echo", b"application/x-www-form-urlencoded", 20_001),
    ("/echo", FORM, 20_001),
    ("/echo", b"application/json", 10**18),
    ("/form", FORM, 1_000_001),
    ("/form", b"application/json", 20_001),
    ("/measure", b"text/plain", 1_000_001),
    ("/open/read", b"text/plain", 1_000_001),
]


@pytest.mark.parametrize(("path", "media", "length"), LARGE)
def test_a_declared_length_over_the_limit(kinds: Server, path: str, media: bytes, length: int) -> None:
    assert drip(kinds, path, media, repeat(b"", 50), 0.2, length) == (413, b'{"error":"size"}')


def test_little_is_taken_of_who_may_be_anybody(keeping: Server) -> None:
    with User(keeping, "little@example.com") as user:
        user.sign_up()
        for path in (
            "/auth/login",
            "/auth/signup",
            "/auth/changePassword",
            "/auth/passkeys/add",
            "/admin/users/x/admin",
        ):
            got = user.post(path, content=b" " * 65_537, headers={"content-type": "application/json"})
            assert (got.status_code, got.json()["error"]) in ((413, "size"), (403, "admin")), path
            got = user.post(path, content=b" " * 65_536, headers={"content-type": "application/json"})
            assert got.json()["error"] in ("json", "admin"), path


SLOW = [
    # path, content-type, first piece, and what comes again and again
    ("/echo", b"application/json", b'{"text": "', b"x"),
    ("/echo", b"application/x-www-form-urlencoded", b"text=", b"x" * 500),
    ("/echo", FORM, FIELD % b"text", b"x"),
    ("/form", FORM, FIELD % b"title", b"x"),
    ("/measure", b"text/plain", b"x", b"x" * 100),
    ("/open/read", b"text/plain", b"x", b"x" * 100),
]


@pytest.mark.parametrize("declared", [-1, 15_000], ids=["chunked", "length"])
@pytest.mark.parametrize(("path", "media", "first", "then"), SLOW)
def test_a_body_comes_in_time(kinds: Server, path: str, media: bytes, first: bytes, then: bytes, declared: int) -> None:
    """Not one piece comes late, and yet it is too slow."""
    assert drip(kinds, path, media, (first, *repeat(then, 60)), 0.25, declared) == (408, b'{"error":"timeout"}')


def test_an_upload_may_last_but_not_for_ever(kinds: Server) -> None:
    began = time.monotonic()
    assert drip(kinds, "/measure", b"text/plain", repeat(b"x" * 1000, 16), 0.25)[0] == 200
    assert time.monotonic() - began > 3  # longer than body_timeout
    assert drip(kinds, "/measure", b"text/plain", repeat(b"x" * 1000, 100), 0.25) == (408, b'{"error":"timeout"}')
