"""What a run stands on: its data folder, its standard streams, its terminal, the CPUs and folders it is given."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backlore.clients.disk import Disk
from backlore.core import temporary
from backlore.core.config import make_secret
from tests.conftest import ROOT, serving

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
