"""The redis client when things break: no command is doubled, left hanging, or answered by another's reply."""

import asyncio
import contextlib
import signal
import time

import pytest
from redis.asyncio import Redis as StockRedis

from backlore.clients.redis.client import Redis
from backlore.clients.redis.failures import Interrupted, Unavailable
from tests.kit.outcomes import outcomes, until


class Proxy:
    """A TCP server before the real one, that can cut a connection after so many bytes of replies."""

    def __init__(self, server):
        self.server, self.left, self.connections, self.writers, self.serving = server, None, 0, [], []

    async def __aenter__(self):
        self.listener = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.listener.close()
        for writer in self.writers:
            writer.close()
        await asyncio.gather(*self.serving)

    async def serve(self, reader, writer):
        self.connections += 1
        self.serving.append(asyncio.current_task())
        far_reader, far_writer = await asyncio.open_unix_connection(self.server.path)
        self.writers += [writer, far_writer]
        there = asyncio.create_task(self.pump(reader, far_writer, False))
        back = asyncio.create_task(self.pump(far_reader, writer, True))
        await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
        writer.close()
        far_writer.close()
        await asyncio.wait([there, back])

    async def pump(self, reader, writer, replies):
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if replies and self.left is not None:
                    data, self.left = data[: self.left], self.left - len(data)
                writer.write(data)
                if replies and self.left is not None and self.left <= 0:
                    self.left = None
                    await writer.drain()
                    return


def test_a_cancelled_task_does_not_shift_replies(server, run):
    async def main():
        async with Redis(unix_socket_path=server.path) as redis:
            await redis.ping()
            for round in range(20):

                async def ask(i):
                    return await redis.echo(f"{i}")

                tasks = [asyncio.create_task(ask(i)) for i in range(100)]
                for _ in range(round % 4):
                    await asyncio.sleep(0)
                for task in tasks[::3]:
                    task.cancel()
                answers = await outcomes(tasks)
                assert all(answers[i] == str(i) for i in range(100) if i % 3)
                assert any(isinstance(answer, asyncio.CancelledError) for answer in answers)

    run(main())


def test_a_cancelled_pipeline_is_whole(server, run):
    async def main():
        async with Redis(unix_socket_path=server.path) as redis:
            await redis.ping()
            for steps in range(6):
                task = asyncio.create_task(redis.pipeline().incr("a").incr("b").execute())
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                await outcomes([task])
                a, b = await redis.mget("a", "b")
                assert a == b
                assert await redis.echo("after") == "after"

    run(main())


def test_killed_in_flight_then_restarted(mortal, run):
    async def main():
        said = []
        redis = Redis(unix_socket_path=mortal.path, notify=lambda level, event, **_: said.append(event))
        await redis.ping()
        mortal.signal(signal.SIGSTOP)
        futures = [redis.incr("n") for _ in range(100)]
        await asyncio.sleep(0.05)
        mortal.kill()
        answers = await outcomes(futures)
        assert all(isinstance(answer, Interrupted) for answer in answers), answers[0]
        (refused,) = await outcomes([redis.incr("n")])
        assert isinstance(refused, Unavailable)
        assert said == ["redis.lost"]
        mortal.start()
        assert await until(lambda: redis.incr("n")) == 1
        assert said == ["redis.lost", "redis.back"]
        await redis.aclose()

    run(main())


def test_a_stopped_server_then_recovery(mortal, run):
    async def main():
        redis = Redis(unix_socket_path=mortal.path, timeout=0.4)
        await redis.set("k", "v")
        mortal.signal(signal.SIGSTOP)
        link = redis.node._link
        sent = [redis.get("k") for _ in range(10)]
        for _ in range(12):  # through the stall, the abort and the attempts to reconnect
            answers = await outcomes([redis.incr("n"), redis.pipeline().incr("m").execute()])
            assert all(isinstance(answer, Interrupted | Unavailable) for answer in answers), answers
        assert all(isinstance(answer, Interrupted) for answer in await outcomes(sent))
        assert redis.node._link is not link, "a silent connection is given up"
        mortal.signal(signal.SIGCONT)
        assert await until(lambda: redis.get("k")) == "v"
        await redis.aclose()

    run(main())


def test_a_blocking_command_on_a_stopped_server(mortal, run):
    async def main():
        redis = Redis(unix_socket_path=mortal.path, timeout=0.3)
        assert await redis.blpop("queue", timeout=0.01) is None
        mortal.signal(signal.SIGSTOP)
        (answer,) = await outcomes([redis.blpop("queue", timeout=0.1)])
        assert isinstance(answer, Interrupted)
        mortal.signal(signal.SIGCONT)
        await until(lambda: redis.rpush("queue", 1))
        assert await redis.blpop("queue", timeout=0.1) == ["queue", "1"]
        await redis.aclose()

    run(main())


