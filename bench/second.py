"""The second planting: fifteen defects of kinds that the first planting did not have. `planted.py --second` plants
them.

They were written down before the breaker's attacks on these kinds were run on any of them.
"""

SHOEBOX, PICTURES = "example/server.py", "example/pictures.py"
INCOMING, DELIVERY, FORMS, STAGES, HEADERS = (
    f"backlore/web/{name}.py" for name in ("incoming", "delivery", "forms", "stages", "fields")
)

NOTE = "    tags: Annotated[list[Tag], length(0, 10)] = []\n\n\nclass Search"
CREATE = '    id = await redis.incr(key("lastnote", user))\n'
FOUND = 'found = await redis.zrevrangebyscore(index, f"({before}", "-inf", start=0, num=query.limit + 1)'
FIELDS = '"created": created, "changed": int(time.time())}\n'
SHOWN = '        "created": int(note["created"]),\n'
LABELS = '''
class Label(Payload):
    label: Annotated[str, length(3, 20), matching("[a-z][a-z0-9-]*", "a word")]
    color: Literal["red", "green"] = "red"


async def create_label(request: Request, body: Label):
    """Take a label. 200 {}; 409 `taken`."""
    if not await redis.set(key("label", body.label), f"{request.user.id} {body.color}", nx=True):
        return reply(409, error="taken")
    await redis.sadd(key("labels", request.user.id), body.label)
    return reply(200)


async def list_labels(request: Request):
    """The user's labels. 200 {"labels": [{"label": str, "color": str}]}."""
    found = []
    for label in sorted(await redis.smembers(key("labels", request.user.id))):
        owner, _, color = (await redis.get(key("label", label)) or "").partition(" ")
        if owner == request.user.id:
            found.append({"label": label, "color": color})
    return reply(200, {"labels": found})


async def delete_label(request: Request, label: str):
    """Give a label back. 200 {}; 404 `label`."""
    await redis.srem(key("labels", request.user.id), label)
    return reply(200) if await redis.delete(key("label", label)) else reply(404, error="label")


async def erase_labels(user: str) -> None:
    for label in await redis.smembers(key("labels", user)):
        await redis.delete(key("label", label))
    await redis.delete(key("labels", user))


app.identity.on_destroy.append(erase_labels)
app.identity.on_destroy.append(erase_notes)
'''

