"""No request outlives its session: not one whose body is held back, none that lasts."""

import contextlib
import re
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from backlore.core.keys import key
from tests.conftest import ROOT, Server, User, engine_cli, mail_to, serving, token_in
from tests.kit.raw import connect, form, head, put, upload

JSON = b'{"text": "a"}'
FORM = b'--b\r\ncontent-disposition: form-data; name="title"\r\n\r\nt\r\n--b--\r\n'
BODIES = {
    # path, content-type, body, what is answered while the session holds
    "json": ("/echo/private", "application/json", JSON, '"text":"a"'),
    "token in it": ("/echo/private", "application/json", b'{"csrf": "CSRF", "text": "a"}', '"text":"a"'),
    "urlencoded": ("/echo/private", "application/x-www-form-urlencoded", b"text=a", '"text":"a"'),
    "form": ("/form/private", "multipart/form-data; boundary=b", FORM, '"title":"t"'),
    "stream": ("/measure/private", "text/plain", b"abc", '"size":3'),
    "mounted": ("/closed/read", "text/plain", b"abc", "/closed"),
    "next": ("/twice/private", "application/json", b'{"text": "long"}', '"text":"long"'),
    "none": ("/auth/logout", "application/json", b"{}", "{}"),
}


def looks(server: Server) -> int:
    """How often sessions were looked at."""
    said = subprocess.run([*engine_cli(server), "info", "commandstats"], capture_output=True, text=True, check=True)
    return int(re.search(r"cmdstat_evalsha:calls=(\d+)", said.stdout)[1])  # type: ignore[index]


def counted(server: Server) -> int:
    said = subprocess.run([*engine_cli(server), "get", key("count", "abc")], capture_output=True, text=True, check=True)
    return int(said.stdout.strip() or 0)


def hold_back(server: Server, user: User, request: bytes) -> socket.socket:
    """Send all but the last byte; the gates have let it pass."""
    before = looks(server)
    connection = connect(server)
    connection.sendall(request[:-1])
    until = time.monotonic() + 10
    while looks(server) == before:
        assert time.monotonic() < until
    return connection


def answer(connection: socket.socket, rest: bytes = b"") -> tuple[int, str]:
    """To a request whose rest is sent now. Status and body."""
    with connection:
        connection.sendall(rest)
        got = b""
        while piece := connection.recv(1 << 16):
            got += piece
    lines, _, body = got.partition(b"\r\n\r\n")
    return int(lines[9:12]), body.decode()


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_body_held_back_over_the_end_of_its_session(kinds: Server, kind: str, chunked: bool) -> None:
    path, media, body, answered = BODIES[kind]
    user = User(kinds, f"{kind.replace(' ', '')}{chunked}@example.com").sign_up()

    def request(user: User) -> bytes:
        sent = body.replace(b"CSRF", user.csrf.encode())
        how = {"transfer_encoding": "chunked"} if chunked else {"content_length": len(sent)}
        first = head(user, f"POST {path}", content_type=media, connection="close", **how)
        if b"CSRF" in body:
            first = re.sub(rb"x-csrf-token: \w+\r\n", b"", first)
        return first + (b"%x\r\n%s\r\n0\r\n\r\n" % (len(sent), sent) if chunked else sent)

    before = counted(kinds)
    held = hold_back(kinds, user, request(user))
    with User(kinds, user.email) as elsewhere:
        mine = elsewhere.log_in().get("/auth/sessions").json()["sessions"]
        assert len(mine) == 2
        assert elsewhere.post("/auth/sessions/end", json={"others": True}).json() == {}
    assert answer(held, request(user)[-1:]) == (403, '{"error":"session"}')
    assert counted(kinds) == before
    user.log_in()
    status, said = answer(hold_back(kinds, user, request(user)), request(user)[-1:])
    assert status == 200 and answered in said


def test_an_act_held_back_over_a_demotion(kinds: Server) -> None:
    boss = User(kinds, "admin@example.com").sign_up()
    deputy, victim = (User(kinds, f"{name}@example.com").sign_up() for name in ("deputy", "victim"))
    ids = {each["email"]: each["id"] for each in boss.get("/admin/users", params={"limit": 100}).json()["users"]}
    for flag, status, said in ((True, 200, "{}"), (False, 403, '{"error":"admin"}')):
        flags = f"/admin/users/{ids[deputy.email]}/admin"
        assert boss.post(flags, json={"admin": True}).json() == {}
        line = f"POST /admin/users/{ids[victim.email]}/endSessions"
        act = head(deputy, line, content_type="application/json", content_length=2, connection="close") + b"{}"
        held = hold_back(kinds, deputy, act)
        assert boss.post(flags, json={"admin": flag}).json() == {}
        assert answer(held, act[-1:]) == (status, said)
        assert victim.get("/auth/csrf").status_code == (403 if flag else 200)
        victim.log_in()


def test_a_body_that_came_with_its_head_costs_one_look(kinds: Server) -> None:
    user = User(kinds, "quick@example.com").sign_up()
    request = head(user, "POST /echo/private", content_type="application/json", content_length=len(JSON)) + JSON
    with connect(kinds) as connection:
        before = looks(kinds)
        for _ in range(100):
            connection.sendall(request)
            assert b" 200 " in connection.recv(1 << 16)
    assert looks(kinds) - before <= 100


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(ROOT / "tests" / "applications" / "lasting", tmp_path_factory.mktemp("lasting"), workers=1) as server:
        with User(server, "boss@example.com") as boss:
            boss.sign_up()
        yield server


SIZE = 30_000_000  # bytes: more than lies between a server and a client who reads nothing


def log_out(server: Server, user: User) -> None:
    user.post("/auth/logout")


