"""The contestants: how each server is started, and how its one user and its two requests are made.

Law: every contestant runs as its own makers would run it in production, with the faster of their options, and does no
less than the others; `proof.py` checks the second half. Where a contestant works differently (PocketBase), README.md
states the difference.
"""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
from contest import (
    CACHE,
    CLIENT_CORE,
    PEERS,
    SERVER_CORE,
    Ground,
    Shot,
    engine_of,
    free_port,
    listens,
    pin,
    socket_in,
    start_redis,
)
from redis import Redis

NODE_PACKAGES = (
    "express@5",
    "cookie-parser@1",
    "ajv@8",
    "fastify@5",
    "@fastify/cookie@11",
    "@fastify/etag@6",
    "ioredis@6",
    "bun@1",
)

EMAIL = "ada@example.com"
PASSWORD = "a long walk by the sea"
SECRET = "only for the bench, thirty-two bytes or more"

ITEM = {
    "title": "A walk",
    "text": "Along the shore, from the lighthouse to the old harbour, before the tide came in.",
    "stars": 4,
    "public": True,
    "tags": ["sea", "walk", "autumn"],
}


@dataclass(frozen=True)
class Contestant:
    """A server that runs and has one user, with the two requests by which it is measured.

    `identity` is the header that identifies the user. `redis` is the socket of its redis, if it has one. `items`
    returns what it has stored, with all values as strings.
    """

    get: Shot
    post: Shot
    identity: str
    items: Callable[[], list[dict[str, str]]]
    pid: int
    redis: str | None = None


def backlore(ground: Ground, workers: int = 1, spread: bool = False, **env: str) -> Contestant:
    """Our server with all defaults. The engine that it starts is moved to the client's core.

    `spread`: the kernel places all processes. `env` is what its `config.py` reads.
    """
    port, data = free_port(), ground.folder / "data"
    run = [sys.executable, "-m", "backlore.cli", "run", "--app", PEERS / "ours"]
    process = ground.start(
        [*run, "--port", port, "--data", data, "--workers", workers],
        core=None if spread else SERVER_CORE,
        PYTHONPATH=str(PEERS.parent.parent),
        **env,
    )
    base = f"http://127.0.0.1:{port}"
    ground.wait(process, lambda: _healthy(f"{base}/health"))
    if not spread:
        pin(engine_of(process.pid), CLIENT_CORE)
    account = {"email": EMAIL, "password": PASSWORD}
    with httpx.Client(base_url=base, timeout=30) as client:
        client.post("/auth/signup", json=account).raise_for_status()
        reply = client.post("/auth/login", json=account).raise_for_status()
    return _with_cookie(base, reply, process.pid, socket_in(data))


def backlore_asking(ground: Ground) -> Contestant:
    """The same without remembered sessions: redis is asked each time, as the peers do."""
    return backlore(ground, SESSION_MEMORY="0")


def fastapi(ground: Ground) -> Contestant:
    """FastAPI on uvicorn (uvloop, httptools), redis-py with hiredis."""
    uvicorn = [sys.executable, "-m", "uvicorn", "server:app", "--app-dir", PEERS / "fastapi_uvicorn"]
    flags = ["--loop", "uvloop", "--http", "httptools", "--ws", "none", "--no-access-log", "--port"]
    return with_signup(ground, lambda port: [*uvicorn, *flags, port])


def express(ground: Ground) -> Contestant:
    """Express 5, ioredis."""
    install_node_packages()
    return with_signup(ground, lambda port: ["node", PEERS / "express" / "server.js"])


def fastify(ground: Ground) -> Contestant:
    """Fastify 5, ioredis."""
    install_node_packages()
    return with_signup(ground, lambda port: ["node", PEERS / "fastify" / "server.js"])


def bun(ground: Ground) -> Contestant:
    """Bun, its own redis client."""
    install_node_packages()
    return with_signup(ground, lambda port: [CACHE / "node_modules" / ".bin" / "bun", PEERS / "bun" / "server.js"])


def pocketbase(ground: Ground) -> Contestant:
    """PocketBase, its own users and a collection of its own; all state in its SQLite."""
    port, data = free_port(), ground.folder / "data"
    binary = [script("pocketbase")]
    upsert = [*binary, "superuser", "upsert", EMAIL, PASSWORD, "--dir", data]
    subprocess.run(upsert, check=True, capture_output=True)
    process = ground.start([*binary, "serve", "--dir", data, "--http", f"127.0.0.1:{port}"], core=SERVER_CORE)
    ground.wait(process, lambda: listens(("127.0.0.1", port)))
    base = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=f"{base}/api", timeout=30) as client:
        superuser = pocketbase_login(client, "_superusers")["token"]
        client.headers["authorization"] = superuser
        client.patch("/settings", json={"logs": {"maxDays": 0}}).raise_for_status()
        client.post("/collections", json=POCKETBASE_ITEMS).raise_for_status()
        account = {"email": EMAIL, "password": PASSWORD, "passwordConfirm": PASSWORD, "emailVisibility": True}
        client.post("/collections/users/records", json=account).raise_for_status()
        login = pocketbase_login(client, "users")
    identity = {"authorization": login["token"]}
    items = f"{base}/api/collections/items/records"
    return Contestant(
        get=Shot("GET", f"{base}/api/collections/users/records/{login['record']['id']}", identity),
        post=item_shot(items, identity),
        identity="authorization",
        items=lambda: _pocketbase_items(items, superuser),
        pid=process.pid,
    )


