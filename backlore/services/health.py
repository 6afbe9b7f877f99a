"""Health: whether this server works, for a load balancer or a person."""

from redis.asyncio import Redis

from backlore.web.reply import Reply, reply
from backlore.web.request import Request
from backlore.web.routes import Route
from backlore.web.stages import public


class Health:
    """A server is healthy if it reaches redis within the client's time limit."""

    def __init__(self, redis: Redis):
        self._redis = redis

    def routes(self) -> list[Route]:
        """For the route table."""
        return [public.get("/health", self._health)]

    async def _health(self, request: Request) -> Reply:
        """200 {"ok": true}; 503 `unavailable`."""
        await self._redis.ping()
        return reply(200, {"ok": True})
