"""An application with whatever is hard to say in another language, and an upload."""

from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

from config import CONFIG
from msgspec import field

from backlore import Backend, Payload, Upload, between, length, matching, private, public, reply

app = Backend(CONFIG)


class Colour(Enum):
    RED = "red"
    ODD = 'it\'s "odd"'


class Cat(Payload, tag="cat"):
    lives: Annotated[int, between(0, 9)]


class Dog(Payload, tag="dog"):
    name: str


class Tree(Payload):
    """Ends comments: */ and texts: \"\"\" and has \\backslashes\\ and ${dollars}. Says "so\""""

    children: list["Tree"] = []


class Error(Payload, kw_only=True):
    """Named like a type of every language."""

    class_: str = field(name="class")
    dashed: int = field(name="with-dash and space", default=1)
    größe: float = 1.5


class Everything(Payload, kw_only=True):
    pet: Cat | Dog
    colour: Colour
    level: Literal["low", "high"] | Literal[1, 2] | None = None
    maybe: Annotated[str, length(1, 5)] | None = None
    id: UUID
    at: datetime
    price: Decimal
    pair: tuple[int, str] = (1, "x")
    table: dict[str, list[int | None]] = {}
    anything: Any = None
    tree: Tree
    errors: list[Error] = []
    word: Annotated[str, matching(r"[^*/]+", "a word */ without those")] = "x"


class Form(Payload, kw_only=True):
    title: str
    tags: list[str] = []
    file: Upload
    more: Upload | None = None


class Search(Payload):
    class_: str = field(name="class", default="")
    yes: bool = False
    many: list[str] = []


async def everything(request, body: Everything):
    """Give it back. 200 {"class": str, "with-dash": int, "nested": [{"and": {"so": bool}}], "rest": ...}."""
    return reply(200, {"class": body.colour.value, "with-dash": 1, "nested": [{"and": {"so": True}}], "rest": body.id})


async def upload(request, body: Form):
    """Say what came. 200 {"title": str, "tags": [str], "name": str, "type": str, "size": int}."""
    file = body.file
    return reply(200, {"title": body.title, "tags": body.tags, "name": file.name, "type": file.type, "size": file.size})


async def search(request, query: Search):
    """Give it back. 200 {"class": str, "yes": bool, "many": [str]}."""
    return reply(200, {"class": query.class_, "yes": query.yes, "many": query.many})


async def delete(request, id: Annotated[int, between(1, 2**53)], path: str):
    """Give it back. 200 {"id": int, "path": str}."""
    return reply(200, {"id": id, "path": path})


async def call(request, name: str):
    """Give it back. 200 {"name": str}."""
    return reply(200, {"name": name})


async def grüße(request):
    """A list. 200 [{"a": int}]."""
    return reply(200, [{"a": 1}])


async def elsewhere(request):
    """No JSON. 200 text/html."""
    return reply(200, {})


app.routes(
    public.post("/everything", everything),
    private.post("/upload", upload),
    public.get("/search", search),
    public.get("/delete/{id}/{path...}", delete),
    public.get("/class/{name}", call),
    public.get("/lambda/{name}", call),
    public.get("/hello", grüße),
    public.get("/html", elsewhere),
)
