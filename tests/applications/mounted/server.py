"""Somebody's FastAPI application behind our gates."""

from config import CONFIG
from fastapi import FastAPI, Request

from backlore import Backend, private, public

app = Backend(CONFIG)
fast = FastAPI()


@fast.get("/me/{word}")
async def me(word: str, request: Request) -> dict[str, str]:
    return {"word": word, "email": request.state.user.email}


@fast.post("/add")
async def add(numbers: list[int]) -> int:
    return sum(numbers)


app.routes(private.mount("/fast", fast), public.mount("/open", fast))
