"""A Lua script that redis runs in one step."""

import hashlib
from typing import Any

from redis.exceptions import NoScriptError


class Script:
    """Called with a client, the keys and the arguments; sent by its hash, and whole when redis has forgotten it."""

    __slots__ = ("_sha", "_text")

    def __init__(self, text: str):
        self._text = text
        self._sha = hashlib.sha1(text.encode()).hexdigest()

    async def __call__(self, redis: Any, keys: list[str], *arguments: str | int | float) -> Any:
        """What the script returns. Raises RedisError."""
        try:
            return await redis.execute_command("EVALSHA", self._sha, len(keys), *keys, *arguments)
        except NoScriptError:
            return await redis.execute_command("EVAL", self._text, len(keys), *keys, *arguments)
