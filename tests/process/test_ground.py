"""What a run stands on: its data folder, its standard streams, its terminal, the CPUs and folders it is given."""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from backlore.clients.disk import Disk
from backlore.core import temporary
from backlore.core.config import make_secret
from backlore.core.cpus import usable
from backlore.core.notify import Notify
from backlore.process.watch import Watch
from tests.conftest import ROOT, Server, free_port, serving, words_of

APPLICATION = """
from backlore import Backend
from config import CONFIG

app = Backend(CONFIG)
"""


def backlore(*words: object, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "backlore.cli", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)


def refused(*words: object) -> str:
    """The one line that a command gives instead of doing something."""
    got = backlore(*words)
    assert got.returncode in (1, 2) and "Traceback" not in got.stderr and not got.stdout, got.stdout + got.stderr
    return got.stderr.splitlines()[-1]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small application."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "config.py").write_text('CONFIG = {"name": "ground"}\n')
    (folder / "server.py").write_text(APPLICATION)
    return folder


def keep(*files: Path) -> None:
    """Files of somebody else's, who has had them for long."""
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine")
        os.utime(file, (time.time() - 30 * 86400,) * 2)


# The data folder: nothing is deleted that we have not made

VERBS = ["run", "routes", "shell", "check", "user list", "files spread", "files list a@example.com", "files serve"]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("empty", ["", "   "])
def test_an_empty_option_is_refused(verb: str, empty: str, source: Path) -> None:
    """`--data "$UNSET"` would be the application's own folder, whose uploads/ a start once deleted."""
    keep(source / "uploads" / "mine")
    before, after = verb.split()[:1], verb.split()[1:]
    if verb != "user list":
        before, after = verb.split(), []
    options = {"--app": empty} if verb == "routes" else {"--data": empty, "--app": empty}
    options |= {"--host": empty} if verb in ("run", "files serve") else {}
    for option, value in options.items():
        given = {"--app": source, option: value}
        words = [word for pair in given.items() for word in pair]
        assert f"Invalid value for '{option}'" in refused(*before, *words, *after)
    assert (source / "uploads" / "mine").exists()


@pytest.mark.parametrize("verb", ["test", "break", "client py"])
def test_an_empty_application_is_refused(verb: str) -> None:
    assert "Invalid value for '--app'" in refused(*verb.split(), "--app", "")


@pytest.mark.parametrize("name", ["data", "host"])
@pytest.mark.parametrize("empty", ["", " ", "\n"])
def test_an_empty_setting_is_refused(name: str, empty: str, source: Path) -> None:
    (source / "config.py").write_text(f"CONFIG = { ({'name': 'ground'} | {name: empty})!r}\n")
    assert f"config.py: {name}: Should be a text that is not empty." in refused("run", "--app", source)


@pytest.mark.parametrize("data", [".", "..", "/", "../source/."])
def test_the_folder_of_the_application_is_none_for_data(data: str, source: Path) -> None:
    assert "holds the application" in refused("run", "--app", source, "--data", data)
    assert sorted(each.name for each in source.iterdir() if each.name != "__pycache__") == [
        "config.py",
        "secret.py",
        "server.py",
    ]


