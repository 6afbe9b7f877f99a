"""The application as an ASGI callable, served by others than our door: beside it, on the same data."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import KEEPING, PASSWORD, Server, User, free_port, serving

ENTER = (
    "from backlore.core.config import Context, enter\nenter(Context(folder={folder!r}, flags={{'data': {data!r}}}))\n"
)
BY_UVICORN = "import server, uvicorn\nuvicorn.run(server.app, port={port}, log_level='info')"
BY_HTTPX = """
import asyncio, httpx, server
async def main():
    carrier = httpx.ASGITransport(server.app)
    async with httpx.AsyncClient(transport=carrier, base_url="http://x") as client:
        assert (await client.get("/nowhere")).json() == {{"error": "route"}}
        assert (await client.get("/files")).json() == {{"error": "nocookie"}}
        login = {{"email": "httpx@example.com", "password": {password!r}}}
        assert (await client.post("/auth/signup", json=login)).json() == {{}}
        given = await client.post("/auth/login", json=login)
        client.headers["x-csrf-token"] = given.json()["csrf"]
        made = await client.post("/files", files={{"file": ("f", b"x" * 1_000_000)}}, data={{"name": "a"}})
        assert made.status_code == 200, made.text
        assert (await client.get("/files/content/a")).content == b"x" * 1_000_000
        part = await client.get("/files/content/a", headers={{"range": "bytes=10-19"}})
        assert (part.status_code, part.content) == (206, b"x" * 10)
        known = await client.get("/files/content/a", headers={{"if-none-match": part.headers["etag"]}})
        assert (known.status_code, known.content) == (304, b"")
        assert (await client.head("/files/content/a")).headers["content-length"] == "1000000"
        assert (await client.post("/auth/logout")).json() == {{}}
        assert (await client.get("/files")).status_code == 403
asyncio.run(main())
"""


class Uvicorn(Server):
    """The same application and data as a server's, by uvicorn."""

    def __init__(self, beside: Server, folder: Path):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "uvicorn.log"
        self.words = [sys.executable, "-c", program(beside, BY_UVICORN, port=self.port)]


def program(server: Server, text: str, **words: object) -> str:
    return (ENTER + text).format(folder=str(server.folder), data=str(server.data), **words)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(KEEPING, tmp_path_factory.mktemp("asgi")) as made:
        yield made


def test_by_uvicorn(server: Server, tmp_path: Path) -> None:
    other = Uvicorn(server, tmp_path).start(wait=False)
    try:
        other.wait_said("Uvicorn running", 30)
        with User(other, "uvicorn@example.com") as user, User(server, user.email) as ours:
            user.sign_up()
            content = b"0123456789" * 200_000
            assert user.post("/files", files={"file": ("f", content)}, data={"name": "a"}).status_code == 200
            assert user.get("/files/content/a").content == content
            part = user.get("/files/content/a", headers={"range": "bytes=1000005-"})
            assert (part.status_code, part.content) == (206, content[1_000_005:])
            assert user.post("/files", json={}, headers={"x-csrf-token": "no"}).json() == {"error": "csrf"}
            large = b'{"email":"' + b"a" * 100_000
            got = user.post("/auth/login", content=large, headers={"content-type": "application/json"})
            assert (got.status_code, got.json()) == (413, {"error": "size"})
            # whoever ends a session by one of the two is out at once at the other
            ours.log_in()
            for one, two in ((user, ours), (ours, user)):
                for each in (one, two):
                    each.headers["x-csrf-token"] = each.log_in().csrf
                    assert each.get("/files").status_code == 200
                assert one.post("/auth/sessions/end", json={"others": True}).json() == {}
                assert two.get("/files").json() == {"error": "session"}
    finally:
        other.process.terminate()
        assert other.process.wait(20) in (0, -15), other.said()


def test_by_the_transport_of_httpx(server: Server) -> None:
    words = [sys.executable, "-c", program(server, BY_HTTPX, password=PASSWORD)]
    got = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert got.returncode == 0, got.stderr
