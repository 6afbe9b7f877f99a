"""A file server over HTTP, and nodes above those that are locked, full, slow or broken off."""

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from backlore.clients import fileserver
from backlore.clients.fileserver import FileServerUnreachable
from backlore.core.crypto import random_text
from backlore.core.notify import Notify
from backlore.services.storage.remote import order
from backlore.services.storage.store import Away
from tests.kit.engines import Engine
from tests.kit.fileservers import TOKEN, FileServer, file_servers, node
from tests.kit.houses import ANN, living, read

LOCK = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileServer]:
    """A file server without S3."""
    with file_servers(tmp_path_factory.mktemp("alone"), 1) as (server,):
        yield server


def blobs(number: int) -> list[str]:
    return [random_text(128) for _ in range(number)]


def test_one_more_server_takes_its_share_and_nothing_else_moves() -> None:
    servers = [f"http://10.0.0.{number}:8001" for number in range(1, 10)]
    names = blobs(20_000)
    for count in (1, 2, 4, 8):
        before = [servers[order(servers[:count], name)[0]] for name in names]
        after = [servers[order(servers[: count + 1], name)[0]] for name in names]
        moved = [new for old, new in zip(before, after, strict=True) if old != new]
        assert set(moved) == {servers[count]}
        share = len(moved) / len(names)
        assert abs(share - 1 / (count + 1)) < 0.02, share
    # the order of the others stays too, wherever a server stands in the list
    for name in names[:100]:
        whole = [servers[place] for place in order(servers, name)]
        less = [each for each in servers if each != servers[4]]
        assert [less[place] for place in order(less, name)] == [each for each in whole if each != servers[4]]


def test_locked(alone: FileServer) -> None:
    """Without the token there is nothing to be had or learnt, by any route."""
    blob, wrong = "lockedcontent", "a wrong token that is as long as the"
    hash = hashlib.sha256(b"secret content").hexdigest()
    with httpx.Client(base_url=alone.url) as client:
        kept = client.put(
            f"/contents/{blob}", params={"size": 14, "hash": hash}, content=b"secret content", headers=LOCK
        )
        assert kept.json() == {}, kept.text
        routes = [
            ("GET", "/health"),
            ("GET", "/contents"),
            ("GET", f"/contents/{blob}"),
            ("HEAD", f"/contents/{blob}"),
            ("PUT", f"/contents/{blob}?size=1&hash="),
            ("POST", f"/contents/{blob}/append?at=0"),
            ("POST", f"/contents/{blob}/push"),
            ("DELETE", f"/contents/{blob}"),
            ("DELETE", "/contents/nosuchcontent"),
        ]
        keys: list[dict[str, str]] = [{}, {"authorization": f"Bearer {wrong}"}, {"authorization": "Bearer"}]
        keys += [{"authorization": f"Basic {TOKEN}"}, {"authorization": TOKEN}, {"cookie": f"token={TOKEN}"}]
        for method, path in routes:
            for key in keys:
                got = client.request(method, path, headers=key)
                assert got.status_code == 403
                assert method == "HEAD" or got.json() == {"error": "token"}
                assert "etag" not in got.headers
        assert client.get(f"/contents/{blob}", headers=LOCK).content == b"secret content"
    said = alone.wait_said("files.token")
    assert wrong not in said and TOKEN not in said and "secret content" not in said