def test_what_others_keep_in_the_data_folder_stays(source: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    mine = [
        data / name
        for name in (
            "uploads/mine",
            "note.txt",
            f"{temporary.FOLDER}/mine",
            f"{temporary.FOLDER}/{temporary.PREFIX}longer-than-ours",
        )
    ]
    left = data / temporary.FOLDER / f"{temporary.PREFIX}abc_1234"
    keep(*mine, left)
    with serving(source, tmp_path, workers=1, data=data):
        assert not left.exists()
    assert all(each.read_text() == "mine" for each in mine)


def test_a_data_folder_of_somebody_else(source: Path, tmp_path: Path) -> None:
    for number, (name, said) in enumerate(
        [("lock", "`lock` of somebody else's"), ("redis/dump.rdb", "holds redis"), ("files/mine", "holds files")]
    ):
        data = tmp_path / str(number)
        keep(data / name, data / "note.txt")
        assert said in refused("run", "--app", source, "--data", data)
        assert (data / name).read_text() == "mine" and not (data / "lock").is_dir()
    keep(tmp_path / "file")
    assert "can't be written" in refused("run", "--app", source, "--data", tmp_path / "file")
    assert "can't be written" in refused("run", "--app", source, "--data", tmp_path / "file" / "below")


def test_sweeping_leaves_what_has_no_name_of_ours(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    disk.prepare()
    ours, mine = tmp_path / "drafts" / ("a1" * 13), tmp_path / "drafts" / "mine.txt"
    (tmp_path / "drafts" / ("b2" * 13)).mkdir()
    keep(ours, mine)
    assert disk._sweep() == 1
    assert mine.exists() and not ours.exists()
    keep(tmp_path / "contents" / "mi" / "mine.txt")
    (tmp_path / "contents" / "loop").symlink_to("loop")
    assert [each.name for each in disk._names("")] == ["mine.txt"]


def test_a_secret_is_made_beside_what_a_killed_process_left(source: Path) -> None:
    left = source / f".secret.{os.getpid()}"
    keep(left)
    make_secret(source / "secret.py")
    assert (source / "secret.py").stat().st_mode & 0o777 == 0o600
    assert left.exists() and len(list(source.iterdir())) == 4


# Standard streams: the loss of one ends nothing


@pytest.fixture
def server(source: Path, tmp_path: Path) -> Iterator[Server]:
    """Not started yet."""
    made = Server(source, tmp_path, workers=1)
    yield made
    if hasattr(made, "process"):
        made.kill()


def answers(server: Server) -> None:
    """Until it serves."""
    until = time.monotonic() + 30
    while True:
        assert server.process.poll() is None and time.monotonic() < until, server.said()
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{server.url}/health").status_code == 200:
                return
        time.sleep(0.05)


def reloads(master: psutil.Process) -> None:
    """It takes SIGHUP for a reload."""
    workers = [each for each in master.children(recursive=True) if "serve" in words_of(each)]
    master.send_signal(signal.SIGHUP)
    _, alive = psutil.wait_procs(workers, 20)
    assert workers and not alive and master.is_running()


@pytest.mark.parametrize("streams", ["2>&-", "1>&-", "0<&-", "<&- >&- 2>&-", ">/dev/full 2>/dev/full", "2>/dev/full"])
def test_it_serves_whatever_becomes_of_its_streams(server: Server, streams: str) -> None:
    server.process = subprocess.Popen(["sh", "-c", f'exec "$@" {streams}', "sh", *server.words], start_new_session=True)
    answers(server)
    reloads(psutil.Process(server.process.pid))  # which is told
    answers(server)
    assert (server.data / "lock").read_text() == str(server.process.pid)  # no stream has become this file
    assert server.stop() == 0


def test_a_reader_that_goes_away_ends_nothing(server: Server) -> None:
    reader, writer = os.pipe()
    server.process = subprocess.Popen(server.words, stdout=writer, stderr=writer, start_new_session=True)
    os.close(writer)
    os.close(reader)
    answers(server)
    assert server.stop() == 0


def test_each_sink_survives_itself_and_the_others() -> None:
    """Also where standard error, on which it would be told, is full."""
    program = (
        "import os, sys; from backlore.core.notify import Notify, console\n"
        "def leaves(record): sys.exit(1)\n"
        "heard = []; notify = Notify(console, leaves, heard.append)\n"
        "for number in range(3): notify('info', 'x', number=number); notify.flush()\n"
        "os.write(1, str([each['number'] for each in heard]).encode()); os._exit(0)"
    )
    with open("/dev/full", "wb") as full:
        got = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=full, timeout=20)
    assert got.stdout == b"[0, 1, 2]"


def test_notify_never_raises_whatever_it_is_given() -> None:
    class Mute:
        def __str__(self) -> str:
            raise RuntimeError("no")

    records: list[dict[str, Any]] = []
    notify = Notify(records.append)
    notify("info", "x", fields={Mute(): 1})
    notify.flush()
    assert records[0]["event"] == "x" and records[0]["unreadable"] == "RuntimeError"


# The terminal


def start_at_terminal(server: Server, leader: str, *, hangup: Any = signal.SIG_DFL) -> int:
    """Start it at a terminal of its own, as what a shell runs; the other end of the terminal."""
    ours, theirs = os.openpty()

    def own_it() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, hangup)

    words = ["sh", "-c", leader, "sh", *server.words]
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    server.process = subprocess.Popen(words, **streams, start_new_session=True, preexec_fn=own_it)
    os.close(theirs)
    answers(server)
    return ours


