"""The typed clients that `backlore client` writes: compiled, checked, and used against real servers."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backlore.tools.typed import python, typescript
from tests.conftest import ROOT, SHOEBOX, serving
from tests.kit.node import NODE

PROGRAMS = ROOT / "tests" / "applications" / "clients"
APPS = {"shoebox": SHOEBOX, "odd": PROGRAMS / "odd"}
TSC = "--strict --noUncheckedIndexedAccess --target es2022 --module nodenext --lib es2023,dom,dom.iterable --types node"


def run(*words: object, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(list(map(str, words)), cwd=cwd, capture_output=True, text=True, timeout=240)


def write(language: str, app: Path) -> str:
    got = run(sys.executable, "-m", "backlore.cli", "client", language, "--app", app)
    assert got.returncode == 0, got.stderr
    return got.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the clients of both applications in both languages, and the programs that use them."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "package.json").write_text('{"type": "module"}')
    for program in (*PROGRAMS.glob("*.ts"), *PROGRAMS.glob("*.py")):
        shutil.copy(program, folder)
    for name, app in APPS.items():
        # a copy: whoever loads an application the first time makes its secret
        shutil.copytree(app, folder / "apps" / name, ignore=shutil.ignore_patterns(".data", "secret.py", "__pycache__"))
        for language in ("ts", "py"):
            words = ("client", language, "--app", folder / "apps" / name, "--output", folder / f"{name}.{language}")
            got = run(sys.executable, "-m", "backlore.cli", *words)
            assert (got.returncode, got.stdout, got.stderr) == (0, "", "")
    return folder


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Both applications, served."""
    folders = [tmp_path_factory.mktemp(name) for name in APPS]
    with serving(SHOEBOX, folders[0], workers=1) as shoebox, serving(APPS["odd"], folders[1], workers=1) as odd:
        yield shoebox.url, odd.url


@pytest.fixture(scope="module")
def tsc() -> Path:
    """The compiler, installed once."""
    compiler = NODE / "node_modules" / "typescript" / "bin" / "tsc"
    if not compiler.exists():
        assert shutil.which("npm"), "The tests need Node.js 20 or newer, and npm."
        words = ("npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", NODE)
        got = run(*words, "typescript@5", "@types/node@20")
        assert got.returncode == 0, got.stdout + got.stderr
    return compiler


def test_typescript_compiles_and_works(made: Path, urls: tuple[str, str], tsc: Path) -> None:
    """The wrong uses are in wrong.ts, each marked as an error that is expected."""
    roots = ("--typeRoots", NODE / "node_modules" / "@types")
    got = run("node", tsc, *TSC.split(), *roots, "life.ts", "wrong.ts", cwd=made)
    assert got.returncode == 0, got.stdout
    got = run("node", "life.js", *urls, cwd=made)
    assert (got.returncode, got.stdout) == (0, ""), got.stderr


def test_python_is_typed_and_works(made: Path, urls: tuple[str, str]) -> None:
    mypy = (sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", made / "cache")
    got = run(*mypy, "shoebox.py", "odd.py", "life.py", cwd=made)
    assert got.returncode == 0, got.stdout
    got = run(sys.executable, "-W", "error", "life.py", *urls, cwd=made)
    assert (got.returncode, got.stdout) == (0, ""), got.stderr


def test_wrong_uses_are_errors_of_mypy(made: Path) -> None:
    mypy = (sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", made / "cache")
    said = run(*mypy, "wrong.py", cwd=made).stdout
    lines = enumerate((made / "wrong.py").read_text().splitlines(), 1)
    expected = {(number, line.partition("  # ")[2]) for number, line in lines if "  # " in line}
    errors = re.findall(r"^wrong\.py:(\d+): error: .*\[([\w-]+)\]$", said, re.MULTILINE)
    assert {(int(number), word) for number, word in errors} == expected, said


@pytest.mark.parametrize("name", APPS)
def test_what_is_written_is_formatted(made: Path, name: str) -> None:
    config = ("--no-cache", "--config", ROOT / "pyproject.toml")
    got = run(sys.executable, "-m", "ruff", "format", "--diff", *config, made / f"{name}.py")
    assert got.returncode == 0, got.stdout
    got = run(sys.executable, "-m", "ruff", "check", "--ignore", "RUF001,RUF002", *config, made / f"{name}.py")
    assert got.returncode == 0, got.stdout
    for language in ("ts", "py"):
        lines = (made / f"{name}.{language}").read_text().splitlines()
        assert all(len(line) <= 120 and line == line.rstrip() for line in lines)


@pytest.mark.parametrize("language", ["ts", "py"])
def test_the_same_table_gives_the_same_file(made: Path, language: str) -> None:
    assert write(language, made / "apps" / "odd") == (made / f"odd.{language}").read_text()


@pytest.mark.parametrize("write_client", [typescript.write, python.write])
def test_a_thousand_routes_with_one_name(write_client: object) -> None:
    """Every method has a name of its own, and the bounded time of the tests is enough."""
    route = {"operationId": "x", "responses": {"200": {"description": ""}}}
    paths = {f"/{'a' * (at % 7)}-{at}/x": {"get": route} for at in range(1000)}
    document = {"info": {"title": "many"}, "paths": paths, "components": {"schemas": {}}}
    text = write_client(document, "x", dict.fromkeys((("GET", path) for path in paths), "same name"))  # type: ignore
    names = re.findall(r"^ +(?:def )?((?:get|same)\w+)\(", text, re.MULTILINE)
    assert len(names) == len(set(names)) == 1000


def test_a_file_that_cant_be_written(made: Path, tmp_path: Path) -> None:
    words = ("client", "ts", "--app", made / "apps" / "shoebox", "--output", tmp_path / "none" / "x.ts")
    got = run(sys.executable, "-m", "backlore.cli", *words)
    assert got.returncode == 1 and got.stderr.startswith("Error: ") and got.stderr.count("\n") == 1