def test_contents_over_http(alone: FileServer) -> None:
    with httpx.Client(base_url=alone.url, headers=LOCK) as client:

        def put(blob: str, content: bytes, **said: Any) -> httpx.Response:
            given = {"size": len(content), "hash": hashlib.sha256(content).hexdigest(), **said}
            return client.put(f"/contents/{blob}", params=given, content=content)

        def append(blob: str, at: int, data: bytes) -> httpx.Response:
            return client.post(f"/contents/{blob}/append", params={"at": at}, content=data)

        content = os.urandom(3 << 20)
        assert put("contentone", content).json() == {} == put("contentone", content).json()
        for wrong in ({"size": 5}, {"hash": "0" * 64}):
            assert put("contenttwo", content, **wrong).json() == {"error": "hash"}
        assert client.get("/contents/contenttwo").json() == {"error": "content"}
        assert client.get("/contents/contentone").content == content
        part = client.get("/contents/contentone", params={"size": 1000}, headers={"range": "bytes=990-2000"})
        assert (part.status_code, part.content) == (206, content[990:1000])
        assert client.get("/contents/contentone", params={"size": len(content) + 1}).status_code == 404
        assert append("contentone", len(content), b"more").json() == {"error": "misplaced"}  # it came whole
        assert append("growing0", 1, b"x").json() == {"error": "misplaced"}
        assert append("growing0", 0, b"one").json() == {}
        for at in (0, 2, 4):
            assert append("growing0", at, b"x").json() == {"error": "misplaced"}
        assert append("growing0", 3, b" two").json() == {}
        assert client.get("/contents/growing0").content == b"one two"
        assert append("growing1", 0, bytes((8 << 20) + 1)).json() == {"error": "size"}
        for length in (1000, 2000, 1500):  # of what is alike the longest stays
            assert put("contentfour", content[:length]).json() == {}
        assert client.get("/contents/contentfour").content == content[:2000]
        for name in ("../../../etc/passwd", "..%2f..%2flock", "Contentone", "short", "contentone%00", "x" * 65):
            assert client.get(f"/contents/{name}").status_code == 404
        assert client.delete("/contents/growing0").json() == {} == client.delete("/contents/growing0").json()
        assert client.get("/contents/growing0").status_code == 404
        assert client.post("/contents/contentone/push", params={}).status_code == 400
        assert not list((alone.data / "files" / "drafts").iterdir())


def test_all_names_page_by_page(engine: Engine, alone: FileServer, tmp_path: Path) -> None:
    made = set(blobs(2500))
    for name in made:
        alone.path(name).parent.mkdir(exist_ok=True)
        alone.path(name).write_bytes(b"12345")

    async def test() -> None:
        async with living(engine, tmp_path, None, [alone]) as house:
            found = [each async for each in house.store.servers[0].names()]
            assert [each.name for each in found] == sorted(alone.names())
            assert all(each.size == 5 and each.age < 3600 for each in found if each.name in made)

    asyncio.run(test())
    alone.wipe()


def test_a_reader_goes_on_where_a_server_broke_off(engine: Engine, tmp_path: Path) -> None:
    async def test(servers: list[FileServer]) -> None:
        async with living(engine, tmp_path, None, servers, quota=1 << 30) as house:
            content = os.urandom(64 << 20)
            file = await house.files.put(ANN, "big", content)
            first = order([each.url for each in servers], file.blobs[0][0])[0]
            got, pieces = bytearray(), house.files.read(ANN, file)
            async for piece in pieces:
                got += piece
                if len(got) > 1 << 20 and servers[first].process.poll() is None:
                    servers[first].kill()
            assert got == content

    with file_servers(tmp_path, 2) as servers:
        asyncio.run(test(servers))


def test_a_server_that_hangs(engine: Engine, tmp_path: Path) -> None:
    """It takes connections and answers nothing: found out once, then nobody waits for it."""

    async def test(servers: list[FileServer]) -> None:
        async with living(engine, tmp_path, None, servers) as house:
            await house.files.put(ANN, "before", b"before")
            log = await house.files.append(ANN, "log", b"1\n")
            hanging = servers[0].workers()[0]
            hanging.send_signal(signal.SIGSTOP)
            await house.files.put(ANN, "meanwhile", b"meanwhile")
            assert house.said.count("fileserver.away") == 1
            log = await house.files.append(ANN, "log", b"2\n")
            for number in range(20):
                await house.files.put(ANN, f"{number}", b"%d" % number)
                log = await house.files.append(ANN, "log", b"%d\n" % number)
            assert len(log.blobs) == 2  # one with two homes, one with the home that is left
            assert await read(house.files, ANN, await house.files.find(ANN, "before")) == b"before"
            hanging.send_signal(signal.SIGCONT)
            async with asyncio.timeout(30):
                while "fileserver.back" not in house.said:
                    await asyncio.sleep(0.05)
            log = await house.files.append(ANN, "log", b"3\n")
            lines = [b"1", b"2", *(b"%d" % number for number in range(20)), b"3"]
            assert (await read(house.files, ANN, log)).split() == lines
            assert len(house.paths(log.blobs[-1][0])) == 2 and house.said.count("fileserver.away") == 1

    with file_servers(tmp_path, 2) as servers:
        asyncio.run(test(servers))


