"""What is known of uploads that come in several requests: in redis, under their user's tag.

    upload:{k3f}…:ID     hash        of Transfer, and who adds to it just now; a week beyond its expiry
    uploads:{k3f}…       sorted set  id → when it expires (µs); with its upload
    awaited:{k3f}…       hash        id → bytes that an unfinished one takes; until its file is kept
    uploads:{all}        sorted set  "USER ID" → when to look whether it has expired (µs); with its upload

Laws: what is said here to have come is on the disk, fsynced, before it is said; a piece is named here before it is
written, so that whatever is cut leaves nothing that nobody knows of. One request at a time adds to an upload: it bears
a token, which another one may take over only when no bytes have come for a while. Times are by redis' clock.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from redis.exceptions import RedisError

from backlore.clients.redis.agenda import Agenda
from backlore.clients.redis.script import Script, read_clock
from backlore.core.crypto import random_text
from backlore.core.keys import key
from backlore.services.files.allowance import Allowance
from backlore.services.files.catalog import UNMADE, Gone, Quota, Refusal, new_id
from backlore.services.uploads.steps import CREATE, END, FORGET, HOLD, KEPT, RELEASE, SAVE

ALL = key("uploads", "all")
LEASE = 5.0  # seconds without bytes until another request may go on
HELD = int(LEASE * 1e6)  # the same in µs
MOST, KNOWN = 1000, 10_000  # uploads of a user: unfinished ones, and with those that are finished and still known
BEYOND = 7 * 86400.0  # seconds that redis keeps what has expired, at most
FINISHED = 600.0  # seconds for which one whose file is kept can still be asked after
LOOK_AGAIN = 60.0  # seconds until we look again at one that is in use, or could not be deleted

Piece = tuple[str, int]  # a blob, and how many bytes of it


class NoUpload(Refusal):
    """There is no such upload of this user, or it has expired."""


class Locked(Refusal):
    """Another request adds to it just now."""


class Crowd(Refusal):
    """The user has too many unfinished uploads."""


REFUSALS: dict[str, type[Refusal]] = {
    "upload": NoUpload,
    "locked": Locked,
    "uploads": Crowd,
    "quota": Quota,
    "gone": Gone,
}


class Transfer(msgspec.Struct):
    """An upload. Sizes in bytes, times in µs since the epoch."""

    id: str
    name: str  # of the file to be
    expected: str  # of the file that has the name: as for `Files.put`
    metadata: str  # as the client gave it
    length: int  # -1: not said yet
    offset: int  # how many bytes have come
    pieces: list[Piece]  # that they lie in
    created: int
    expires: int
    file: str = ""  # the id of what has become of it
    awaited: int = 0  # bytes that it counts for, until its file does

    @property
    def is_whole(self) -> bool:
        """Whether all bytes have come."""
        return self.offset == self.length


class Transfers:
    """The uploads of users by their ids. `life`: seconds that one waits for its next bytes. Raises RedisError."""

    def __init__(self, redis: Any, allowance: Allowance, life: float):
        self._redis = redis
        self._all = Agenda(redis, ALL)
        self._allowance = allowance
        self._life = int(life * 1e6)
        self._kept = int((life + BEYOND) * 1e3)  # ms, by redis

    async def create(self, user: str, name: str, length: int, expected: str, metadata: str) -> Transfer:
        """A new one. Raises Quota, Crowd, Gone."""
        moment, awaited = await read_clock(self._redis), max(length, 0)
        made = Transfer(new_id(), name, expected, metadata, length, 0, [], moment, moment + self._life, awaited=awaited)
        await self._redis.zadd(ALL, {f"{user} {made.id}": made.expires})
        fields = {"created": moment, **_fields(made), "name": name, "expected": expected, "metadata": metadata}
        flat = [each for pair in fields.items() for each in pair]
        try:
            given = (MOST, KNOWN, awaited, made.expires, self._kept, *flat, "file", "")
            await self._grow(CREATE, awaited, user, made.id, *given)
        except Refusal:
            await self._redis.zrem(ALL, f"{user} {made.id}")
            raise
        return made

    async def find(self, user: str, id: str) -> Transfer:
        """What is known of one. Raises NoUpload."""
        fields, moment = await asyncio.gather(self._redis.hgetall(key("upload", user, id)), read_clock(self._redis))
        if not fields or fields["ended"] or int(fields["expires"]) <= moment:
            raise NoUpload(id)
        return _read(id, fields)

    async def hold(self, user: str, id: str) -> tuple[Transfer, str]:
        """Be alone with one: it, and the token that says so. Raises NoUpload, Locked."""
        token = random_text(64)
        _, flat, awaited = await self._run(HOLD, user, id, token, HELD)
        return _read(id, {**dict(zip(flat[::2], flat[1::2], strict=True)), "awaited": awaited}), token

    async def save(self, user: str, transfer: Transfer, token: str, awaited: int) -> None:
        """Say how far it is, that bytes come, and how many it takes in all, as far as that is known.

        Raises NoUpload, Locked when somebody else has it now, Quota.
        """
        given = (token, HELD, self._life, self._kept, awaited, *_fields(transfer).values())
        transfer.expires = int(await self._grow(SAVE, awaited - transfer.awaited, user, transfer.id, *given))
        transfer.awaited = awaited

    async def release(self, user: str, id: str, token: str) -> None:
        """Let others have it."""
        await self._run(RELEASE, user, id, token)

    async def kept(self, user: str, transfer: Transfer, token: str, file: str) -> None:
        """Say which file it has become. Raises NoUpload, Locked."""
        _, more, expires = await self._run(KEPT, user, transfer.id, token, file, int(FINISHED * 1e6))
        transfer.file = file
        await self._allowance.count(more)
        with contextlib.suppress(RedisError):  # then it is looked at when it would have expired
            await self._redis.zadd(ALL, {f"{user} {transfer.id}": expires}, xx=True)

    async def end(self, user: str, id: str, which: str) -> list[Piece]:
        """Nobody may add to it any more: the pieces to be deleted before `forget`.

        `which`: "old", only if it has expired; "free", only if nobody holds it; "any".
        Raises NoUpload; Locked, also when it hasn't expired, and is then looked at later.
        """
        await self._all.move(f"{user} {id}", LOOK_AGAIN)  # also of one that is to be deleted: that may fail
        _, expires, *found = await self._run(END, user, id, which)
        if not found:
            await self._redis.zadd(ALL, {f"{user} {id}": expires}, xx=True)
            raise Locked(id)
        with contextlib.suppress(ValueError):
            return msgspec.json.decode(found[0], type=list[Piece])
        return []  # another version's, which we can't read: what it has is nobody's then, and the check finds it

    async def forget(self, user: str, id: str) -> None:
        """Nothing of it is left."""
        _, more = await self._run(FORGET, user, id)
        await self._allowance.count(more)
        await self._redis.zrem(ALL, f"{user} {id}")

    async def of(self, user: str) -> list[str]:
        """The ids of a user's."""
        found: list[str] = await self._redis.zrange(key("uploads", user), 0, -1)
        return found

    async def due(self, limit: int) -> list[tuple[str, str]]:
        """Users and ids of those that may have expired."""
        found = await self._all.due(limit)
        return [(user, id) for user, _, id in (each.partition(" ") for each, _ in found)]

    async def all(self) -> AsyncIterator[Transfer]:
        """Those of all users, each at least once. Raises ValueError if we can't read one: what it has is unknown."""
        async for name, _ in self._redis.zscan_iter(ALL):
            user, _, id = name.partition(" ")
            if fields := await self._redis.hgetall(key("upload", user, id)):
                yield _transfer(id, fields)

    async def _grow(self, script: Script, more: int, user: str, id: str, *arguments: Any) -> Any:
        """Run a step after which so many bytes more may be awaited; the last that it gives."""
        allowance = self._allowance
        room, counted = await allowance.take(more)
        try:
            done = await self._run(script, user, id, allowance.quota, allowance.entries, room, *arguments)
        except UNMADE:
            await allowance.count(-counted)
            raise
        await allowance.count(done[1] - counted)
        return done[-1]

    async def _run(self, script: Script, user: str, id: str, *arguments: Any) -> Any:
        kinds = ("uploads", "awaited", "usage", "files", "trash")
        keys = [key("upload", user, id), *(key(kind, user) for kind in kinds), self._allowance.owner(user)]
        done = await script(self._redis, keys, id, *arguments)
        if done[0] in REFUSALS:
            raise REFUSALS[done[0]](id)
        return done


def _fields(transfer: Transfer) -> dict[str, Any]:
    """What changes while bytes come, as redis has it."""
    pieces = msgspec.json.encode(transfer.pieces).decode()
    return {"length": transfer.length, "offset": transfer.offset, "pieces": pieces}


def _read(id: str, fields: dict[str, str]) -> Transfer:
    """The same for one that is asked for: what another version has written so that we can't read it is not there."""
    try:
        return _transfer(id, fields)
    except ValueError as error:
        raise NoUpload(id) from error


def _transfer(id: str, fields: dict[str, str]) -> Transfer:
    known = {**fields, "id": id, "pieces": msgspec.json.decode(fields.get("pieces", ""), type=list[Piece])}
    return msgspec.convert(known, Transfer, strict=False)
