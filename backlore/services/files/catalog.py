"""The catalog of files in redis: the authority for disk and S3. All keys of a user lie under one tag.

    files:{k3f}…         hash        name → JSON of File; for ever
    newest:{k3f}…        sorted set  name → when it changed (µs, unique); as long as the file
    trash:{k3f}…         hash        id → JSON of File; 30 days
    trashed:{k3f}…       sorted set  id → when it was deleted (µs, unique); as long as the file
    blob:{k3f}…:BLOB     hash        {size, hash, live, trash, version, where, pushed}; as long as a file refers to it
    hashes:{k3f}…        hash        SHA-256 → blob of that content; as long as the blob
    usage:{k3f}…         hash        {bytes, files, changes (of bytes), revoked (how often links were)}; until a wipe
    moves:{k3f}…         sorted set  blob → when to make S3 and disk match its record; until they do;
                                     ~ID → when a file leaves the trash
    moves:{all}          sorted set  user → when to look for moves; until none is left

Laws: a blob is the bytes of one content, or a piece of one that grows. Its name is never used again, so an orphaned
blob can be deleted without asking. `live` and `trash` count the files that refer to it; where it belongs follows from
them, and `moves` names it until it is there. A change to a user's files and to the moves it causes is one step. All
times are redis' own. A record that another version wrote and this one can't read counts as absent, and stays.
"""

import asyncio
import contextlib
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec
from redis.exceptions import RedisError

from backlore.clients.redis.agenda import CLAIMED, Agenda
from backlore.clients.redis.aside import AGAIN
from backlore.clients.redis.client import Unavailable
from backlore.clients.redis.errors import NOT_TAKEN
from backlore.clients.redis.script import Script
from backlore.core.crypto import random_text
from backlore.core.keys import key
from backlore.services.files.allowance import Allowance
from backlore.services.files.steps import (
    APPEND,
    CLAIM,
    DROP,
    ERASE,
    FORGET,
    LOOK_LATER,
    MOVED,
    PAGE,
    PUT,
    RESTORE,
    REVOKE,
    TAKE,
)

EVERYBODY = key("moves", "all")
MOST_AT_ONCE = 200  # files in one step of redis
LOOK_AGAIN = 10.0  # seconds until we look for a change that was made but cut off before it was announced

T = TypeVar("T")


class Excerpt(list[T]):
    """A page of a list, and where the next one begins: `before`, 0 at the end."""

    def __init__(self, found: Iterable[T], before: int):
        super().__init__(found)
        self.before = before


class File(msgspec.Struct):
    """A file of a user. Times are redis' own, in µs. `hash` is the SHA-256 of the whole, "" once it was appended to."""

    id: str  # of this version: each version has its own
    name: str
    type: str
    size: int  # bytes
    hash: str
    created: int
    changed: int
    blobs: list[tuple[str, int]]  # each with the number of its bytes that belong to the file

    @property
    def etag(self) -> str:
        """A tag that changes with the bytes."""
        return self.id if self.hash else f"{self.id}-{self.size}"


class Blob(msgspec.Struct):
    """The record of a blob. `where` is its folder in S3, or ""; `pushed` is the number of bytes there."""

    id: str
    size: int
    hash: str
    live: int
    trash: int
    version: int
    where: str
    pushed: int

    @property
    def belongs(self) -> str:
        """The folder in S3 where it should be."""
        return "files" if self.live else "trash" if self.trash else ""


class Claim(NamedTuple):
    """Moves that were claimed `until` a moment, and the names of records that can't be read."""

    blobs: list[Blob]
    unread: list[str]
    until: str


class Refusal(Exception):
    """The request can't be fulfilled."""


class Exists(Refusal):
    """There is a file of this name already."""


class NoFile(Refusal):
    """There is no such file."""


class Changed(Refusal):
    """The file is no longer the version that the caller expected."""


class Quota(Refusal):
    """There is no room left for this user, or for all users together."""


class Gone(Refusal):
    """The owner no longer exists."""


REFUSALS: dict[str, type[Refusal]] = {
    "exists": Exists,
    "missing": NoFile,
    "changed": Changed,
    "quota": Quota,
    "gone": Gone,
}
UNMADE = (Refusal, Unavailable, *NOT_TAKEN)  # errors after which a step has certainly not been made

decode = msgspec.json.Decoder(File).decode
encode = msgspec.json.Encoder().encode


def read(text: str | None) -> File | None:
    """The file that a text encodes; None if there is no text, or this version can't read it."""
    with contextlib.suppress(ValueError):
        return None if text is None else decode(text)
    return None


def new_id() -> str:
    """A new id of a file, or of an upload."""
    return random_text(128)