def test_a_loop_that_stood_still_blames_nobody(server, run):
    async def main():
        async with Redis(unix_socket_path=server.path, timeout=0.3) as redis:
            await redis.set("k", "v")
            sent = asyncio.ensure_future(redis.get("k"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            time.sleep(1)  # noqa: ASYNC251  # some handler that doesn't know better
            assert await sent == "v"
            await asyncio.sleep(0.3)  # the watchdog sleeps
            unsent = redis.get("k")
            time.sleep(1)  # noqa: ASYNC251
            assert await unsent == "v"

    run(main())


def test_a_machine_that_stood_still_blames_nobody(mortal, run):
    """The loop and the server stop together, and the server comes back a little later."""

    async def main():
        redis = Redis(unix_socket_path=mortal.path, timeout=2)
        await redis.set("k", "v")
        mortal.signal(signal.SIGSTOP)
        sent = redis.get("k")
        await asyncio.sleep(0.2)  # the watchdog looks
        time.sleep(3)  # noqa: ASYNC251
        unsent = redis.get("k")
        await asyncio.sleep(0.3)
        mortal.signal(signal.SIGCONT)
        assert await outcomes([sent, unsent]) == ["v", "v"]
        await redis.aclose()

    run(main())


def test_a_short_stop_costs_nothing(mortal, run):
    async def main():
        redis = Redis(unix_socket_path=mortal.path, timeout=2)
        await redis.ping()
        mortal.signal(signal.SIGSTOP)
        futures = [redis.incr("n") for _ in range(10)]
        await asyncio.sleep(0.2)
        mortal.signal(signal.SIGCONT)
        assert await outcomes(futures) == list(range(1, 11))
        await redis.aclose()

    run(main())


def test_late_replies_keep_their_order(mortal, run):
    """Longer than `timeout`, shorter than what aborts the connection."""

    async def main():
        redis = Redis(unix_socket_path=mortal.path, timeout=0.6)
        await redis.ping()
        link = redis.node._link
        mortal.signal(signal.SIGSTOP)
        late = await outcomes([redis.echo(f"late{i}") for i in range(10)])
        assert all(isinstance(answer, Interrupted) for answer in late)
        (held,) = await outcomes([redis.incr("held")])
        assert isinstance(held, Unavailable), "nothing is sent into a stall"
        mortal.signal(signal.SIGCONT)
        assert await until(lambda: redis.echo("new")) == "new"
        assert await outcomes([redis.echo(f"{i}") for i in range(100)]) == [str(i) for i in range(100)]
        assert redis.node._link is link
        assert await redis.get("held") is None
        await redis.aclose()

    run(main())


@pytest.mark.parametrize("cut", [1, 5, 12, 40, 63])
def test_cut_in_the_middle_of_a_reply(server, run, cut):
    async def main():
        async with Proxy(server) as proxy:
            redis = Redis(host="127.0.0.1", port=proxy.port)
            await redis.set("k", "v" * 20)
            proxy.left = cut
            answers = await outcomes([redis.get("k") for _ in range(3)])
            whole = [answer for answer in answers if answer == "v" * 20]
            broken = [answer for answer in answers if isinstance(answer, Interrupted)]
            assert len(whole) == cut // 27 and len(whole) + len(broken) == 3
            assert await redis.get("k") == "v" * 20
            assert proxy.connections == 2
            await redis.aclose()

    run(main())


def test_unsent_commands_survive_a_reconnect(mortal, run):
    async def main():
        redis = Redis(unix_socket_path=mortal.path, timeout=10)
        await redis.ping()
        mortal.kill()
        await asyncio.sleep(0.1)  # it knows
        futures = [redis.incr("n") for _ in range(10)]
        batch = asyncio.create_task(redis.pipeline().get("n").incr("n").execute())
        await asyncio.sleep(0.1)
        assert not any(future.done() for future in futures)
        mortal.start()
        assert await outcomes(futures) == list(range(1, 11))
        assert await batch == ["10", 11]
        await redis.aclose()

    run(main())


def test_counters_agree_with_what_was_acknowledged(mortal, run):
    """acknowledged <= value <= acknowledged + interrupted, through kills of the connection and stops."""

    async def main():
        redis = Redis(unix_socket_path=mortal.path, timeout=0.3)
        killer = StockRedis(unix_socket_path=mortal.path)
        count = {"acknowledged": 0, "interrupted": 0, "unavailable": 0}
        done = False

        async def work():
            while not done:
                try:
                    await redis.incr("n")
                    count["acknowledged"] += 1
                except Interrupted:
                    count["interrupted"] += 1
                except Unavailable:
                    count["unavailable"] += 1

        tasks = [asyncio.create_task(work()) for _ in range(16)]
        for round in range(12):
            await asyncio.sleep(0.15)
            if round % 4 == 3:
                mortal.signal(signal.SIGSTOP)
                await asyncio.sleep(0.5)
                mortal.signal(signal.SIGCONT)
            else:
                await killer.client_kill_filter(_type="normal", skipme=True)
        done = True
        await outcomes(tasks)
        value = int(await until(lambda: redis.get("n")))
        assert count["acknowledged"] <= value <= count["acknowledged"] + count["interrupted"], (value, count)
        assert count["acknowledged"] > 100 and count["interrupted"] > 0
        await redis.aclose()
        await killer.aclose()

    run(main())


def test_close_waits_for_what_is_under_way(server, run):
    async def main():
        redis = Redis(unix_socket_path=server.path)
        futures = [redis.incr("n") for _ in range(10)]
        await redis.aclose()
        assert [future.result() for future in futures] == list(range(1, 11))

    run(main())
