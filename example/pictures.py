"""Pictures: users' files, with dimensions and tags.

picture:{k3f}…:ID     hash        name, number, width, height, tags (JSON), kept ("1" once its file was there)
gallery:{k3f}…        sorted set  id → number of the user's pictures, in the order in which they came
gallery:{k3f}…:TAG    sorted set  the same for pictures with the tag
marks:{k3f}…          set         tags that the user has ever given to pictures
binned:{k3f}…         sorted set  id → when the key of a picture that is not there expires (seconds)
lastpicture:{k3f}…    string      the last number given

Laws: Backlore's catalog of files decides whether a picture is there, and what its name, size and time are. A picture
has the id of its file. What is kept here is only read together with the catalog. So it is written before the file is
kept, and is brought in line with the catalog after the catalog has changed. If the process dies anywhere in between,
nothing is shown that is not there, and everything that is there can be seen.
"""

import re
import secrets
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Annotated, Any

import msgspec
from redis.exceptions import WatchError
from thumbs import NoPicture, Thumbs

from backlore import Backend, Changed, Exists, NoFile, Payload, Request, Upload, between, key, length, matching, reply
from backlore.web.reply import etag_matches

Tag = Annotated[str, length(1, 30), matching(r"[^\s\x00-\x1f\x7f-\x9f\ufeff,]+", "a word without spaces and commas")]
PictureId = Annotated[str, matching("[0-9a-f]{32}", "the id of a picture")]
Limit = Annotated[int, between(1, 100)]
DAY = 86400  # seconds
FOR_EVER = ("cache-control", "private, max-age=31536000, immutable")  # the picture of an id never changes


class NewPicture(Payload):
    file: Upload
    tags: Annotated[list[Tag], length(0, 10)] = []


class Marks(Payload):
    tags: Annotated[list[Tag], length(0, 10)]


class Gallery(Payload):
    tag: Tag | None = None
    before: Annotated[int, between(0, 2**53)] = 0
    limit: Limit = 50


class Bin(Payload):
    before: Annotated[int, between(0, 2**53)] = 0
    limit: Limit = 50


