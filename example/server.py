"""Shoebox: pictures and notes with tags, each user's own. The table at the end is the whole application.

Pictures are in pictures.py. The keys of notes:

note:{k3f}…:ID      hash        text, tags (JSON), created, changed (seconds)
notes:{k3f}…        sorted set  ids of the user's notes
tagged:{k3f}…:TAG   sorted set  ids of the user's notes with the tag
tags:{k3f}…         set         tags that the user has ever given
lastnote:{k3f}…     string      the last id given
"""

import time
from typing import Annotated, Any

import msgspec
from config import CONFIG
from pictures import Pictures, Tag
from redis.exceptions import WatchError

from backlore import Backend, Payload, Request, between, key, length, page, private, public, reply, static

app = Backend(CONFIG)
redis = app.redis
pictures = Pictures(app)

Id = Annotated[int, between(1, 2**53)]


class Note(Payload):
    text: Annotated[str, length(1, 5000)]
    tags: Annotated[list[Tag], length(0, 10)] = []


class Search(Payload):
    tag: Tag | None = None
    before: Id = 2**53
    limit: Annotated[int, between(1, 100)] = 20


async def create_note(request: Request, body: Note):
    """Keep a note. 200 {"id": int}."""
    user = request.user.id
    id = await redis.incr(key("lastnote", user))
    await save(user, id, body, old_tags=[], created=int(time.time()))
    return reply(200, {"id": id})


async def list_notes(request: Request, query: Search):
    """The newest notes, with a tag, before an id. 200 {"notes": [{id, text, tags, created, changed}], "more": bool}."""
    user = request.user.id
    index = key("tagged", user, query.tag) if query.tag else key("notes", user)
    shown, before = [], query.before
    while len(shown) <= query.limit:  # until there are enough: some may be deleted between the two commands
        found = await redis.zrevrangebyscore(index, f"({before}", "-inf", start=0, num=query.limit + 1)
        async with redis.pipeline(transaction=False) as pipe:
            for id in found:
                pipe.hgetall(key("note", user, id))
            notes = await pipe.execute()
        shown += [show(id, note) for id, note in zip(found, notes, strict=True) if note]
        if len(found) <= query.limit:
            break
        before = found[-1]
    return reply(200, {"notes": shown[: query.limit], "more": len(shown) > query.limit})


async def read_note(request: Request, id: Id):
    """One note. 200 {id, text, tags, created, changed}; 404 `note`."""
    note = await redis.hgetall(key("note", request.user.id, id))
    return reply(200, show(id, note)) if note else reply(404, error="note")


async def edit_note(request: Request, id: Id, body: Note):
    """Replace text and tags. 200 {}; 404 `note`."""
    return await change(request.user.id, id, body)


async def delete_note(request: Request, id: Id):
    """Delete a note for good. 200 {}; 404 `note`."""
    return await change(request.user.id, id, None)


async def list_tags(request: Request):
    """The user's tags by name. 200 {"tags": [{"tag": str, "count": int}]}."""
    user = request.user.id
    tags = sorted(await redis.smembers(key("tags", user)))
    async with redis.pipeline(transaction=False) as pipe:
        for tag in tags:
            pipe.zcard(key("tagged", user, tag))
        counts = await pipe.execute()
    return reply(200, {"tags": [{"tag": t, "count": n} for t, n in zip(tags, counts, strict=True) if n]})


async def change(user: str, id: int, note: Note | None):
    """Replace or delete a note. Two changes at once would leave wrong tags, so the second one starts anew."""
    async with redis.pipeline() as pipe:
        while True:
            try:
                await pipe.watch(key("note", user, id))
                old = await pipe.hgetall(key("note", user, id))
                if not old:
                    return reply(404, error="note")
                pipe.multi()
                await save(user, id, note, msgspec.json.decode(old["tags"]), int(old["created"]), pipe)
                return reply(200)
            except WatchError:
                continue


async def save(user: str, id: int, note: Note | None, old_tags: list[str], created: int, pipe: Any = None):
    """Write or delete the note and its entries in the indexes, in one transaction."""
    pipe = pipe or redis.pipeline()
    for tag in old_tags:
        pipe.zrem(key("tagged", user, tag), id)
    if note is None:
        pipe.delete(key("note", user, id)).zrem(key("notes", user), id)
    else:
        tags = list(dict.fromkeys(note.tags))
        fields = {"text": note.text, "tags": msgspec.json.encode(tags), "created": created, "changed": int(time.time())}
        pipe.hset(key("note", user, id), mapping=fields)
        pipe.zadd(key("notes", user), {str(id): id})
        for tag in tags:
            pipe.sadd(key("tags", user), tag).zadd(key("tagged", user, tag), {str(id): id})
    await pipe.execute()


async def erase_notes(user: str) -> None:
    """Erase all that is kept of a user whose account is destroyed."""
    ids = await redis.zrange(key("notes", user), 0, -1)
    tags = await redis.smembers(key("tags", user))
    names = [key("note", user, id) for id in ids] + [key("tagged", user, tag) for tag in tags]
    await redis.delete(*names, key("notes", user), key("tags", user), key("lastnote", user))


def show(id: str | int, note: dict[str, str]) -> dict[str, Any]:
    """A note as clients see it."""
    return {
        "id": int(id),
        "text": note["text"],
        "tags": msgspec.json.decode(note["tags"]),
        "created": int(note["created"]),
        "changed": int(note["changed"]),
    }


app.identity.on_destroy.append(erase_notes)
app.routes(
    public.get("/", page("client/index.html")),
    public.get("/client/{path...}", static("client")),
    private.get("/pictures", pictures.list_pictures),
    private.post("/pictures", pictures.add_picture),
    private.get("/pictures/tags", pictures.list_marks),
    private.get("/pictures/trash", pictures.list_bin),
    private.get("/pictures/{id}", pictures.read_picture),
    private.get("/pictures/{id}/thumb", pictures.read_thumb),
    private.post("/pictures/{id}/tags", pictures.mark_picture),
    private.post("/pictures/{id}/delete", pictures.delete_picture),
    private.post("/pictures/{id}/undelete", pictures.undelete_picture),
    *app.file_routes(),
    private.get("/notes", list_notes),
    private.post("/notes", create_note),
    private.get("/notes/{id}", read_note),
    private.post("/notes/{id}", edit_note),
    private.post("/notes/{id}/delete", delete_note),
    private.get("/tags", list_tags),
)
