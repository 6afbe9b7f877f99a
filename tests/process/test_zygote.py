"""The process that workers are forked from: what they share by it, what they don't, and its own end at any moment."""

import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import multipart
import psutil
import pytest

from backlore.core.config import Context
from backlore.process.zygote import Zygote, python
from tests.conftest import KINDS, Server, serving, words_of
from tests.kit.load import Load, check_counted
from tests.kit.waiting import start_fails, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(KINDS, tmp_path) as made:
        yield made


@pytest.fixture
def shadow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Puts a module before the one of the same name that is installed."""
    folder = tmp_path / "shadows"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))

    def put(name: str, text: str) -> Path:
        (folder / f"{name}.py").write_text(text)
        return folder

    return put


def zygotes_of(server: Server) -> list[psutil.Process]:
    return [each for each in server.family() if "backlore.process.zygote" in words_of(each)]


def children_of(server: Server) -> list[psutil.Process]:
    """Direct ones of the master, which adopts them."""
    children = psutil.Process(server.process.pid).children()
    return [each for each in children if "backlore.process.worker" in words_of(each)]


def gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, 15)[1]


# What children have of it


def test_children_are_told_apart_by_their_command_lines(server: Server) -> None:
    [zygote] = zygotes_of(server)
    words = words_of(zygote)
    assert words[2:4] == ["backlore.process.zygote", "birth"]
    expected = [[*words[:2], "backlore.process.worker", role, *words[4:]] for role in ("serve", "serve", "tasks")]
    assert sorted(map(words_of, children_of(server))) == expected


def sockets_of(process: psutil.Process) -> set[str]:
    links = {os.readlink(each) for each in Path(f"/proc/{process.pid}/fd").iterdir()}
    return {link for link in links if link.startswith("socket:")}


def flags_of(process: psutil.Process, handle: str) -> int:
    text = Path(f"/proc/{process.pid}/fdinfo/{handle}").read_text()
    return int(text.split("flags:")[1].split()[0], 8)


def test_no_descriptor_reaches_who_has_no_use_for_it(server: Server) -> None:
    [zygote], children = zygotes_of(server), children_of(server)
    assert zygote.num_fds() == 4 and len(sockets_of(zygote)) == 1  # with the standard streams
    master = psutil.Process(server.process.pid)
    for child in children:
        assert not sockets_of(child) & sockets_of(zygote)
        shared = [sockets_of(child) & sockets_of(other) for other in [master, *children] if other != child]
        assert len(set.union(*shared)) == 1, "the listener"
        assert os.readlink(f"/proc/{child.pid}/fd/0") == "/dev/null"
        opened = [each.name for each in Path(f"/proc/{child.pid}/fd").iterdir() if int(each.name) > 2]
        assert all(flags_of(child, each) & os.O_CLOEXEC for each in opened)


def signals_of(pid: int) -> dict[str, int]:
    said = Path(f"/proc/{pid}/status").read_text()
    return {line[:6]: int(line.split()[1], 16) for line in said.splitlines() if re.match("Sig[BIC]", line)}


def test_a_child_is_as_if_it_had_been_started_alone(server: Server) -> None:
    [zygote] = zygotes_of(server)
    assert zygote.num_threads() == 1
    by_us = signals_of(os.getpid())["SigIgn"]  # that is inherited
    for each in children_of(server):
        signals = signals_of(each.pid)
        assert signals["SigBlk"] == 0
        ignored = {number for number in range(1, 65) if (signals["SigIgn"] & ~by_us) >> number - 1 & 1}
        assert ignored <= {signal.SIGPIPE, signal.SIGINT, signal.SIGXFSZ}
        assert os.getsid(each.pid) == os.getpgid(each.pid) == each.pid


def test_what_chance_gives_is_another_in_each_child(tmp_path: Path) -> None:
    made = Server(KINDS, tmp_path)
    own = "\n\nimport random\n\nasync def dice(request):\n    return reply(200, [random.random()])\n"
    source = (made.folder / "server.py").read_text()
    (made.folder / "server.py").write_text(f"{source}{own}\napp.notify('info', 'dice', thrown=random.random())\n")
    try:
        made.start()
        until(lambda: made.said().count("thrown=") == 3)
        assert len({word for word in made.said().split() if word.startswith("thrown=")}) == 3
        made.stop()
    finally:
        made.kill()


def test_all_of_it_needs_little_memory(server: Server) -> None:
    time.sleep(1)
    processes = [psutil.Process(server.process.pid), *zygotes_of(server), *children_of(server)]
    sizes = [each.memory_full_info().pss >> 20 for each in processes]
    assert len(sizes) == 5 and sum(sizes) < 110, sizes


def test_a_killed_worker_comes_back_without_imports(server: Server) -> None:
    [zygote], [old, _] = zygotes_of(server), server.workers()
    old.kill()
    said = server.wait_said("worker.died")
    assert f"pid={old.pid} status=-9" in said
    until(lambda: len(server.workers()) == 2)
    time.sleep(1)
    new = max(server.workers(), key=psutil.Process.create_time)
    assert new.pid != old.pid and sum(new.cpu_times()[:2]) < sum(zygote.cpu_times()[:2]) / 2
    assert httpx.get(f"{server.url}/health").status_code == 200


# New code

EDITION = """