CONTESTANTS = {
    "backlore": backlore,
    "asking": backlore_asking,
    "fastapi": fastapi,
    "express": express,
    "fastify": fastify,
    "bun": bun,
    "pocketbase": pocketbase,
}


POCKETBASE_ITEMS = {
    "name": "items",
    "type": "base",
    "createRule": '@request.auth.id != ""',
    "fields": [
        {"name": "title", "type": "text", "required": True, "min": 1, "max": 100},
        {"name": "text", "type": "text", "required": True, "min": 1, "max": 5000},
        {"name": "stars", "type": "number", "min": 0, "max": 5, "onlyInt": True},
        {"name": "public", "type": "bool"},
        {"name": "tags", "type": "json", "maxSize": 400},
    ],
}


def item_shot(url: str, headers: dict[str, str]) -> Shot:
    """The POST that is measured."""
    body = httpx.Request("POST", url, json=ITEM).content.decode()
    return Shot("POST", url, {**headers, "content-type": "application/json"}, body)


def install_node_packages() -> None:
    """Install what the Node peers need, by name, into the benchmark's cache; once."""
    names = [package.rpartition("@")[0] for package in NODE_PACKAGES]
    if all((CACHE / "node_modules" / name).is_dir() for name in names):
        return
    CACHE.mkdir(exist_ok=True)
    install = ["npm", "install", "--prefix", CACHE, "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run([*install, *NODE_PACKAGES], check=True, stdout=subprocess.DEVNULL)


def granian_constant(ground: Ground) -> Shot:
    """The server that Backlore ran on earlier, granian, answering a constant."""
    flags = ["--interface", "asgi", "--http", "1", "--no-ws", "--loop", "uvloop", "--workers", "1", "--no-access-log"]
    app = ["--working-dir", PEERS / "constant", "server:app"]
    return _constant(ground, lambda port: [script("granian"), *flags, "--port", port, *app])


def door_constant(ground: Ground) -> Shot:
    """The server that Backlore runs on, our own door, answering the same."""
    return _constant(ground, lambda port: [sys.executable, PEERS / "constant" / "door.py", port])


def _constant(ground: Ground, command: Callable[[int], list]) -> Shot:
    port = free_port()
    process = ground.start(command(port), core=SERVER_CORE)
    ground.wait(process, lambda: listens(("127.0.0.1", port)))
    return Shot("GET", f"http://127.0.0.1:{port}/")


def with_signup(ground: Ground, command: Callable[[int], list], **env: str) -> Contestant:
    """A peer with a redis of its own, and the user that its POST /signup makes."""
    redis, port = start_redis(ground), free_port()
    process = ground.start(
        command(port),
        core=SERVER_CORE,
        REDIS=redis,
        PORT=str(port),
        SECRET=SECRET,
        NODE_ENV="production",
        NODE_PATH=str(CACHE / "node_modules"),
        **env,
    )
    ground.wait(process, lambda: listens(("127.0.0.1", port)))
    base = f"http://127.0.0.1:{port}"
    reply = httpx.post(f"{base}/signup", json={"email": EMAIL}, timeout=30).raise_for_status()
    return _with_cookie(base, reply, process.pid, redis)


def _with_cookie(base: str, reply: httpx.Response, pid: int, redis: str) -> Contestant:
    """The contestant whose reply to a login or signup had the cookie and {"csrf": TOKEN}."""
    cookie = {"cookie": reply.headers["set-cookie"].partition(";")[0]}
    return Contestant(
        get=Shot("GET", f"{base}/me", cookie),
        post=item_shot(f"{base}/items", {**cookie, "x-csrf-token": reply.json()["csrf"]}),
        identity="cookie",
        items=lambda: _redis_items(redis),
        pid=pid,
        redis=redis,
    )


def _redis_items(path: str) -> list[dict[str, str]]:
    with Redis(unix_socket_path=path, decode_responses=True) as redis:
        return [redis.hgetall(key) for key in redis.scan_iter("item:*")]


def _pocketbase_items(url: str, superuser: str) -> list[dict[str, str]]:
    records = httpx.get(url, headers={"authorization": superuser}).raise_for_status().json()["items"]
    as_text = {"public": lambda public: str(int(public)), "tags": ",".join}
    return [{name: as_text.get(name, str)(record[name]) for name in ITEM} for record in records]


def pocketbase_login(client: httpx.Client, collection: str) -> dict:
    """{"token": str, "record": {…}} of a user or superuser."""
    account = {"identity": EMAIL, "password": PASSWORD}
    reply = client.post(f"/collections/{collection}/auth-with-password", json=account)
    return reply.raise_for_status().json()


def _healthy(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def script(name: str) -> str:
    """The path of a program that a Python package of this environment has installed."""
    return str(Path(sys.prefix) / "bin" / name)
