"""An application that can't work says so at its start: in one line, with the file and the line, once."""

import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import Any

import httpx
import pytest

from backlore import NEXT as ON
from backlore.web.handlers import may_pass
from backlore.web.routes import RouteError, Table
from backlore.web.stages import private, public
from tests.conftest import free_port, serving

CONFIG = 'CONFIG = {"name": "broken"}\n'
SERVER = "from backlore import Backend, page, public, reply, static\nfrom config import CONFIG\napp = Backend(CONFIG)\n"
HANDLER = "async def one(request):\n    return reply(200)\nasync def two(request):\n    return reply(200)\n"
HOOK = "async def fill():\n    1 / 0\napp.web.on_start.append(fill)\n"

BROKEN = [
    ("syntax", {"server.py": SERVER + "broken(\n"}, "server.py:4: SyntaxError: '(' was never closed"),
    ("exception", {"server.py": SERVER + "\n1 / 0\n"}, "server.py:5: ZeroDivisionError: division by zero"),
    ("import", {"server.py": "import nowhere\n"}, "server.py:1: ModuleNotFoundError: No module named 'nowhere'"),
    ("in another file", {"server.py": "import other\n", "other.py": "\nx\n"}, "other.py:2: NameError: name 'x' is not"),
    ("of a library", {"server.py": "import json\njson.loads('{')\n"}, "server.py:2: JSONDecodeError: Expecting"),
    ("it exits", {"server.py": "import sys\nsys.exit('no')\n"}, "server.py:2: SystemExit: no"),
    ("no app", {"server.py": "aap = 1\n"}, "server.py has no app"),
    ("another app", {"server.py": "app = 1\n"}, "server.py has no app"),
    ("no server", {"server.py": None}, "holds no server.py"),
    ("a hook", {"server.py": SERVER + HOOK}, "server.py:5: ZeroDivisionError"),
    ("no page", {"server.py": SERVER + 'app.routes(public.get("/", page("none.html")))\n'}, "server.py:4: RouteError"),
    ("no folder", {"server.py": SERVER + 'app.routes(public.get("/{path...}", static("no")))\n'}, "there is no folder"),
    (
        "twice",
        {"server.py": SERVER + HANDLER + 'app.routes(\n  public.get("/", one),\n  public.get("/", two),\n)\n'},
        "server.py:8: RouteError: public.get('/') is never reached",
    ),
    (
        "config: attribute",
        {"config.py": "import os\nos.nothing\n" + CONFIG},
        "config.py:2: AttributeError: module 'os'",
    ),
    ("config: syntax", {"config.py": "CONFIG = {\n"}, "config.py:1: SyntaxError"),
    ("config: none", {"config.py": "CONFIGURATION = {}\n"}, "config.py has no CONFIG"),
    ("config: no dict", {"config.py": "CONFIG = 1\n"}, "CONFIG should be a dict"),
    ("config: key", {"config.py": 'CONFIG = {"name": "broken", "prot": 1}\n'}, "config.py: prot: Is not known here."),
    ("secret", {"secret.py": "SECRET = {\n"}, "secret.py:1: SyntaxError"),
    ("secret: a link to itself", {"secret.py": Path("secret.py")}, "holds no secret.py"),
]


def write(folder: Path, files: dict[str, Any]) -> Path:
    """An application with these files, or without."""
    for name, text in ({"config.py": CONFIG, "server.py": SERVER} | files).items():
        if isinstance(text, Path):
            (folder / name).symlink_to(text)
        elif text is not None:
            (folder / name).write_text(text)
    return folder


