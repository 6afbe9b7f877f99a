"""docs/tutorial.md, done as it says: its files written, differences applied, commands run, what these say compared.

A block ```console holds commands after `$ ` and below each what it says, `…` standing for anything; nothing shown,
nothing compared. A block ```python title="FILE" is a file. A block ```diff is applied.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, free_port

TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
BLOCK = re.compile(r"^```(\w+)(?: title=\"(.+?)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)


class Reader:
    """Does what the tutorial says, in a folder and at a port of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.port = str(free_port())
        self.log = folder / "said by run"
        self.server: subprocess.Popen[bytes] | None = None
        commands = folder / "bin"
        commands.mkdir()
        (commands / "backlore").write_text(f'#!/bin/sh\nexec {sys.executable} -m backlore.cli "$@"\n')
        (commands / "backlore").chmod(0o755)
        path = f"{commands}:{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}

    def do(self, kind: str, title: str, text: str) -> None:
        """One block."""
        text = text.replace("8000", self.port)
        if kind == "console":
            for command, shown in COMMAND.findall(text):
                self.run(command, shown)
            return
        with self.reloaded(title.endswith(".py") or "+++ server.py" in text):
            if title:
                (self.folder / title).write_text(text)
            elif kind == "diff":
                self.say("git apply -p0 -", text)

    def run(self, command: str, shown: str) -> None:
        if command.startswith("cd "):
            self.folder /= command.removeprefix("cd ")
            config = self.folder / "config.py"
            config.write_text(config.read_text().replace("8000", self.port))
        elif command == "backlore run":
            self.serve(shown)
        else:
            compare(command, shown, self.say(command))

    def say(self, command: str, given: str = "") -> str:
        options = {"cwd": self.folder, "env": self.environment, "input": given, "timeout": 120}
        got = subprocess.run(command, shell=True, text=True, capture_output=True, **options)
        assert got.returncode == 0, f"$ {command}\n{got.stdout}{got.stderr}"
        return got.stdout

    def serve(self, shown: str) -> None:
        with self.log.open("wb") as log:
            words = ["backlore", "run"]
            options = {"cwd": self.folder, "env": self.environment, "start_new_session": True}
            self.server = subprocess.Popen(words, stdout=log, stderr=log, **options)
        self.wait_for(" serves on ", 0)
        compare("backlore run", f"…\n{shown}", self.log.read_text())

    @contextlib.contextmanager
    def reloaded(self, is_code: bool) -> Iterator[None]:
        """Until the running server has taken what is written meanwhile."""
        seen = self.log.stat().st_size if self.server else 0
        yield
        if self.server and is_code and self.folder.joinpath("server.py").exists():
            self.wait_for("master.reloaded", seen)

    def wait_for(self, text: str, start: int) -> None:
        until = time.monotonic() + 30
        while text.encode() not in self.log.read_bytes()[start:]:
            assert self.server and self.server.poll() is None and time.monotonic() < until, self.log.read_text()
            time.sleep(0.05)

    def end(self) -> None:
        if self.server and self.server.poll() is None:
            self.server.send_signal(signal.SIGTERM)
            self.server.wait(30)


def compare(command: str, shown: str, said: str) -> None:
    """Fails unless what was said is what is shown."""
    pattern = ".*".join(re.escape(part) for part in re.split(r"\n?…\n?", shown.strip()))
    assert not shown or re.fullmatch(pattern, said.strip(), re.DOTALL), f"$ {command}\nshown:\n{shown}\nsaid:\n{said}"


def test_what_it_says_is_so(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    try:
        for block in BLOCK.findall(TUTORIAL):
            reader.do(*block)
    finally:
        reader.end()


LIES = [
    ("another reply", '{"error":"nocookie"}\n```', '{"error":"session"}\n```'),
    ("another table", "→ Go where the word leads", "→ Stay where you are"),
    ("code that breaks", 'private.post("/links", create_link)', 'private.post("/links", make_link)'),
    ("a difference that does not fit", " redis = app.redis\n+", " redis = app.valkey\n+"),
]


@pytest.mark.parametrize(("what", "truth", "lie"), LIES, ids=[row[0] for row in LIES])
def test_a_lie_is_noticed(what: str, truth: str, lie: str, tmp_path: Path) -> None:
    assert truth in TUTORIAL
    reader = Reader(tmp_path)
    try:
        with pytest.raises(AssertionError):
            for block in BLOCK.findall(TUTORIAL.replace(truth, lie)):
                reader.do(*block)
    finally:
        reader.end()


def test_what_it_plants_is_found(tmp_path: Path) -> None:
    """Whose link is deleted is not asked any more, as its chapter on attacks proposes."""
    reader = Reader(tmp_path)
    for kind, title, text in BLOCK.findall(TUTORIAL.partition("## 6.")[0]):
        if title == "server.py" or kind == "diff" or "backlore new" in text:
            reader.do(kind, title, text.partition("$ backlore run")[0])
    code = reader.folder / "server.py"
    assert code.read_text().count('f"{user} ")') == 1
    code.write_text(code.read_text().replace('key("visits", word), f"{user} ")', 'key("visits", word), "")'))
    options = {"cwd": reader.folder, "env": reader.environment, "text": True, "capture_output": True, "timeout": 300}
    got = subprocess.run(["backlore", "break", "--seconds", "90"], **options)
    assert got.returncode == 1 and "changed: POST /links/{word}/delete" in got.stdout, got.stdout + got.stderr
    assert "bob's request changed what is ann's" in got.stdout