def master_of(server: Server) -> psutil.Process:
    """The process of `backlore run`, be it the shell's child or in its place."""
    family = [psutil.Process(server.process.pid), *server.family()]
    return next(each for each in family if "run" in words_of(each) and "sh" not in words_of(each)[0][-2:])


@pytest.mark.parametrize("leader", ['exec "$@"', '"$@"; true'])
def test_closing_the_terminal_ends_the_run(server: Server, leader: str) -> None:
    terminal = start_at_terminal(server, leader)
    family = server.family()
    reloads(master_of(server))  # the terminal is there: SIGHUP means what it did
    family += server.family()
    os.close(terminal)
    server.process.wait(20)
    _, alive = psutil.wait_procs(family, 20)
    assert not alive


@pytest.mark.parametrize(
    ("leader", "hangup"), [('exec "$@"', signal.SIG_IGN), ('set -m; "$@" & wait', signal.SIG_DFL)], ids=["nohup", "&"]
)
def test_what_was_told_to_outlive_its_terminal_does(server: Server, leader: str, hangup: Any) -> None:
    terminal = start_at_terminal(server, leader, hangup=hangup)
    master = master_of(server)
    os.close(terminal)
    try:
        reloads(master)
    finally:
        family = master.children(recursive=True)
        master.terminate()
        _, alive = psutil.wait_procs([master, *family], 20)
    assert not alive


# The place it runs at


def test_the_cpus_that_we_may_use(tmp_path: Path) -> None:
    program = "from backlore.core.cpus import usable; print(usable())"
    bound = str(min(os.sched_getaffinity(0)))
    got = subprocess.run(["taskset", "-c", bound, sys.executable, "-c", program], capture_output=True, text=True)
    assert got.stdout == "1\n", got.stderr
    many = len(os.sched_getaffinity(0))
    ours, groups = tmp_path / "ours", tmp_path / "groups"

    def given(said: str, files: dict[str, str]) -> int:
        ours.write_text(said)
        shutil.rmtree(groups, ignore_errors=True)
        for name, text in files.items():
            (groups / name).parent.mkdir(parents=True, exist_ok=True)
            (groups / name).write_text(text)
        return usable(groups, ours)

    deep = "0::/a.slice/b.service\n"
    for none in ({}, {"cpu.max": "max 100000\n"}, {"cpu.max": "rubbish"}, {"cpu.max": ""}):
        assert given(deep, none) == given("", none) == many
    assert given(deep, {"a.slice/b.service/cpu.max": "100 100000\n"}) == 1
    assert given(deep, {"a.slice/cpu.max": "50000 100000\n", "a.slice/b.service/cpu.max": "max 100000\n"}) == 1
    assert given(deep, {"a.slice/cpu.max": "900000 100000\n"}) == min(many, 9)
    first = "5:cpuacct,cpu:/docker/abc\n3:memory:/docker/abc\n"
    for place in ("cpu", "cpu/docker/abc"):  # as a container sees its own, and as the host does
        period = {f"{place}/cpu.cfs_period_us": "100000\n"}
        assert given(first, period | {f"{place}/cpu.cfs_quota_us": "100000\n"}) == 1
        assert given(first, period | {f"{place}/cpu.cfs_quota_us": "-1\n"}) == many