def reset(server: Server, user: User) -> None:
    user.post("/auth/recover", json={"email": user.email})
    token = token_in(mail_to(server, user.email), "reset")
    user.post("/auth/reset", json={"token": token, "password": "another long password"})


def disable(server: Server, user: User) -> None:
    User(server, "boss@example.com").log_in().post(f"/admin/users/{id_of(user)}/disable")


def id_of(user: User) -> str:
    return str(user.get("/auth/csrf").json()["user"]["id"])


def begin(server: Server, request: bytes) -> socket.socket:
    """A client who reads nothing yet."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 50_000)
    connection.settimeout(20)
    connection.connect(("127.0.0.1", server.port))
    connection.sendall(request)
    return connection


def read_all(connection: socket.socket) -> bytes:
    got = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(1 << 16):
            got += piece
    return bytes(got)


def refused_late(connection: socket.socket) -> bytes:
    """The answer to a body that goes on and on, a byte at a time."""
    until = time.monotonic() + 20
    with contextlib.suppress(ConnectionError):
        while not select.select([connection], [], [], 0.2)[0]:
            assert time.monotonic() < until, "it is still taken"
            connection.sendall(b"x")
    return read_all(connection)


@pytest.mark.parametrize("end", [log_out, reset, disable], ids=lambda end: end.__name__)
def test_what_lasts_ends_with_its_session(lasting: Server, end: Callable[[Server, User], None]) -> None:
    user = User(lasting, f"{end.__name__.replace('_', '')}@example.com").sign_up()
    assert put(user, "lines", (b"a" * 999 + b"\n") * (SIZE // 1000)) == 200
    tus = {"tus_resumable": "1.0.0", "content_length": 1000, "content_type": "application/offset+octet-stream"}
    made = user.post(
        "/files/tus",
        headers={"upload-metadata": "filename bGF0ZQ==", "tus-resumable": "1.0.0", "upload-length": "1000"},
    )
    body = form(b"late", b"x" * 1000)
    replies = {
        "zip": begin(lasting, head(user, "POST /files/zip", content_type="application/json", content_length=2) + b"{}"),
        "ndjson": begin(lasting, head(user, "GET /files/filter/lines?limit=10000", accept="application/x-ndjson")),
        "content": begin(lasting, head(user, "GET /files/content/lines")),
        "mounted": begin(lasting, head(user, "GET /drip/x")),
        "follow": begin(lasting, head(user, "GET /files/follow/lines?lines=1", connection="close")),
    }
    bodies = {
        "tus": begin(lasting, head(user, f"PATCH {made.headers['location']}", upload_offset=0, **tus) + b"x"),
        "form": begin(lasting, upload(user, body)[:-500]),
    }
    got = {"follow": b""}
    while b"data: " not in got["follow"]:
        got["follow"] += replies["follow"].recv(1 << 16)
    user_id = id_of(user)
    end(lasting, user)
    got |= {"mounted": read_all(replies["mounted"]), "follow": got["follow"] + read_all(replies["follow"])}
    until = time.monotonic() + 20
    while len(re.findall(f"reply.refused.*{user_id}", lasting.said())) < 4:
        assert time.monotonic() < until, lasting.said()
        time.sleep(0.05)
    got |= {name: read_all(replies[name]) for name in ("zip", "ndjson", "content")}
    for name, connection in bodies.items():
        assert refused_late(connection).endswith(b'{"error":"session"}'), name
    assert all(b"HTTP/1.1 200" in each for each in got.values())
    assert {name for name, each in got.items() if each.endswith(b"\r\n0\r\n\r\n")} == {"follow"}
    assert max(map(len, got.values())) < SIZE


def test_a_download_by_a_link_ends_with_the_link(lasting: Server) -> None:
    user = User(lasting, "linked@example.com").sign_up()
    assert put(user, "lines", (b"a" * 999 + b"\n") * (SIZE // 1000)) == 200
    url = user.post("/files/link", json={"name": "lines"}).json()["url"]
    refused = lasting.said().count("reply.refused")
    with begin(lasting, f"GET {url} HTTP/1.1\r\nhost: x\r\n\r\n".encode()) as connection:
        got = connection.recv(1000)
        assert user.post("/files/link/revoke").json() == {}
        until = time.monotonic() + 30
        while lasting.said().count("reply.refused") == refused:
            assert time.monotonic() < until, lasting.said()
            time.sleep(0.05)
        assert got.startswith(b"HTTP/1.1 200") and len(got + read_all(connection)) < SIZE


def test_what_lasts_for_an_admin_ends_with_the_flag(lasting: Server) -> None:
    boss, user = User(lasting, "boss@example.com").log_in(), User(lasting, "deputy@example.com").sign_up()
    flags = f"/admin/users/{id_of(user)}/admin"
    assert boss.post(flags, json={"admin": True}).json() == {}
    own, admins = (begin(lasting, head(user, f"GET {path}/x")) for path in ("/drip", "/admin/drip"))
    assert boss.post(flags, json={"admin": False}).json() == {}
    assert b"\r\n." in read_all(admins)
    assert own.recv(1 << 16) and user.get("/auth/csrf").status_code == 200


def test_what_lasts_outlives_an_engine_that_hangs(lasting: Server) -> None:
    """Nobody can be logged out meanwhile."""
    user = User(lasting, "patient@example.com").sign_up()
    with begin(lasting, head(user, "GET /drip/x")) as connection:
        connection.recv(1 << 16)
        lasting.engine().suspend()
        try:
            dots = 0
            while dots < 70:  # ten a second: one look at least has failed
                piece = connection.recv(1 << 16)
                assert piece, lasting.said()
                dots += piece.count(b".")
        finally:
            lasting.engine().resume()
        assert user.get("/auth/csrf").status_code in (200, 503)
        assert connection.recv(1 << 16)