def backlore(*words: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "backlore.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(("what", "files", "said"), BROKEN, ids=[row[0] for row in BROKEN])
def test_what_is_wrong_is_said_once(what: str, files: dict[str, Any], said: str, tmp_path: Path) -> None:
    folder = write(tmp_path, files)
    verbs = [["run", "--workers", 2, "--port", free_port()]]
    verbs += [["routes"]] if what != "a hook" else []
    for words in verbs:
        got = backlore(*words, "--app", folder)
        assert got.returncode == 1 and not got.stdout and "Traceback" not in got.stderr, got.stderr
        [line] = got.stderr.splitlines()
        assert line.startswith("Error: ") and said in line


def test_a_handler_that_returns_nothing_is_named(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    write(
        source,
        {"server.py": SERVER + "async def forgets(request):\n    reply(200)\napp.routes(public.get('/', forgets))\n"},
    )
    with serving(source, tmp_path, workers=1) as server:
        assert httpx.get(server.url).json() == {"error": "server"}
        said = server.wait_said("handler.noreply")
        assert re.search(r'handler="forgets, \S*/server.py:4"', said) and "got=NoneType" in said


# Environments


@pytest.mark.parametrize("env", ["production", "Dev", "dev ", "", "staging", "-x", "../dev"])
def test_environments_are_named(env: str, tmp_path: Path) -> None:
    write(tmp_path, {"config.py": 'CONFIG = {"name": "broken", "environments": ["qa"]}\n'})
    for words in (["run", "--app", tmp_path, "--", env], ["user", "--app", tmp_path, f"--env={env}", "list"]):
        got = backlore(*words)
        assert got.returncode == 1 and "there are dev, prod, qa." in got.stderr and len(got.stderr.splitlines()) == 1
    assert not (tmp_path / "secret.py").exists() and not (tmp_path / ".data").exists()


@pytest.mark.parametrize("env", ["prod", "qa"])
def test_production_has_secrets_and_says_what_can_be_read(env: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    write(source, {"config.py": 'CONFIG = {"name": "broken", "environments": ["qa"]}\n'})
    for words in (["run"], ["routes"], ["files", "serve"]):
        got = backlore(*words, env, "--app", source)
        assert got.returncode == 1 and "secret.py is missing" in got.stderr and len(got.stderr.splitlines()) == 1
        assert not (source / "secret.py").exists()
    said = got.stderr
    assert backlore(*said.partition("make it with: backlore ")[2].split()).returncode == 0  # what it says helps
    with serving(source, tmp_path, workers=1, env=env) as server:
        assert "address.insecure" in server.said()
        assert httpx.get(f"{server.url}/docs").status_code == 404
    config = source / "config.py"
    config.write_text('CONFIG = {"name": "broken", "environments": ["qa"], "address": "https://a.example"}\n')
    with serving(source, tmp_path / "2", workers=1, env=env) as server:
        assert "address.insecure" not in server.said()


# Two routes of one method and path


async def answers(request: Any) -> None: ...


async def passes(request: Any) -> object:
    return ON


async def asks(request: Any) -> object:
    return await passes(request)


async def asks_inside(request: Any) -> object:
    async def inside() -> object:
        return ON

    return await inside()


def decorated(function: Callable[[Any], Awaitable[object]]) -> Callable[[Any], Awaitable[object]]:
    @wraps(function)
    async def wrapped(request: Any) -> object:
        return await function(request)

    return wrapped


def hidden(function: Callable[[Any], Awaitable[object]]) -> Callable[[Any], Awaitable[object]]:
    async def wrapped(request: Any) -> object:
        return await function(request)

    return wrapped


@pytest.mark.parametrize("handler", [passes, asks, asks_inside, decorated(passes), hidden(hidden(passes))])
def test_a_second_route_behind_one_that_may_pass(handler: Any) -> None:
    assert may_pass(handler) and not may_pass(answers) and not may_pass(hidden(answers))
    table = Table()
    table.add([public.get("/a", handler), public.get("/a", answers)])
    table.add([private.get("/b/{id}", handler), private.post("/b/{id}", answers), private.get("/b/{name...}", answers)])


@pytest.mark.parametrize("first", [answers, passes])
def test_a_route_that_no_request_reaches(first: Any) -> None:
    second = answers if first is answers else passes
    for one, two in [
        (public.get("/a", first), public.get("/a", second)),
        (public.get("/a/{id}", first), public.get("/a/{name}", second)),
        (public.get("/{a...}", first), public.get("/{b...}", second)),
        (public.get("/a", first), private.get("/a", second)),
    ]:
        with pytest.raises(RouteError, match="never reached"):
            Table().add([one, two])
        table = Table()
        table.add([two])
        with pytest.raises(RouteError, match="never reached"):
            table.add([one])
        assert table.routes == [two]