import multipart

async def edition(request):
    return reply(200, {"edition": multipart.EDITION, "pid": os.getpid()})

app.routes(public.get("/edition", edition))
"""


def edition(server: Server) -> int:
    return httpx.get(f"{server.url}/edition").json()["edition"]


def reload(server: Server, said: str = "master.reloaded") -> None:
    before = server.said().count(said)
    server.process.send_signal(signal.SIGHUP)
    until(lambda: server.said().count(said) > before, 30)


def test_a_reload_takes_new_code_of_a_library(tmp_path: Path, shadow: Callable[[str, str], Path]) -> None:
    installed = Path(multipart.__file__).read_text()
    shadow("multipart", f"{installed}\nEDITION = 1\n")
    made = Server(KINDS, tmp_path, workers=1, env="prod")
    source = (made.folder / "server.py").read_text()
    (made.folder / "server.py").write_text(f"import os\n{source}{EDITION}")
    try:
        made.start()
        assert edition(made) == 1
        shadow("multipart", f"{installed}\nEDITION = 22\n")
        made.workers()[0].kill()
        made.wait_said("worker.died")
        until(lambda: edition(made) == 1)  # a worker that is replaced by itself has what the others have
        [before] = zygotes_of(made)
        reload(made)
        until(lambda: edition(made) == 22)
        assert gone([before]) and len(zygotes_of(made)) == 1
        shadow("multipart", "raise RuntimeError('broken on purpose')")
        reload(made, "master.reload.failed")
        assert "broken on purpose" in made.said() and edition(made) == 22
        [worker] = made.workers()
        worker.kill()
        made.wait_said(f"pid={worker.pid} status=-9")
        until(lambda: edition(made) == 22)  # also then
        shadow("multipart", f"{installed}\nEDITION = 333\n")
        reload(made)
        until(lambda: edition(made) == 333)
        made.process.send_signal(signal.SIGHUP)
        time.sleep(0.3)  # its children have begun
        shadow("multipart", f"{installed}\nEDITION = 4444\n")
        reload(made)
        until(lambda: edition(made) == 4444)
        made.stop()
    finally:
        made.kill()


def test_many_reloads_at_once_leave_one(server: Server) -> None:
    for _ in range(20):
        server.process.send_signal(signal.SIGHUP)
        time.sleep(0.02)
    until(lambda: server.said().count("master.reloaded") >= 1, 30)
    until(lambda: len(zygotes_of(server)) == 1 and len(children_of(server)) == 3, 30)


# Its end


def test_killed_under_load(server: Server) -> None:
    """No request fails; those it has borne are served and supervised, and come back when they are killed."""
    load = Load(server)
    time.sleep(0.5)
    [zygote], children = zygotes_of(server), children_of(server)
    zygote.kill()
    said = server.wait_said("zygote.died")
    assert f"pid={zygote.pid} status=-9" in said
    until(lambda: len(zygotes_of(server)) == 1)
    time.sleep(1)
    load.stop()
    assert set(load.outcomes) == {"200"}, load.outcomes
    assert all(each.is_running() for each in children) and "worker.died" not in server.said()
    for each in children:
        each.kill()
        server.wait_said(f"pid={each.pid} status=-9")
    until(lambda: len(children_of(server)) == 3)
    until(lambda: httpx.get(f"{server.url}/health").status_code == 200)
    check_counted(server, load)
    assert server.said().count("worker.died") == 3


def test_killed_before_the_end(server: Server) -> None:
    """Those it has borne drain and end when the master does."""
    children = children_of(server)
    zygotes_of(server)[0].kill()
    server.wait_said("zygote.died")
    server.process.terminate()
    assert server.process.wait(10) == 0 and gone(children)


def test_killed_again_and_again(server: Server) -> None:
    for _ in range(10):
        for each in zygotes_of(server):
            each.kill()
        time.sleep(0.1)
    reload(server)
    until(lambda: len(zygotes_of(server)) == 1 and len(children_of(server)) == 3, 30)
    assert httpx.get(f"{server.url}/health").status_code == 200


@pytest.mark.parametrize("when", ["it imports", "it serves"])
def test_nothing_outlives_a_killed_master(when: str, tmp_path: Path) -> None:
    server = Server(KINDS, tmp_path)
    try:
        server.start(wait=when == "it serves")
        until(lambda: zygotes_of(server))
        family = server.family()
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait(5)
        assert gone(family)
    finally:
        server.kill()


def test_told_to_end_while_it_imports(tmp_path: Path) -> None:
    server = Server(KINDS, tmp_path)
    try:
        server.start(wait=False)
        until(lambda: zygotes_of(server))
        family, began = server.family(), time.monotonic()
        server.process.terminate()
        assert server.process.wait(10) == 0 and time.monotonic() - began < 5
        assert gone(family)
    finally:
        server.kill()


def test_who_ends_all_processes_at_once_ends_them_in_order(server: Server) -> None:
    """As systemd does."""
    for each in [*zygotes_of(server), *children_of(server), psutil.Process(server.process.pid)]:
        each.terminate()
    assert server.process.wait(10) == 0 and "zygote.died" not in server.said()


def test_what_cannot_be_imported_is_told(tmp_path: Path, shadow: Callable[[str, str], Path]) -> None:
    shadow("uvloop", "raise RuntimeError('broken on purpose')")
    said = start_fails(Server(KINDS, tmp_path))
    assert said.count("RuntimeError: broken on purpose") == 1 and "worker.died role=serve pid=null" in said


def test_imports_that_never_end_are_ended(tmp_path: Path, shadow: Callable[[str, str], Path]) -> None:
    shadow("uvloop", "import time\ntime.sleep(1000)")
    server = Server(KINDS, tmp_path)
    sooner = "from backlore.process import master; master.START_LIMIT = 2; from backlore.cli import main; main()"
    server.words[1:3] = ["-c", sooner]
    assert "worker.died" in start_fails(server)


FORK = """
import os
from pathlib import Path

