"""The contest's application on Backlore: read the user, keep an item."""

from typing import Annotated

from config import CONFIG

from backlore import Backend, Payload, between, length, private, reply

app = Backend(CONFIG)
redis = app.redis


def item_key(user, title):  # hash, lives until deleted
    return f"item:{{{user[:3]}}}{user}:{title}"


class NewItem(Payload):
    title: Annotated[str, length(1, 100)]
    text: Annotated[str, length(1, 5000)]
    stars: Annotated[int, between(0, 5)]
    public: bool
    tags: Annotated[list[Annotated[str, length(1, 30)]], length(0, 10)]


async def me(request):
    """Who the user is. 200 {"id": str, "email": str, "admin": bool}."""
    user = request.user
    return reply(200, {"id": user.id, "email": user.email, "admin": user.admin})


async def create_item(request, body: NewItem):
    """Keep an item of the user, under its title. 200 {"ok": true}."""
    item = {
        "title": body.title,
        "text": body.text,
        "stars": body.stars,
        "public": int(body.public),
        "tags": ",".join(body.tags),
    }
    await redis.hset(item_key(request.user.id, body.title), mapping=item)
    return reply(200, {"ok": True})


app.routes(
    private.get("/me", me),
    private.post("/items", create_item),
)