def test_a_node_with_a_wrong_token(engine: Engine, tmp_path: Path, alone: FileServer) -> None:
    async def test() -> None:
        async with living(engine, tmp_path, None, [alone], token="not the one of the server") as house:
            with pytest.raises(Away) as refused:
                await house.files.put(ANN, "a", b"a")
            assert "token" not in str(refused.value)
            with pytest.raises(Away):
                await house.files.append(ANN, "b", b"b")
            assert not await house.files.list(ANN) and "fileserver.away" in house.said

    asyncio.run(test())


def test_full_disks(engine: Engine, tmp_path: Path) -> None:
    """A full server is passed over; when all are, it is as with a disk of one's own."""

    async def test(servers: list[FileServer]) -> None:
        async with living(engine, tmp_path, None, servers) as house:
            for number in range(20):
                await house.files.put(ANN, f"{number}", b"%d" % number)
                await house.files.append(ANN, "log", b"%d\n" % number)
            assert not servers[0].names()
            log = await house.files.find(ANN, "log")
            assert (await read(house.files, ANN, log)).split() == [b"%d" % number for number in range(20)]
            assert len(log.blobs) < 5
        async with living(engine, tmp_path, None, servers[:1]) as house:
            for refused in (house.files.put(ANN, "a", b"a"), house.files.append(ANN, "b", b"b")):
                with pytest.raises(OSError) as error:
                    await refused
                assert error.value.errno == 28
            assert not await house.files.list(ANN)

    with file_servers(tmp_path, 2) as servers:
        servers[0].stop()
        with (servers[0].folder / "config.py").open("a") as config:
            config.write('\nCONFIG["files"]["free"] = 1 << 40\n')
        servers[0].start()
        asyncio.run(test(servers))


def test_a_connection_that_breaks() -> None:
    """What can be done twice is sent again, all of it; what can't is not."""
    asked: list[tuple[bytes, bytes]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append((head.split()[0], await reader.readexactly(10)))
        if len(asked) > 1:
            writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}")
            await writer.drain()
        writer.close()

    async def ten() -> AsyncIterator[bytes]:
        yield b"01234"
        yield b"56789"

    async def test() -> None:
        listener = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        server = fileserver.FileServer(f"http://127.0.0.1:{port}", TOKEN, Notify())
        await server.put("abcdefgh", ten, 10, "")
        assert asked == [(b"PUT", b"0123456789")] * 2
        asked.clear()
        with pytest.raises(FileServerUnreachable):
            await server.append("abcdefgh", 0, b"0123456789")
        assert asked == [(b"POST", b"0123456789")]
        await server.close()
        listener.close()
        await listener.wait_closed()

    asyncio.run(test())


def test_what_is_needed_is_said(tmp_path: Path) -> None:
    server = FileServer(tmp_path / "one")
    (server.folder / "secret.py").write_text(f"SECRET = {{'cookie': {'x' * 40!r}}}\n")
    server.start(wait=False)
    assert server.process.wait(20) == 1 and "files_token is missing" in server.said()
    twice = node(tmp_path / "two", [server, server])
    twice.start(wait=False)
    assert twice.process.wait(20) == 1 and "names a server twice" in twice.said()