fork = os.fork


def sometimes():
    if Path({full!r}).exists():
        raise BlockingIOError(11, "no process more")
    return fork()


os.fork = sometimes
"""


def test_no_room_for_another_process(tmp_path: Path, shadow: Callable[[str, str], Path]) -> None:
    full = tmp_path / "full"
    shadow("sitecustomize", FORK.format(full=str(full)))
    with serving(KINDS, tmp_path) as server:
        before = zygotes_of(server)
        full.touch()
        old = server.workers()[0]
        old.kill()
        server.wait_said("no process more")
        assert httpx.get(f"{server.url}/health").status_code == 200
        full.unlink()
        until(lambda: len(server.workers()) == 2 and httpx.get(f"{server.url}/health").status_code == 200, 30)
        assert zygotes_of(server) == before
    full.touch()
    server = Server(KINDS, tmp_path / "second")
    said = start_fails(server)
    assert "no process more" in said and "Traceback" not in said


def test_the_file_server_has_one_too(tmp_path: Path) -> None:
    server = Server(KINDS, tmp_path)
    server.words[3:4] = ["files", "serve"]
    try:
        server.start()
        assert len(zygotes_of(server)) == 1 and len(children_of(server)) == 3
        server.workers()[0].kill()
        server.wait_said("worker.died")
        until(lambda: len(server.workers()) == 2)
        server.stop()
    finally:
        server.kill()


# What nobody expects of it


def test_nothing_outlives_a_master_that_is_killed_while_it_is_told(tmp_path: Path) -> None:
    """What its children have just said is unread: their lines end with an error."""
    for number in range(6):
        server = Server(KINDS, tmp_path / str(number), workers=4)
        try:
            server.start(wait=False)
            until(lambda server=server: " serves on " in server.said(), 30)
            family = server.family()
            os.kill(server.process.pid, signal.SIGKILL)
            server.process.wait(5)
            assert gone(family)
        finally:
            server.kill()


def cpu_of(server: Server) -> float:
    return sum(psutil.Process(server.process.pid).cpu_times()[:2])


def test_stopped(tmp_path: Path) -> None:
    """It bears nobody, and nothing else waits for it."""
    with serving(KINDS, tmp_path, settings={"drain": 1.0}) as server:
        [zygote], [old, other] = zygotes_of(server), server.workers()
        zygote.suspend()
        old.kill()
        server.wait_said(f"pid={old.pid} status=-9")
        before = cpu_of(server)
        time.sleep(2)
        assert cpu_of(server) - before < 0.5
        assert httpx.get(f"{server.url}/health").status_code == 200 and other.is_running()
        zygote.resume()
        until(lambda: len(server.workers()) == 2)
        zygote.suspend()
        server.process.terminate()
        assert server.process.wait(10) == 0 and gone([zygote])


POOL = """

