"""The acts of stale.py: each ends sessions or changes a user, through the application's services or its routes.

An act takes a person, and returns what must be seen of its sessions afterwards.
"""

import asyncio
import contextlib
import json
import random
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import msgspec
import pyotp
from argon2 import PasswordHasher

from backlore.app import Backend
from backlore.services.identity.accounts import Recovery, Verification
from backlore.services.identity.openid import LinkedProvider, links_key
from backlore.services.identity.passkeys import passkeys_key
from backlore.services.identity.recovery import recovery_key
from backlore.services.identity.sessions import public_id, session_key
from backlore.services.identity.users import Account, Step, user_key

PASSWORDS = ("correct horse battery", "staple horse battery")
Reply = tuple[int, Any]
# by session: the address and the flag that must be seen, or None if it has ended
Right = dict[str, tuple[str, bool] | None]


class Wire(asyncio.Protocol):
    """A connection with many requests in flight, which are answered in order."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[Reply]] = deque()
        self._bytes = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def connection_lost(self, error: Exception | None) -> None:
        for each in self._waiting:
            if not each.done():
                each.set_exception(ConnectionError("the worker has gone"))

    def ask(self, path: str, cookie: str = "", body: Any = None, csrf: str = "") -> asyncio.Future[Reply]:
        """Send a GET, or a POST if there is a body."""
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nhost: x\r\ncookie: {cookie}\r\n"
        if body is not None:
            head += f"content-type: application/json\r\ncontent-length: {len(content)}\r\nx-csrf-token: {csrf}\r\n"
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        if self._transport.is_closing():
            reply.set_exception(ConnectionError("the worker has gone"))
            return reply
        self._waiting.append(reply)
        self._transport.write(head.encode() + b"\r\n" + content)
        return reply

    def data_received(self, data: bytes) -> None:
        self._bytes += data
        while (end := self._bytes.find(b"\r\n\r\n") + 4) > 3:
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", self._bytes[:end])
            whole = end + (int(length[1]) if length else 0)
            if len(self._bytes) < whole:
                return
            status, body = int(self._bytes[9:12]), self._bytes[end:whole]
            self._bytes = self._bytes[whole:]
            reply = self._waiting.popleft()
            if not reply.done():
                reply.set_result((status, json.loads(body) if body else {}))

    def close(self) -> None:
        self._transport.close()


class Person:
    """A user with two sessions. The first one does the acts."""

    def __init__(self, id: str, email: str):
        self.id = id
        self.email = email
        self.flag = False
        self.mine = self.other = ""
        self.password = 0

    def both(self, seen: tuple[str, bool] | None) -> Right:
        return {self.mine: seen, self.other: seen}


class World:
    """The application's services in this process, and the wires to each of its workers."""

    def __init__(self, app: Backend, port: int):
        self.app = app
        self.identity = app.identity
        self.users = app.identity.users
        self.sessions = app.identity.sessions
        self.wires: dict[int, tuple[Wire, Wire]] = {}  # by worker: one wire to ask, one to ask at the same time
        self.boss = ""  # an admin's session
        self._port = port
        self._numbers = count(time.time_ns())
        hasher = PasswordHasher(1, 8, 1)
        self._hashes = [hasher.hash(password) for password in PASSWORDS]
        app.mail.send = self._no_mail  # type: ignore[method-assign]

    async def _no_mail(self, *_: Any) -> None:
        pass

    async def connect(self) -> None:
        """Open two wires to each of two workers."""
        for wires in self.wires.values():
            for wire in wires:
                wire.close()
        found: dict[int, list[Wire]] = {}
        while sum(len(wires) == 2 for wires in found.values()) < 2:
            with contextlib.suppress(OSError):
                _, wire = await asyncio.get_running_loop().create_connection(Wire, "127.0.0.1", self._port)
                wires = found.setdefault((await wire.ask("/process"))[1]["process"], [])
                wires.append(wire) if len(wires) < 2 else wire.close()
        self.wires = {process: (first, second) for process, (first, second) in found.items()}

    def address(self) -> str:
        return f"u{next(self._numbers)}@example.com"

    async def person(self) -> Person:
        email = self.address()
        id = await self.users.create(email, self._hashes[0], verified=True)
        assert id
        return Person(id, email)

    async def account(self, person: Person) -> Account:
        account = await self.users.read(person.id)
        assert account
        return account

    async def begin(self, person: Person) -> str:
        session = await self.sessions.begin(await self.account(person), "10.0.0.1", "bench", "bench", is_known=True)
        assert session
        return session

    async def by_hand(self, person: Person) -> tuple[str, bool]:
        """Change the address without telling a worker. Returns what must be seen then."""
        person.email = self.address()
        await self.app.redis.hset(user_key(person.id), "email", person.email)
        return person.email, person.flag

    def probe(self, session: str, wire: Wire) -> asyncio.Future[Reply]:
        return wire.ask("/auth/csrf", self.cookie(session))

    def cookie(self, session: str) -> str:
        return self.sessions.keeper.cookie.give(session)[1].partition(";")[0]

    async def post(self, session: str, path: str, body: Any) -> Any:
        """Send a POST to any of the workers. It must be acknowledged."""
        wire = random.choice(list(self.wires.values()))[0]
        status, answer = await wire.ask(path, self.cookie(session), body, self.sessions.keeper.token_of(session))
        assert status == 200, (path, status, answer)
        return answer

    async def by_boss(self, person: Person, act: str, **body: Any) -> None:
        await self.post(self.boss, f"/admin/users/{person.id}/{act}", body)

    async def alter(self, person: Person, *steps: Step, keep: str | None = None, asker: bool = True) -> None:
        key = session_key(person.mine) if asker else ""
        assert await self.users.alter(await self.account(person), *steps, asker=key, keep=keep)

    # The acts by services

    async def logout(self, p: Person) -> Right:
        await self.sessions.end(p.id, p.mine)
        return {p.mine: None}

    async def end_others(self, p: Person) -> Right:
        await self.sessions.end_all(p.id, keep=p.mine)
        return {p.other: None}

    async def end_all(self, p: Person) -> Right:
        await self.sessions.end_all(p.id)
        return p.both(None)

    async def reset(self, p: Person) -> Right:
        await self.alter(p, ("HSET", user_key(p.id), "password", self._hashes[0]), keep="", asker=False)
        return p.both(None)

    async def password(self, p: Person) -> Right:
        seen = await self.by_hand(p)
        await self.alter(p, ("HSET", user_key(p.id), "password", self._hashes[0]), keep=p.mine)
        return {p.mine: seen, p.other: None}

    async def email(self, p: Person) -> Right:
        email = self.address()
        assert await self.users.move(await self.account(p), email, session_key(p.mine))
        p.email = email
        return p.both((p.email, p.flag))

    async def disable(self, p: Person) -> Right:
        await self.identity.admins.disable(await self.account(p))
        return p.both(None)

    async def promote(self, p: Person) -> Right:
        p.flag = not p.flag
        await self.identity.admins.set_admin(await self.account(p), p.flag)
        return p.both((p.email, p.flag))

    async def totp_on(self, p: Person) -> Right:
        seen = await self.by_hand(p)
        steps: list[Step] = [("HSET", user_key(p.id), "totp", "SECRET"), ("SADD", recovery_key(p.id), "a", "b")]
        await self.alter(p, *steps, keep=p.mine)
        return {p.mine: seen, p.other: None}

    async def totp_off(self, p: Person) -> Right:
        seen = await self.by_hand(p)
        await self.alter(p, ("HDEL", user_key(p.id), "totp"))
        return p.both(seen)

    async def passkey(self, p: Person) -> Right:
        seen = await self.by_hand(p)
        await self.alter(p, ("HDEL", passkeys_key(p.id), "id"))
        return p.both(seen)

    async def link(self, p: Person) -> Right:
        seen = await self.by_hand(p)
        await self.alter(p, ("HDEL", links_key(p.id), "provider"))
        return p.both(seen)

    async def factors(self, p: Person) -> Right:
        seen = await self.by_hand(p)
        await self.identity.admins.remove_factors(await self.account(p))
        return p.both(seen)

    async def destroy(self, p: Person) -> Right:
        assert await self.identity.erasure.destroy(await self.account(p))
        return p.both(None)

    # The same by routes

    async def http_logout(self, p: Person) -> Right:
        await self.post(p.mine, "/auth/logout", {})
        return {p.mine: None}

    async def http_end_one(self, p: Person) -> Right:
        await self.post(p.mine, "/auth/sessions/end", {"id": public_id(p.other)})
        return {p.other: None}

    async def http_end_others(self, p: Person) -> Right:
        await self.post(p.mine, "/auth/sessions/end", {"others": True})
        return {p.other: None}

    async def http_end_all(self, p: Person) -> Right:
        await self.by_boss(p, "endSessions")
        return p.both(None)

    async def http_reset(self, p: Person) -> Right:
        recovery = Recovery(p.id, (await self.account(p)).version)
        token = await self.identity.accounts._tokens.make("reset", recovery, 600, p.id)
        await self.post(p.mine, "/auth/reset", {"token": token, "password": PASSWORDS[p.password]})
        return p.both(None)

    async def http_password(self, p: Person) -> Right:
        seen, old = await self.by_hand(p), PASSWORDS[p.password]
        p.password = 1 - p.password
        await self.post(p.mine, "/auth/changePassword", {"old": old, "new": PASSWORDS[p.password]})
        return {p.mine: seen, p.other: None}

    async def http_email(self, p: Person) -> Right:
        asked = Verification(self.address(), user=p.id, version=(await self.account(p)).version)
        await self.post(
            p.mine, "/auth/verifyEmail", {"token": await self.identity.accounts._tokens.make("verify", asked, 600)}
        )
        p.email = asked.email
        return p.both((p.email, p.flag))

    async def http_disable(self, p: Person) -> Right:
        await self.by_boss(p, "disable")
        return p.both(None)

    async def http_promote(self, p: Person) -> Right:
        p.flag = not p.flag
        await self.by_boss(p, "admin", admin=p.flag)
        return p.both((p.email, p.flag))

    async def http_totp(self, p: Person) -> Right:
        """On and off in turn."""
        seen, password = await self.by_hand(p), PASSWORDS[p.password]
        if (await self.account(p)).totp:
            await self.post(p.mine, "/auth/totp/remove", {"password": password})
            return p.both(seen)
        begun = await self.post(p.mine, "/auth/totp/begin", {"password": password})
        await self.post(p.mine, "/auth/totp/confirm", {"code": pyotp.TOTP(begun["secret"]).now()})
        return {p.mine: seen, p.other: None}

    async def http_passkey(self, p: Person) -> Right:
        made = {"key": "", "count": 0, "name": "x", "created": 0, "used": 0, "transports": [], "backed_up": False}
        await self.app.redis.hset(passkeys_key(p.id), "AAAA", json.dumps(made))
        seen = await self.by_hand(p)
        await self.post(p.mine, "/auth/passkeys/remove", {"id": "AAAA", "password": PASSWORDS[p.password]})
        return p.both(seen)

    async def http_link(self, p: Person) -> Right:
        link = msgspec.json.encode(LinkedProvider("https://issuer", p.id, 0)).decode()
        await self.app.redis.hset(links_key(p.id), "provider", link)
        seen = await self.by_hand(p)
        await self.post(p.mine, "/auth/links/remove", {"provider": "provider", "password": PASSWORDS[p.password]})
        return p.both(seen)

    async def http_factors(self, p: Person) -> Right:
        seen = await self.by_hand(p)
        await self.by_boss(p, "removeFactors")
        return p.both(seen)

    async def http_destroy(self, p: Person) -> Right:
        if random.random() < 0.5:
            await self.by_boss(p, "destroy")
        else:
            await self.post(p.mine, "/auth/destroy", {"password": PASSWORDS[p.password]})
        return p.both(None)


Act = Callable[[World, Person], Awaitable[Right]]
BY_SERVICES: dict[str, Act] = {
    "logout, end of one": World.logout,
    "end of all others": World.end_others,
    "end of all": World.end_all,
    "reset": World.reset,
    "change of password": World.password,
    "change of address": World.email,
    "disabling": World.disable,
    "promotion, demotion": World.promote,
    "totp on": World.totp_on,
    "totp off": World.totp_off,
    "passkey removed": World.passkey,
    "link removed": World.link,
    "factors removed": World.factors,
    "erasure": World.destroy,
}
BY_ROUTES: dict[str, Act] = {
    "logout": World.http_logout,
    "end of one": World.http_end_one,
    "end of all others": World.http_end_others,
    "end of all": World.http_end_all,
    "reset": World.http_reset,
    "change of password": World.http_password,
    "change of address": World.http_email,
    "disabling": World.http_disable,
    "promotion, demotion": World.http_promote,
    "totp on, off": World.http_totp,
    "passkey removed": World.http_passkey,
    "link removed": World.http_link,
    "factors removed": World.http_factors,
    "erasure": World.http_destroy,
}