class Catalog:
    """The files of users; each user is given by id. Methods raise RedisError, and the Refusals that they name.

    `kept` is how many seconds the trash keeps a file.
    """

    def __init__(self, redis: Any, kept: float, allowance: Allowance):
        self._redis = redis
        self._users = Agenda(redis, EVERYBODY)
        self._kept = int(kept * 1e6)  # µs in the trash
        self._allowance = allowance

    async def put(
        self, user: str, file: File, expected: str = "", where: str = "", pushed: int = 0, upload: str = ""
    ) -> File:
        """Record a file under its name; a file that had the name goes to the trash. `file` has one blob, newly named.

        `expected`: "*" if there must be no such file, or the id of the one to replace. `upload`: the id of the upload
        that became this file; its bytes are counted already. Returns the file as recorded: with another blob if the
        user has this content already, the old file if nothing differs. Raises Exists, Changed, Quota, Gone.
        """
        ((blob, size),) = file.blobs
        given = (file.name, encode(file), blob, size, file.hash, expected, where, pushed, upload)
        return decode((await self._grow(PUT, 0 if upload else size, user, *given))[1])

    async def append(self, user: str, old: File | None, file: File) -> File:
        """Record that `old` became `file` by more bytes in its last blob. Returns the file as recorded.

        Raises Changed, Quota, Gone; Exists if this version can't read what is there.
        """
        blob, size = file.blobs[-1]
        at = dict(old.blobs).get(blob, 0) if old else 0
        before = encode(old) if old else ""
        given = (file.name, before, encode(file), blob, at, size - at)
        return decode((await self._grow(APPEND, size - at, user, *given))[1])

    async def delete(self, user: str, name: str, expected: str = "") -> File:
        """Move a file to the trash. Raises NoFile, Changed."""
        return decode((await self.change(TAKE, user, name, expected))[1])

    async def restore(self, user: str, id: str, name: str = "") -> File:
        """Restore a file from the trash, under its own name or another. Raises NoFile, Exists, Gone."""
        text = await self._redis.hget(key("trash", user), id)
        file = read(text)
        if file is None:
            raise NoFile(id)
        file.name = name or file.name
        return decode((await self.change(RESTORE, user, id, text, encode(file), file.name))[1])

    async def erase(self, user: str, ids: Sequence[str]) -> int:
        """Erase files from the trash for good. Returns how many there were."""
        erased = 0
        for start in range(0, len(ids), MOST_AT_ONCE):
            erased += (await self.change(ERASE, user, *ids[start : start + MOST_AT_ONCE]))[1]
        return erased

    async def drop_unread(self, user: str, kind: Literal["files", "trash"]) -> None:
        """Drop the entries of a list that this version can't read; for a user who is being erased."""
        await self.run(DROP, user, kind)

    async def forget(self, user: str) -> None:
        """Drop the sums of a user who has no files, not even in the trash."""
        await self.run(FORGET, user)

    async def find(self, user: str, name: str) -> File | None:
        """The file of a name."""
        return read(await self._redis.hget(key("files", user), name))

    async def find_dead(self, user: str, id: str) -> File | None:
        """A file of the trash, by its id."""
        return read(await self._redis.hget(key("trash", user), id))

    async def find_all(self, user: str, names: list[str]) -> list[File]:
        """The files of these names that exist, in the order of the names."""
        found: list[File] = []
        for start in range(0, len(names), MOST_AT_ONCE):
            texts = await self._redis.hmget(key("files", user), names[start : start + MOST_AT_ONCE])
            found += [file for file in map(read, texts) if file]
        return found

    async def page(self, user: str, before: int, limit: int) -> Excerpt[File]:
        """The newest files of those that changed before a time (µs)."""
        last, *found = await PAGE(self._redis, [key("newest", user), key("files", user)], before, limit)
        return Excerpt((file for file in map(read, found[::2]) if file), int(last))

    async def page_of_trash(self, user: str, before: int, limit: int) -> Excerpt[tuple[File, int]]:
        """The files that were deleted last before a time (µs), each with when it was deleted (µs)."""
        last, *found = await PAGE(self._redis, [key("trashed", user), key("trash", user)], before, limit)
        pairs = zip(map(read, found[::2]), map(int, found[1::2]), strict=True)
        return Excerpt(((file, when) for file, when in pairs if file), int(last))

    async def names(self, user: str, kind: Literal["newest", "trashed"] = "newest") -> list[str]:
        """The names of all files, or the ids of all files in the trash."""
        found: list[str] = await self._redis.zrange(key(kind, user), 0, -1)
        return found

    async def total(self) -> int:
        """The bytes of all users together, with those that unfinished uploads await."""
        return await self._allowance.used()

    async def standing(self, user: str) -> str:
        """What a user's links are signed with: a text that changes when all must end; "" if the user may not log in."""
        standing, revoked = await asyncio.gather(
            self._allowance.standing(user), self._redis.hget(key("usage", user), "revoked")
        )
        return f"{standing} {revoked or 0}" if standing else ""

    async def revoke(self, user: str) -> None:
        """End all links that were made so far. Raises Gone."""
        await self.run(REVOKE, user)

    async def usage(self, user: str) -> tuple[int, int]:
        """The bytes that a user keeps, trash included, each content counted once; and the number of files."""
        bytes_, files = await self._redis.hmget(key("usage", user), "bytes", "files")
        return int(bytes_ or 0), int(files or 0)

    async def blob(self, user: str, id: str) -> Blob | None:
        """The record of a blob, or None."""
        return (await self.blobs([(user, id)]))[0]

    async def blobs(self, wanted: Sequence[tuple[str, str]]) -> list[Blob | None]:
        """The records of blobs, each asked for by user and id; None for one that isn't recorded."""
        names = Blob.__struct_fields__[1:]
        found = await asyncio.gather(*(self._redis.hmget(key("blob", user, id), *names) for user, id in wanted))
        return [
            None if fields[0] is None else _blob(id, *fields) for (_, id), fields in zip(wanted, found, strict=True)
        ]

    async def claim(self, user: str, limit: int) -> Claim:
        """Claim the moves that are due, for a while. Records that can't be read are postponed."""
        claimed, unread, freed, until = await self.run(CLAIM, user, CLAIMED, limit, int(AGAIN * 1e6))
        await self._allowance.count(freed)
        blobs: list[Blob] = []
        for each in claimed:
            try:
                blobs.append(_blob(*each))
            except (ValueError, TypeError):
                unread.append(each[0])
                await self.postpone(user, each[0], AGAIN)
        return Claim(blobs, unread, until)

    def holding(self, user: str, blobs: Collection[str], until: str) -> AbstractAsyncContextManager[None]:
        """Keep the claim to the blobs that are still in `blobs`. Raises LeaseLost when it is lost."""
        return Agenda(self._redis, key("moves", user)).holding(blobs, until)

    async def moved(self, user: str, blob: Blob, where: str, pushed: int) -> None:
        """Record that S3 has `pushed` bytes of a blob in this folder; an orphaned blob has been deleted everywhere."""
        await self.run(MOVED, user, blob.id, blob.version, where, pushed)

    async def postpone(self, user: str, blob: str, delay: float) -> None:
        """Make a move that failed due again in `delay` seconds."""
        await Agenda(self._redis, key("moves", user)).move(blob, delay)

    async def users_to_serve(self, limit: int) -> list[tuple[str, str]]:
        """The users that may have moves, each with the moment that was set for looking."""
        return await self._users.due(limit)

    async def look_later(self, user: str, seen: str) -> None:
        """Nothing is due: look at the user again at the next move, or never, unless a change was announced since."""
        first = await self._redis.zrange(key("moves", user), 0, 0, withscores=True)
        await LOOK_LATER(self._redis, [EVERYBODY], user, seen, repr(first[0][1]) if first else "")

    async def leave(self, user: str, delay: float) -> None:
        """Look at a user again only in `delay` seconds, whatever is due."""
        await self._users.move(user, delay)

    async def change(self, script: Script, user: str, *arguments: Any, counted: int = 0) -> Any:
        """Run a step that changes a user's files, and announce it in the list of all users. Returns the step's result.

        It is announced before and after, so that a change that is cut off in between is found a little later. `counted`
        are the bytes that the sum of all users contains already. Raises Refusals.
        """
        await self._users.add(user, LOOK_AGAIN)
        done = await self.run(script, user, *arguments)
        with contextlib.suppress(RedisError):  # the change is made; the courier hears of it now or looks later
            await asyncio.gather(self._users.add(user), self._allowance.count(done[2] - counted))
        return done

    async def _grow(self, script: Script, more: int, user: str, *arguments: Any) -> Any:
        """The same as `change`, for a step that may add `more` bytes."""
        allowance = self._allowance
        room, counted = await allowance.take(more)
        given = (*arguments, allowance.quota, allowance.entries, room)
        try:
            return await self.change(script, user, *given, counted=counted)
        except UNMADE:
            await allowance.count(-counted)
            raise

    async def run(self, script: Script, user: str, *arguments: Any) -> Any:
        """Run a step on one user's keys. Returns its result. Raises Refusals."""
        kinds = ("files", "newest", "trash", "trashed", "hashes", "usage", "moves", "blob", "awaited")
        keys = [*(key(kind, user) for kind in kinds), self._allowance.owner(user)]
        done = await script(self._redis, keys, self._kept, *arguments)
        if done and isinstance(done, list) and isinstance(done[0], str) and done[0] in REFUSALS:
            raise REFUSALS[done[0]](str(arguments[0]) if arguments else user)
        return done


def _blob(id: str, size: str, hash: str, live: str, trash: str, version: str, where: str, pushed: str) -> Blob:
    return Blob(id, int(size), hash, int(live), int(trash), int(version), where, int(pushed))