# file, the text that it contains exactly once, the text that replaces it
SECOND: dict[str, list[tuple[str, str, str]]] = {
    # lists
    "the index of another clock": [
        (
            PICTURES,
            'pipe.zadd(gallery(user, tag), {id: look["number"]})',
            "pipe.zadd(gallery(user, tag), {id: now})",
        )
    ],
    "a deleted cursor ends the list": [
        (
            SHOEBOX,
            f"        {FOUND}\n",
            "        rank = await redis.zrevrank(index, str(before))\n"
            "        start = 0 if before == 2**53 else 10**9 if rank is None else rank + 1\n"
            "        found = await redis.zrevrange(index, start, start + query.limit)\n",
        )
    ],
    "pages by offset": [
        (SHOEBOX, "    before: Id = 2**53\n", "    offset: Annotated[int, between(0, 10**6)] = 0\n"),
        (SHOEBOX, "before = [], query.before\n", "before = [], query.offset\n"),
        (SHOEBOX, FOUND, "found = await redis.zrevrange(index, before, before + query.limit)"),
        (SHOEBOX, "        before = found[-1]\n", "        before += len(found)\n"),
    ],
    # types
    "crash on an early date": [
        (SHOEBOX, "import time\n", "import datetime\nimport time\n"),
        (
            SHOEBOX,
            "    before: Id = 2**53\n",
            "    before: Id = 2**53\n    since: datetime.date = datetime.date(1970, 1, 1)\n",
        ),
        (
            SHOEBOX,
            '    return reply(200, {"notes": shown[: query.limit],',
            "    since = datetime.datetime.combine(query.since, datetime.time()).timestamp()\n"
            '    shown = [note for note in shown if note["created"] >= since]\n'
            '    return reply(200, {"notes": shown[: query.limit],',
        ),
    ],
    "a decimal kept as a float": [
        (SHOEBOX, "import time\n", "import time\nfrom decimal import Decimal\n"),
        (SHOEBOX, NOTE, NOTE.replace("\n\n\n", "\n    price: Decimal = Decimal(0)\n\n\n")),
        (SHOEBOX, FIELDS, FIELDS.replace("}", ', "price": float(note.price)}')),
        (SHOEBOX, SHOWN, f'{SHOWN}        "price": note["price"],\n'),
    ],
    "no bound in a nested type": [
        (SHOEBOX, "class Note(Payload):\n", "class Place(Payload):\n    name: str\n\n\nclass Note(Payload):\n"),
        (SHOEBOX, NOTE, NOTE.replace("\n\n\n", "\n    place: Place | None = None\n\n\n")),
    ],
    "whose label it is": [
        (SHOEBOX, "from typing import Annotated, Any\n", "from typing import Annotated, Any, Literal\n"),
        (SHOEBOX, "length, page,", "length, matching, page,"),
        (SHOEBOX, "app.identity.on_destroy.append(erase_notes)\n", LABELS),
        (
            SHOEBOX,
            '    private.get("/tags", list_tags),\n',
            '    private.get("/tags", list_tags),\n'
            '    private.get("/labels", list_labels),\n    private.post("/labels", create_label),\n'
            '    private.post("/labels/{label}/delete", delete_label),\n',
        ),
    ],
    # pauses
    "the loop held by many keys": [
        (SHOEBOX, NOTE, NOTE.replace("\n\n\n", "\n    more: dict[str, Any] = {}\n\n\n")),
        (
            SHOEBOX,
            CREATE,
            "    seen: list[str] = []\n    for name in body.more:\n"
            f"        if name.lower() not in map(str.lower, seen):\n            seen.append(name)\n{CREATE}",
        ),
    ],
    # The defects below undo a mend.
    "held open over logout": [  # the session is checked again, but not before a body's last bytes
        (
            INCOMING,
            "            if request.is_late and not self._more:\n                await request.look_again()\n"
            "            elif request.is_late and now",
            "            if request.is_late and now",
        )
    ],
    "held open by a demoted admin": [  # the session is checked again, but not whether it is an admin's
        (STAGES, "again=(gatekeeper, admin_gatekeeper)", "again=(gatekeeper,)")
    ],
    "a stream after the reset": [  # a long reply never checks its session again
        (
            DELIVERY,
            "return_when=asyncio.FIRST_COMPLETED))[0]:\n                await request.glance()\n",
            "return_when=asyncio.FIRST_COMPLETED))[0]:\n                pass\n",
        )
    ],
    "a link after the reset": [  # a signed link is not bound to what a reset changes
        ("backlore/services/files/content.py", "(user, id, str(until), standing, name)", "(user, id, str(until), name)")
    ],
    "two csrf lines": [  # of several csrf token lines the last one counts
        (
            HEADERS,
            "        elif name in SINGLE or name.startswith(FAMILIES):",
            '        elif name == b"x-csrf-token":\n            found[name] = value\n'
            "        elif name in SINGLE or name.startswith(FAMILIES):",
        )
    ],
    "a file part anywhere": [  # where the type has no Upload, files are taken as if it had one
        (FORMS, "self._limits.upload if self._uploads else self._limits.body", "self._limits.upload"),
        (
            FORMS,
            "            if segment.name not in self._uploads:\n"
            '                raise Invalid(segment.name, "Takes no file.")\n',
            "",
        ),
    ],
    "a file input with nothing chosen": [  # becomes an empty Upload
        (
            FORMS,
            "            if not segment.filename and not segment.size:\n                return",
            "            if 0:\n                return",
        )
    ],
}
