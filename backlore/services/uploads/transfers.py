"""The records of uploads that come in several requests: in redis, under their user's tag.

    upload:{k3f}…:ID     hash        fields of Transfer, and the token of the adding request; a week beyond its expiry
    uploads:{k3f}…       sorted set  id → when it expires (µs); as long as the upload
    awaited:{k3f}…       hash        id → bytes that an unfinished upload takes; until its file is kept
    uploads:{all}        sorted set  "USER ID" → when to look whether it has expired (µs); as long as the upload

Laws: bytes are on the disk, fsynced, before they are recorded here. A piece is recorded here before it is written, so
that an interruption leaves no unknown bytes. Only one request at a time adds to an upload: it holds a token. Another
request may take over only when no bytes have arrived for a while. Times are by redis' clock.
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
LEASE = 5.0  # seconds without bytes until another request may take over
HELD = int(LEASE * 1e6)  # the same in µs
MOST, KNOWN = 1000, 10_000  # uploads per user: unfinished ones; and all, with finished ones that are still known
BEYOND = 7 * 86400.0  # seconds that redis keeps an expired upload, at most
FINISHED = 600.0  # seconds for which an upload whose file is kept can still be found
LOOK_AGAIN = 60.0  # seconds until we look again at an upload that is in use, or could not be deleted

Piece = tuple[str, int]  # a blob, and how many of its bytes count


class NoUpload(Refusal):
    """This user has no such upload, or it has expired."""


class Locked(Refusal):
    """Another request is adding to the upload."""


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
    expected: str  # as for `Files.put`
    metadata: str  # as the client gave it
    length: int  # -1: not known yet
    offset: int  # how many bytes have arrived
    pieces: list[Piece]  # in which the bytes lie
    created: int
    expires: int
    file: str = ""  # the id of the file that it became
    awaited: int = 0  # bytes that it counts for, until its file counts

    @property
    def is_whole(self) -> bool:
        """Whether all bytes have arrived."""
        return self.offset == self.length


class Transfers:
    """The uploads of users. `life`: seconds that an upload waits for its next bytes. Methods raise RedisError."""

    def __init__(self, redis: Any, allowance: Allowance, life: float):
        self._redis = redis
        self._all = Agenda(redis, ALL)
        self._allowance = allowance
        self._life = int(life * 1e6)
        self._kept = int((life + BEYOND) * 1e3)  # ms, by redis

    async def create(self, user: str, name: str, length: int, expected: str, metadata: str) -> Transfer:
        """Make a new upload of `length` bytes, -1 if not known yet. Raises Quota, Crowd, Gone."""
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
        """The record of an upload. Raises NoUpload."""
        fields, moment = await asyncio.gather(self._redis.hgetall(key("upload", user, id)), read_clock(self._redis))
        if not fields or fields["ended"] or int(fields["expires"]) <= moment:
            raise NoUpload(id)
        return _read(id, fields)

    async def hold(self, user: str, id: str) -> tuple[Transfer, str]:
        """Take the lease of an upload. Returns its record and the token of the lease. Raises NoUpload, Locked."""
        token = random_text(64)
        _, flat, awaited = await self._run(HOLD, user, id, token, HELD)
        return _read(id, {**dict(zip(flat[::2], flat[1::2], strict=True)), "awaited": awaited}), token

    async def save(self, user: str, transfer: Transfer, token: str, awaited: int) -> None:
        """Record the progress, renew the lease, and count `awaited` bytes in all, as far as known.

        Raises NoUpload, Quota; Locked if another request has taken over.
        """
        given = (token, HELD, self._life, self._kept, awaited, *_fields(transfer).values())
        transfer.expires = int(await self._grow(SAVE, awaited - transfer.awaited, user, transfer.id, *given))
        transfer.awaited = awaited

    async def release(self, user: str, id: str, token: str) -> None:
        """End the lease."""
        await self._run(RELEASE, user, id, token)

    async def kept(self, user: str, transfer: Transfer, token: str, file: str) -> None:
        """Record the id of the file that the upload became. Raises NoUpload, Locked."""
        _, more, expires = await self._run(KEPT, user, transfer.id, token, file, int(FINISHED * 1e6))
        transfer.file = file
        await self._allowance.count(more)
        with contextlib.suppress(RedisError):  # if it fails, the sweep looks when the upload would have expired
            await self._redis.zadd(ALL, {f"{user} {transfer.id}": expires}, xx=True)

    async def end(self, user: str, id: str, which: str) -> list[Piece]:
        """End an upload, so that no bytes can be added. Returns the pieces, to be deleted before `forget`.

        `which`: "old", only if it has expired; "free", only if no request holds it; "any".
        Raises NoUpload; Locked, also for "old" if it hasn't expired: then the sweep looks again later.
        """
        await self._all.move(f"{user} {id}", LOOK_AGAIN)  # in any case: the deletion may fail
        _, expires, *found = await self._run(END, user, id, which)
        if not found:
            await self._redis.zadd(ALL, {f"{user} {id}": expires}, xx=True)
            raise Locked(id)
        with contextlib.suppress(ValueError):
            return msgspec.json.decode(found[0], type=list[Piece])
        return []  # another version's, which we can't read: its pieces are orphaned, and the check finds them

    async def forget(self, user: str, id: str) -> None:
        """Drop the record of an upload whose pieces are deleted."""
        _, more = await self._run(FORGET, user, id)
        await self._allowance.count(more)
        await self._redis.zrem(ALL, f"{user} {id}")

    async def of(self, user: str) -> list[str]:
        """The ids of a user's uploads."""
        found: list[str] = await self._redis.zrange(key("uploads", user), 0, -1)
        return found

    async def due(self, limit: int) -> list[tuple[str, str]]:
        """User and id of the uploads that may have expired."""
        found = await self._all.due(limit)
        return [(user, id) for user, _, id in (each.partition(" ") for each, _ in found)]

    async def all(self) -> AsyncIterator[Transfer]:
        """All users' uploads, each at least once. Raises ValueError if one can't be read: its pieces are unknown."""
        async for name, _ in self._redis.zscan_iter(ALL):
            user, _, id = name.partition(" ")
            if fields := await self._redis.hgetall(key("upload", user, id)):
                yield _transfer(id, fields)

    async def _grow(self, script: Script, more: int, user: str, id: str, *arguments: Any) -> Any:
        """Run a step after which `more` bytes may be awaited. Returns the last value of its result."""
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
    """The fields that change while bytes arrive, as redis has them."""
    pieces = msgspec.json.encode(transfer.pieces).decode()
    return {"length": transfer.length, "offset": transfer.offset, "pieces": pieces}


def _read(id: str, fields: dict[str, str]) -> Transfer:
    """A transfer from its fields. Raises NoUpload if another version wrote it and this one can't read it."""
    try:
        return _transfer(id, fields)
    except ValueError as error:
        raise NoUpload(id) from error


def _transfer(id: str, fields: dict[str, str]) -> Transfer:
    known = {**fields, "id": id, "pieces": msgspec.json.decode(fields.get("pieces", ""), type=list[Piece])}
    return msgspec.convert(known, Transfer, strict=False)
