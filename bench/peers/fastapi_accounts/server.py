"""Accounts on FastAPI with argon2id at the cost of ours, hashed in its thread pool, so that the loop goes on.

Redis keys: `email:ADDRESS` string, the user's id; `user:ID` hash; `session:ID` string, the user's id.
"""

import hmac
import os
import secrets

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from fastapi import FastAPI, HTTPException, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field
from redis.asyncio import Redis

TTL = 30 * 24 * 3600
SECRET = os.environ["SECRET"].encode()

redis = Redis(unix_socket_path=os.environ["REDIS"], decode_responses=True)
hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
app = FastAPI(openapi_url=None)


class Account(BaseModel):
    email: str = Field(max_length=254)
    password: str = Field(min_length=8, max_length=128)


@app.post("/auth/signup")
async def sign_up(body: Account):
    id, hashed = secrets.token_urlsafe(16), await run_in_threadpool(hasher.hash, body.password)
    if not await redis.set(f"email:{body.email}", id, nx=True):
        raise HTTPException(403, "email")
    await redis.hset(f"user:{id}", mapping={"email": body.email, "password": hashed})
    return {}


@app.post("/auth/login")
async def log_in(body: Account, response: Response):
    id = await redis.get(f"email:{body.email}")
    try:
        await run_in_threadpool(hasher.verify, await redis.hget(f"user:{id}", "password"), body.password)
    except VerificationError:
        raise HTTPException(403, "auth") from None
    session = secrets.token_urlsafe(16)
    await redis.set(f"session:{session}", id, ex=TTL)
    response.set_cookie("session", f"{session}.{sign(session)}", httponly=True, samesite="lax")
    return {"csrf": sign(f"csrf:{session}")}


def sign(text: str) -> str:
    return hmac.digest(SECRET, text.encode(), "sha256").hex()
