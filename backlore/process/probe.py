"""`python -m backlore.process.probe CONTEXT` checks that we can work with the configured redis.

A problem is one line on standard error, a warning one on standard output.

It is a process of its own so that the master needs no client.
"""

import asyncio
import sys

import msgspec
from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError, ResponseError

from backlore.connections import connect
from backlore.core.config import Context, Settings, enter, load
from backlore.process.program import OLDEST, version

LOADING_LIMIT = 600  # seconds
UNSAFE = (
    "redis at {place} is {it}: if it is killed inside a transaction, what it acknowledges after its next start may be "
    "lost at the start after that. Run redis-check-aof --fix before you start it after a crash, or use Valkey 9.1 or "
    "newer."
)


async def probe(settings: Settings) -> str:
    """What is wrong with the redis and what to do, or "" when nothing is. Prints warnings."""
    known = settings.config.own_redis
    assert known is not None
    place = known.path or f"{known.host}:{known.port}"
    redis = connect(settings)
    try:
        for second in range(LOADING_LIMIT):
            try:
                server = await redis.info("server")
                break
            except BusyLoadingError:
                if second == 0:
                    print(f"redis at {place} is still loading its data: waiting", file=sys.stderr, flush=True)
                await asyncio.sleep(1)
        else:
            return f"redis at {place} has been loading its data for {LOADING_LIMIT} s: start again when it is done."
        number = str(server.get("valkey_version", server["redis_version"]))
        it = version(server.get("server_name", "redis"), number)
        if it.number < OLDEST:
            return f"redis at {place} is {number}: {OLDEST[0]}.{OLDEST[1]} or newer is needed."
        if (await redis.info("replication"))["role"] != "master":
            return f"redis at {place} is a read-only replica: name its primary in config.py."
        if not it.is_sound and (await redis.info("persistence"))["aof_enabled"]:
            print(UNSAFE.format(place=place, it=it))
    except AuthenticationError:
        return f"redis at {place} refuses the login: check username in config.py, redis_password in secret.py."
    except ResponseError as error:
        return f"redis at {place} refuses: {error}"
    except (RedisError, OSError) as error:
        return f"redis at {place} can't be reached ({error}): is it running, are host and port in config.py right?"
    finally:
        await redis.aclose()
    return ""


def main() -> None:
    """Exit status 0, or 1 with the reason on standard error."""
    enter(msgspec.json.decode(sys.argv[1], type=Context))
    if trouble := asyncio.run(probe(load())):
        sys.exit(trouble)


if __name__ == "__main__":
    main()