from concurrent.futures import ProcessPoolExecutor

pool = ProcessPoolExecutor(1)
pool.submit(int).result()
"""


def test_forks_of_the_application_hold_up_nobody(tmp_path: Path) -> None:
    """They have the line of the worker that has forked them."""
    made = Server(KINDS, tmp_path, env="prod")
    with (made.folder / "server.py").open("a") as source:
        source.write(POOL)
    pools: list[psutil.Process] = []
    try:
        made.start()
        children = children_of(made)
        until(lambda: all(each.children() for each in children))
        pools = [pool for each in children for pool in each.children()]
        zygotes_of(made)[0].kill()
        for each in children:
            each.kill()
            made.wait_said(f"pid={each.pid} status=-9")
        until(lambda: len(set(children_of(made)) - set(children) - set(pools)) >= 3, 30)
        until(lambda: httpx.get(f"{made.url}/health").status_code == 200)
        until(lambda: all(each.children() for each in set(children_of(made)) - set(pools)))  # so that none is missed
    finally:
        for each in pools:
            each.kill()
        made.kill()


THREAD = """
import sys
import threading
import time

if "backlore.process.zygote" in sys.orig_argv:
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
"""


def test_a_thread_that_something_has_started_in_it(tmp_path: Path, shadow: Callable[[str, str], Path]) -> None:
    """A fork would take none of it, nor free what it holds: children are executed."""
    shadow("sitecustomize", THREAD)
    with serving(KINDS, tmp_path) as server:
        assert zygotes_of(server)[0].num_threads() == 2
        [old, _] = server.workers()
        old.kill()
        server.wait_said(f"pid={old.pid} status=-9")
        until(lambda: len(server.workers()) == 2)
        assert httpx.get(f"{server.url}/health").status_code == 200


POPEN = """
import subprocess
from pathlib import Path

popen = subprocess.Popen.__init__


def sometimes(self, *given, **named):
    if Path({full!r}).exists():
        raise BlockingIOError(11, "no process more")
    popen(self, *given, **named)


subprocess.Popen.__init__ = sometimes
"""


def test_the_master_finds_no_room_for_another_process(tmp_path: Path, shadow: Callable[[str, str], Path]) -> None:
    full = tmp_path / "full"
    shadow("sitecustomize", POPEN.format(full=str(full)))
    with serving(KINDS, tmp_path) as server:
        full.touch()
        reload(server, "master.reload.failed")
        assert "no process can be started" in server.said() and len(children_of(server)) == 3
        zygotes_of(server)[0].kill()
        server.wait_said("zygote.died")
        server.workers()[0].kill()
        server.wait_said("worker.failed")
        assert httpx.get(f"{server.url}/health").status_code == 200
        full.unlink()
        until(lambda: len(server.workers()) == 2, 30)
        reload(server)


def test_a_master_killed_while_it_imports_leaves_the_port(tmp_path: Path, shadow: Callable[[str, str], Path]) -> None:
    shadow("uvloop", "import time\ntime.sleep(8)")
    first = Server(KINDS, tmp_path)
    second = Server(KINDS, tmp_path, port=first.port)
    try:
        first.start(wait=False)
        until(lambda: zygotes_of(first))
        time.sleep(0.5)
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait(5)
        (tmp_path / "shadows" / "uvloop.py").unlink()
        second.start()
        second.stop()
    finally:
        first.kill()
        second.kill()


def test_as_many_as_are_asked_for_at_once(tmp_path: Path) -> None:
    """More than a socket takes."""
    context = Context(folder=str(Server(KINDS, tmp_path).folder), serves="files")  # a copy: each child enters it
    zygote, listener = Zygote(context), socket.socket()
    children = []
    try:
        for _ in range(700):
            ours, theirs = socket.socketpair()
            with ours:  # so that it ends at once
                children.append(zygote.bear("serve", theirs, listener))
        until(lambda: zygote.look() and not zygote._asked, 60)
        assert len(children) == 700
        zygote.retire()
        until(lambda: not zygote.look())
        assert zygote.process.returncode == 0
    finally:
        zygote.end()
        listener.close()


LOST = """

