"""The contest's application on FastAPI: dependencies for session and csrf, pydantic for the payload.

Redis keys: `session:ID` string, the user's id, lives TTL seconds after its last use; `user:ID` hash;
`item:USER:TITLE` hash. The csrf token is bound to the session by an HMAC (OWASP), so that checking it costs
no round trip.
"""

import hashlib
import hmac
import os
import secrets
from typing import Annotated, NamedTuple

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from redis.asyncio import Redis

TTL = 30 * 24 * 3600
SECRET = os.environ["SECRET"].encode()

redis = Redis(unix_socket_path=os.environ["REDIS"], decode_responses=True)
app = FastAPI(openapi_url=None)


class NewUser(BaseModel):
    email: str


class NewItem(BaseModel):
    model_config = ConfigDict(extra="forbid")

    title: Annotated[str, Field(min_length=1, max_length=100)]
    text: Annotated[str, Field(min_length=1, max_length=5000)]
    stars: Annotated[int, Field(ge=0, le=5)]
    public: bool
    tags: Annotated[list[Annotated[str, Field(min_length=1, max_length=30)]], Field(max_length=10)]


class User(BaseModel):
    id: str
    email: str
    admin: bool


class Visit(NamedTuple):
    session: str
    user: User


def sign(purpose: bytes, session: str) -> str:
    return hmac.digest(SECRET, purpose + session.encode(), "sha256").hex()


def same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode(), right.encode())


async def gatekeeper(request: Request) -> Visit:
    session, _, signature = request.cookies.get("session", "").partition(".")
    if not same(signature, sign(b"cookie:", session)):
        raise HTTPException(403, "session")
    id = await redis.getex(f"session:{session}", ex=TTL)
    if id is None:
        raise HTTPException(403, "session")
    return Visit(session, User.model_validate(await redis.hgetall(f"user:{id}")))


async def csrf(request: Request, visit: Annotated[Visit, Depends(gatekeeper)]) -> Visit:
    if not same(request.headers.get("x-csrf-token", ""), sign(b"csrf:", visit.session)):
        raise HTTPException(403, "csrf")
    return visit


def tagged(request: Request, body: bytes) -> Response:
    """A JSON reply with a strong ETag over its body, or 304 when the client has it."""
    etag = f'"{hashlib.sha1(body).hexdigest()}"'
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers={"etag": etag})
    return Response(body, media_type="application/json", headers={"etag": etag})


@app.post("/signup")
async def sign_up(body: NewUser, response: Response):
    id, session = secrets.token_urlsafe(16), secrets.token_urlsafe(16)
    await redis.hset(f"user:{id}", mapping={"id": id, "email": body.email, "admin": "0"})
    await redis.set(f"session:{session}", id, ex=TTL)
    cookie = f"{session}.{sign(b'cookie:', session)}"
    response.set_cookie("session", cookie, httponly=True, samesite="lax")
    return {"csrf": sign(b"csrf:", session)}


@app.get("/me")
async def me(request: Request, visit: Annotated[Visit, Depends(gatekeeper)]) -> Response:
    return tagged(request, visit.user.model_dump_json().encode())


@app.post("/items")
async def create_item(body: NewItem, visit: Annotated[Visit, Depends(csrf)]) -> dict[str, bool]:
    item = {
        "title": body.title,
        "text": body.text,
        "stars": body.stars,
        "public": int(body.public),
        "tags": ",".join(body.tags),
    }
    await redis.hset(f"item:{visit.user.id}:{body.title}", mapping=item)
    return {"ok": True}
