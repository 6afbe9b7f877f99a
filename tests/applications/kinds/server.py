"""An application with a route of every kind, for the tests."""

import asyncio
import os
from typing import Annotated, Any

from config import CONFIG

from backlore import (
    NEXT,
    Backend,
    Payload,
    Stream,
    Upload,
    admin,
    auth,
    avant,
    between,
    key,
    length,
    private,
    public,
    reply,
    static,
)

app = Backend(CONFIG)


class Inner(Payload):
    id: int
    name: Annotated[str, length(1, 10)] = "x"


class Everything(Payload):
    text: Annotated[str, length(1, 10)]
    count: Annotated[int, between(0, 9)] = 0
    ratio: float = 0.5
    flag: bool = False
    inner: Inner | None = None
    many: Annotated[list[Inner], length(0, 3)] = []
    open: dict[str, Any] = {}


class Form(Payload):
    title: Annotated[str, length(1, 100)]
    tags: list[str] = []
    file: Upload | None = None


class Page(Payload):
    size: Annotated[int, between(1, 100)] = 10
    tags: list[str] = []


async def echo(request, body: Everything):
    return reply(200, body)


class Short(Payload):
    text: str
    count: int = 0


async def short(request, body: Short):
    """Passes what is long on to a route of another type."""
    return NEXT if len(body.text) > 3 else reply(200, {"short": body.text})


async def form(request, body: Form):
    file = body.file
    seen = None if file is None else [file.name, file.type, file.size, len(file.path.read_bytes())]
    return reply(200, {"title": body.title, "tags": body.tags, "file": seen, "path": file and str(file.path)})


class Pictures(Payload):
    pictures: list[Upload] = []


class Picture(Payload):
    file: Upload


async def pictures(request, body: Pictures):
    return reply(200, {"pictures": len(body.pictures)})


async def picture(request, body: Picture):
    return reply(200, {"size": body.file.size})


async def form_fails(request, body: Form):
    raise RuntimeError(str(body.file and body.file.path))


async def measure(request, body: Stream):
    """How many bytes came; kept, so that it can be seen that they did."""
    size = 0
    async for chunk in body:
        size += len(chunk)
    await app.redis.incrby(key("count", "abc"), size)
    return reply(200, {"size": size})


async def query(request, query: Page):
    return reply(200, query)


async def whole(request, id: int):
    return reply(200, {"id": id})


async def word(request, word: str):
    return reply(200, {"word": word})


async def rest(request, rest: str):
    return reply(200, {"rest": rest})


async def passes(request):
    request.scope["passed"] = True
    return NEXT


async def after(request):
    return reply(200, {"passed": request.scope.get("passed", False)})


async def nothing(request):
    return None


async def fails(request):
    raise RuntimeError("the secret of the universe")


async def origin(request):
    return reply(200, {"origin": request.origin})


async def who(request):
    return reply(200, {"email": request.user.email})


async def slow(request):
    await asyncio.sleep(1)
    return reply(200, {"pid": os.getpid()})


async def pid(request):
    return reply(200, {"pid": os.getpid()})


async def count(request):
    return reply(200, {"count": await app.redis.incr(key("count", "abc"))})


async def crash(request):
    """An exception in the loop, outside of any handler."""
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    return reply(200)


TEAPOT = reply(418, error="teapot", headers=[("x-kind", "pot")])


async def teapot(request):
    return TEAPOT


async def split_header(request):
    return reply(200, headers=[("x-a", "b\r\nx-evil: 1")])


async def early(request):
    """Runs before everything on its path."""
    return reply(200, {"avant": True}) if request.header("x-early") else NEXT


async def read(receive):
    body, more = b"", True
    while more:
        message = await receive()
        assert message["type"] == "http.request"
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


async def mounted(scope, receive, send):
    user = scope["state"].get("user")
    body = f"{scope['root_path']} {scope['path']} {user and user.email}".encode()
    if scope["path"].endswith("/fail"):
        raise RuntimeError("mounted")
    if scope["path"].endswith("/read"):
        await app.redis.incrby(key("count", "abc"), len(await read(receive)))
    headers = [(b"content-type", b"text/plain")]
    if scope["path"].endswith("/framed"):
        headers += [(b"Content-Length", b"%d" % len(body)), (b"Transfer-Encoding", b"chunked")]
    if scope["path"].endswith("/split"):
        headers.append((b"x-name", b"a\r\nset-cookie: a=b"))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


app.routes(
    avant.route("*", "/early/{rest...}", early),
    public.get("/early/{rest...}", rest),
    avant.route("*", "/echo", passes),
    public.post("/echo", echo),
    public.post("/twice", short),
    public.post("/twice", echo),
    public.post("/form", form),
    public.post("/form/fails", form_fails),
    public.post("/pictures", pictures),
    public.post("/picture", picture),
    public.post("/measure", measure),
    public.get("/query", query),
    public.get("/whole/{id}", whole),
    public.get("/word/{word}", word),
    public.get("/word/fixed", after),
    public.get("/rest/{rest...}", rest),
    public.get("/passes", passes),
    public.get("/passes", after),
    public.get("/passes/none", passes),
    public.get("/nothing", nothing),
    public.get("/fails", fails),
    public.get("/origin", origin),
    public.get("/slow", slow),
    public.get("/pid", pid),
    public.post("/count", count),
    public.get("/crash", crash),
    public.get("/teapot", teapot),
    public.get("/split-header", split_header),
    public.get("/files/{path...}", static("files")),
    public.mount("/open", mounted),
    private.mount("/closed", mounted),
    private.get("/who", who),
    private.post("/echo/private", echo),
    private.post("/form/private", form),
    private.post("/measure/private", measure),
    private.post("/twice/private", short),
    private.post("/twice/private", echo),
    private.route("PUT", "/who", who),
    auth.get("/passes/stage", passes),
    private.get("/passes/stage", who),
    admin.get("/admin/who", who),
    admin.post("/admin/who", who),
)