class Pictures:
    """The handlers."""

    def __init__(self, app: Backend):
        self.app = app
        self.redis = app.redis
        self.files = app.files
        self.thumbs = Thumbs(app.settings.data / "thumbs")
        # seconds that the key of a deleted picture is kept: longer than the trash
        self.kept = int(app.settings.config.files.trash) + DAY
        app.web.on_stop.append(self.thumbs.close)
        app.identity.on_destroy.append(self.erase_all)

    async def add_picture(self, request: Request, body: NewPicture):
        """Keep a picture, under another name if its own is taken.

        200 {"id": str, "name": str, "size": int, "width": int, "height": int, "tags": [str], "created": int}; 400;
        409 `exists`, `quota`; 415 `picture` {where, why}; 507 `disk`.
        """
        user, id = request.user.id, secrets.token_hex(16)
        try:
            width, height = await self.thumbs.make(user, body.file.path, body.file.hash)
        except NoPicture as error:
            return reply(415, error="picture", where="file", why=str(error))
        number = await self.redis.incr(key("lastpicture", user))
        tags = list(dict.fromkeys(body.tags))
        look = {"number": number, "width": width, "height": height, "tags": encode(tags)}
        try:
            for name in names_for(body.file.name, number):
                await self._enter(user, id, look | {"name": name})
                try:
                    file = await self.files.put(user, name, body.file, "*", id)
                    return reply(200, show(file, look))
                except Exists:
                    continue
        finally:
            await self._settle(user, id)
        return reply(409, error="exists")

    async def list_pictures(self, request: Request, query: Gallery):
        """The newest pictures, all or those with a tag; `before` leads to the next page.

        200 {"pictures": [{id, name, size, width, height, tags, created}], "before": int}.
        """
        user = request.user.id
        place = gallery(user, query.tag)
        upper = f"({query.before}" if query.before else "+inf"
        found = await self.redis.zrevrangebyscore(place, upper, "-inf", start=0, num=query.limit + 1, withscores=True)
        ids = [id for id, _ in found[: query.limit]]
        looks = await self._looks(user, ids)
        names = [look["name"] for look in looks if look]
        files = {file.id: file for file in await self.files.catalog.find_all(user, names)}
        shown = []
        for id, look in zip(ids, looks, strict=True):
            if not look:
                await self.redis.zrem(place, id)
            elif bool(look["kept"]) != (id in files):  # a change was interrupted, or it was changed as a file
                await self._settle(user, id)
            if look and id in files:
                shown.append(show(files[id], look))
        before = int(found[query.limit - 1][1]) if len(found) > query.limit else 0
        return reply(200, {"pictures": shown, "before": before})

    async def list_marks(self, request: Request):
        """The tags of the user's pictures by name. 200 {"tags": [{"tag": str, "count": int}]}."""
        user = request.user.id
        tags = sorted(await self.redis.smembers(key("marks", user)))
        async with self.redis.pipeline(transaction=False) as pipe:
            for tag in tags:
                pipe.zcard(gallery(user, tag))
            counts = await pipe.execute()
        return reply(200, {"tags": [{"tag": t, "count": n} for t, n in zip(tags, counts, strict=True) if n]})

    async def list_bin(self, request: Request, query: Bin):
        """The last deleted pictures, and when; `before` leads to the next page. POST /files/erase erases them.

        200 {"pictures": [{id, name, size, width, height, tags, created, deleted}], "before": int}.
        """
        user = request.user.id
        found = await self.files.trash(user, query.before, query.limit)
        looks = await self._looks(user, [file.id for file, _ in found])
        shown = [
            show(file, look) | {"deleted": when // 1_000_000}
            for (file, when), look in zip(found, looks, strict=True)
            if look
        ]
        return reply(200, {"pictures": shown, "before": found.before})

    async def read_picture(self, request: Request, id: PictureId):
        """The picture itself. 200; 206; 304; 404 `picture`; 412 `changed`; 416 `range`."""
        file = await self._find(request.user.id, id)
        return await self.app.send_file(request, file) if file else reply(404, error="picture")

    async def read_thumb(self, request: Request, id: PictureId):
        """A small WebP of the picture, even while it is in the trash. 200 image/webp; 304; 404 `picture`; 503."""
        user = request.user.id
        file = await self._find(user, id) or await self.files.catalog.find_dead(user, id)
        if file is None:
            return reply(404, error="picture")
        headers = [("content-type", "image/webp"), ("etag", f'"{file.hash}"'), FOR_EVER]
        if etag_matches(request.headers.get(b"if-none-match"), f'"{file.hash}"'.encode()):
            return reply(304, b"", headers=headers)
        try:
            thumb = await self.thumbs.get(user, file.hash, lambda: self.files.read(user, file))
            return reply(200, thumb, headers=headers)
        except NoPicture:  # it was one when it came: the machine is overloaded
            return reply(503, error="unavailable", headers=[("retry-after", "5")])

    async def mark_picture(self, request: Request, id: PictureId, body: Marks):
        """Replace the picture's tags. 200 {}; 404 `picture`."""
        found = await self._settle(request.user.id, id, list(dict.fromkeys(body.tags)))
        return reply(200) if found else reply(404, error="picture")

    async def delete_picture(self, request: Request, id: PictureId):
        """Move the picture to the trash. 200 {}; 404 `picture`."""
        user = request.user.id
        file = await self._find(user, id)
        if file is None:
            return reply(404, error="picture")
        try:
            await self.files.delete(user, file.name, id)
        except (NoFile, Changed):  # another request was faster
            return reply(404, error="picture")
        finally:
            await self._settle(user, id)
        return reply(200)

    async def undelete_picture(self, request: Request, id: PictureId):
        """Take it out of the trash, under another name if its own is taken. 200 {}; 404 `picture`; 409 `exists`."""
        user = request.user.id
        (look,) = await self._looks(user, [id])
        try:
            for name in names_for(look["name"], look["number"]) if look else ():
                await self._enter(user, id, look | {"name": name})
                try:
                    await self.files.undelete(user, id, name)
                    return reply(200)
                except Exists:
                    continue
        except NoFile:
            return reply(404, error="picture")
        finally:
            await self._settle(user, id)
        return reply(409, error="exists") if look else reply(404, error="picture")

    async def erase_all(self, user: str) -> None:
        """Erase all that is kept of a user whose account is destroyed. Backlore erases the files."""
        ids = [*await self.redis.zrange(gallery(user), 0, -1), *await self.redis.zrange(key("binned", user), 0, -1)]
        tags = await self.redis.smembers(key("marks", user))
        names = [key("picture", user, id) for id in ids] + [gallery(user, tag) for tag in tags]
        kinds = ("marks", "binned", "lastpicture")
        await self.redis.delete(*names, gallery(user), *(key(kind, user) for kind in kinds))

    async def _looks(self, user: str, ids: list[str]) -> list[dict[str, str]]:
        """What is kept of these pictures; empty for an unknown id."""
        async with self.redis.pipeline(transaction=False) as pipe:
            for id in ids:
                pipe.hgetall(key("picture", user, id))
            return await pipe.execute()

    async def _find(self, user: str, id: str):
        """The file of a picture; None if it is not there."""
        name = await self.redis.hget(key("picture", user, id), "name")
        return await self._file(user, id, name) if name else None

    async def _file(self, user: str, id: str, name: str):
        found = await self.files.catalog.find_all(user, [name])
        return found[0] if found and found[0].id == id else None

    async def _enter(self, user: str, id: str, look: dict[str, Any]) -> None:
        """Write a picture down before its file is there, without its tags. It expires if the file never comes."""
        async with self.redis.pipeline() as pipe:
            pipe.hset(key("picture", user, id), mapping=look | {"kept": ""}).expire(key("picture", user, id), self.kept)
            pipe.zadd(gallery(user), {id: look["number"]})
            await pipe.execute()

    async def _settle(self, user: str, id: str, tags: list[str] | None = None) -> bool:
        """Bring a picture in line with the catalog, and give it these tags. Returns whether its file is there.

        Two at once would leave wrong indexes, so the second one starts anew.
        """
        async with self.redis.pipeline() as pipe:
            while True:
                try:
                    await pipe.watch(key("picture", user, id))
                    look = await pipe.hgetall(key("picture", user, id))
                    if not look:
                        return False
                    is_there = await self._file(user, id, look["name"]) is not None
                    now, _ = await pipe.time()  # redis' clock, because the nodes' clocks differ
                    pipe.multi()
                    self._index(pipe, user, id, look, tags if is_there else None, is_there, now)
                    await pipe.execute()
                    return is_there
                except WatchError:
                    continue

    def _index(
        self, pipe: Any, user: str, id: str, look: dict[str, str], tags: list[str] | None, is_there: bool, now: int
    ):
        old = decode(look["tags"])
        for tag in ("", *old):
            pipe.zrem(gallery(user, tag), id)
        pipe.zremrangebyscore(key("binned", user), 0, now)
        if not is_there:
            pipe.expire(key("picture", user, id), self.kept).zadd(key("binned", user), {id: now + self.kept})
            return
        new = old if tags is None else tags
        pipe.hset(key("picture", user, id), mapping={"tags": encode(new), "kept": "1"})
        pipe.persist(key("picture", user, id)).zrem(key("binned", user), id)
        for tag in ("", *new):
            pipe.zadd(gallery(user, tag), {id: look["number"]})
        if new:
            pipe.sadd(key("marks", user), *new)


encode = msgspec.json.encode
decode = msgspec.json.decode


def gallery(user: str, tag: str | None = "") -> str:
    """The key of the user's pictures, or of those with a tag."""
    return key("gallery", user, tag) if tag else key("gallery", user)


def names_for(name: str, number: int | str) -> Iterator[str]:
    """The names that a picture may get: its own without folders, then one with a number that no other picture has."""
    own = re.split(r"[/\\]", name)[-1] or "picture"
    yield own
    path = PurePosixPath(own)
    yield f"{path.stem[:50]} ({number}){path.suffix[:10]}"


def show(file: Any, look: dict[str, Any]) -> dict[str, Any]:
    """A picture as clients see it; `created` in seconds since 1970."""
    return {
        "id": file.id,
        "name": file.name,
        "size": file.size,
        "width": int(look["width"]),
        "height": int(look["height"]),
        "tags": decode(look["tags"]),
        "created": file.created // 1_000_000,
    }