import subprocess

subprocess.run(["sh", "-c", "sleep 0.2 &"])
"""


def test_what_the_application_has_started_and_lost_is_no_zombie(tmp_path: Path) -> None:
    made = Server(KINDS, tmp_path)
    with (made.folder / "server.py").open("a") as source:
        source.write(LOST)
    try:
        made.start()
        until(lambda: not [each for each in made.family() if each.name() == "sleep"])
        time.sleep(0.3)
        assert not [each for each in made.family() if each.status() == psutil.STATUS_ZOMBIE]
        made.stop()
    finally:
        made.kill()


def test_a_module_whose_name_is_taken(tmp_path: Path) -> None:
    made = Server(KINDS, tmp_path)
    (made.folder / "multipart.py").write_text("OWN = 1\n")
    with (made.folder / "server.py").open("a") as source:
        source.write("\nfrom multipart import OWN\n")
    assert "multipart.py has the name of a module that is loaded already: rename it." in start_fails(made)


@pytest.mark.parametrize(("path", "words"), [(["", "/x"], 1), (["/x"], 2)])
def test_the_working_directory_is_where_the_master_has_it(
    path: list[str], words: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the application's modules would come before those of Python."""
    monkeypatch.setattr(sys, "path", path)
    assert len(python()) == words


SLOWLY_BROKEN = "\nimport time\ntime.sleep(4)\nraise RuntimeError('broken on purpose')\n"


@pytest.mark.parametrize("env", ["dev", "prod"])
def test_a_reload_overtakes_one_that_would_fail(env: str, tmp_path: Path) -> None:
    with serving(KINDS, tmp_path, env=env) as server:
        source = server.folder / "server.py"
        whole = source.read_text()
        for text in (whole + SLOWLY_BROKEN, whole + "\nNEW = True\n"):
            source.write_text(text)
            if env == "prod":
                server.process.send_signal(signal.SIGHUP)
            server.wait_said("master.reload")
            time.sleep(1.5)
        until(lambda: "master.reloaded" in server.said(), 20)
        assert "reload.failed" not in server.said()


@pytest.mark.parametrize("daemon", [True, False])
def test_one_with_a_thread_goes_like_any(daemon: bool, tmp_path: Path, shadow: Callable[[str, str], Path]) -> None:
    shadow("sitecustomize", THREAD.replace("daemon=True", f"daemon={daemon}"))
    with serving(KINDS, tmp_path, env="prod") as server:
        [old] = zygotes_of(server)
        reload(server)
        assert gone([old])
        before = cpu_of(server)
        time.sleep(1)
        assert cpu_of(server) - before < 0.3
        family = server.family()
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait(5)
        assert gone(family)
        server.start()


def test_a_hanging_zygote_ends_with_the_master(tmp_path: Path, shadow: Callable[[str, str], Path]) -> None:
    server = Server(KINDS, tmp_path)
    try:
        server.start()
        shadow("uvloop", "import time\ntime.sleep(1000)")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: len(zygotes_of(server)) == 2)
        time.sleep(0.5)
        family = server.family()
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait(5)
        assert gone(family)
    finally:
        server.kill()


def test_a_hangup_of_all_processes_ends_none(server: Server) -> None:
    children = children_of(server)
    for each in [*children, *zygotes_of(server)]:
        each.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert all(each.is_running() for each in children) and "died" not in server.said()


@pytest.mark.parametrize("place", ["the application's folder", "a folder that is deleted"])
def test_where_the_command_is_called(place: str, tmp_path: Path) -> None:
    """By its script, as users do: the application's modules come after Python's, also in a zygote."""
    server = Server(KINDS, tmp_path, env="prod")
    (server.folder / "uvloop.py").write_text("raise RuntimeError('the wrong one')\n")
    there = server.folder if place.startswith("the") else tmp_path / "gone"
    there.mkdir(exist_ok=True)
    go = 'cd "$0" && rmdir "$0" 2>/dev/null; exec "$@"'
    command = str(Path(sys.executable).parent / "backlore")
    server.words[:3] = ["sh", "-c", go, str(there), command]
    try:
        server.start()
        assert there.exists() is (there == server.folder)
        reload(server)
        server.stop()
    finally:
        server.kill()