def test_links_that_lead_nowhere_end_nothing(source: Path, tmp_path: Path) -> None:
    for name in ("loop.py", "loop", "static/loop.html"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).symlink_to(Path(name).name)
    (source / "gone.py").symlink_to("nowhere.py")
    serves = "\nfrom backlore import public, static\napp.routes(public.get('/{path...}', static('static')))\n"
    (source / "server.py").write_text(APPLICATION + serves)
    watch = Watch(source)
    (source / "later.py").symlink_to("later.py")
    assert not watch.changed() and {Path(each).name for each in watch._look()} >= {"server.py"}
    shutil.copytree(source, tmp_path / "app", symlinks=True)  # from where it is served
    with serving(source, tmp_path, workers=1) as server:
        assert httpx.get(f"{server.url}/loop.html").status_code == 404


def test_a_loop_for_data_is_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for words in (["--data", tmp_path / "loop"], ["--data", tmp_path / "loop" / "below"]):
        assert "can't be written" in refused("run", "--app", source, *words)
    assert "holds no application" in refused("run", "--app", tmp_path / "loop")


@pytest.mark.parametrize("host", ["::1", "::"])
def test_addresses_of_ipv6(host: str, source: Path, tmp_path: Path) -> None:
    server = Server(source, tmp_path, workers=1)
    server.words += ["--host", host]
    try:
        server.start()
        assert httpx.get(f"http://[::1]:{server.port}/health").json() == {"ok": True}
        assert f"serves on http://[{host}]:{server.port}\n" in server.said()
        assert f"docs    http://[::1]:{server.port}/docs?key=" in server.said()
        page = httpx.get(f"http://[::1]:{server.port}/docs", params={"key": server.key()}, follow_redirects=True)
        assert page.status_code == 200 and page.url == f"http://[::1]:{server.port}/docs"
        server.stop()
    finally:
        server.kill()


@pytest.mark.parametrize("host", ["a..b", "nowhere.invalid", "::g", "203.0.113.1"])
def test_a_host_that_is_none_of_ours(host: str, source: Path) -> None:
    assert "Can't listen on " in refused("run", "--app", source, "--host", host, "--port", free_port())


def test_a_checkout_in_a_folder_with_a_space_and_by_a_link(tmp_path: Path) -> None:
    """Whose path is too long for the first line of a script, too. What is installed is borrowed from ours."""
    checkout = tmp_path / "with a space" / ("long" * 40)
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(".*[!p]", "tests", "bench"))
    shutil.copy(ROOT / ".setup", checkout)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", checkout / ".venv"], check=True)
    site = next(checkout.glob(".venv/lib/*/site-packages"))
    (site / "borrowed.pth").write_text(f"{checkout}\n{sysconfig.get_path('purelib')}\n")
    sum = subprocess.run(["cksum"], stdin=(checkout / "pyproject.toml").open(), capture_output=True, text=True).stdout
    (checkout / ".venv" / "made-of").write_text(f"{sum.strip()} example\n")
    (tmp_path / "link").symlink_to(Path("with a space") / ("long" * 40) / "run")
    port, data = free_port(), tmp_path / "data of it"
    words = [tmp_path / "link", "--port", str(port), "--workers", "1", "--data", data]
    process = subprocess.Popen(words, cwd="/", stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout and process.stdout.readline() == f"Shoebox serves on http://127.0.0.1:{port}\n"
        assert httpx.get(f"http://127.0.0.1:{port}/health").json() == {"ok": True}
    finally:
        process.terminate()
        process.wait(30)
