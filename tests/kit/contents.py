"""Users' files over HTTP, in few words."""

from urllib.parse import quote

import httpx

from tests.conftest import User


def put(user: User, name: str, content: bytes, **fields: str) -> httpx.Response:
    return user.post("/files", files={"file": ("f", content, "x/y")}, data={"name": name, **fields})


def path(name: str) -> str:
    return f"/files/content/{quote(name)}"
