"""The address of a redis server, and the first commands on a connection to it."""

import asyncio
from ssl import SSLContext
from typing import NamedTuple

from backlore.clients.redis.link import Arguments, Link, keep_alive


class Address(NamedTuple):
    """`path` of a unix socket, or `host` and `port`; `ssl`: a context for TLS, else None.

    `username` and `password` log us in; `db` is the database; `name` is what we call our connections.
    """

    path: str | None = None
    host: str = "localhost"
    port: int = 6379
    username: str | None = None
    password: str | None = None
    ssl: SSLContext | None = None
    db: int = 0
    name: str = "backlore"

    def __repr__(self) -> str:
        return self.path or f"{self.host}:{self.port}"  # never the password

    def __str__(self) -> str:
        return repr(self)

    def greeting(self) -> list[Arguments]:
        """The first commands on a new connection."""
        known = self.username or self.password
        auth = ("AUTH", self.username or "default", self.password or "") if known else ()
        first = ("HELLO", "3", *auth, "SETNAME", self.name)
        return [first, ("SELECT", self.db)] if self.db else [first]

    async def connect(self, link: Link) -> None:
        """Connect a link. Raises OSError."""
        loop = asyncio.get_running_loop()
        if self.path:
            await loop.create_unix_connection(lambda: link, self.path, ssl=self.ssl)
        else:
            await loop.create_connection(lambda: link, self.host, self.port, ssl=self.ssl)
            keep_alive(link.transport)
