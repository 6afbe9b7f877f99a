"""The commands around an application: new, routes, shell, completion. What they make and say is really used."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from backlore.core.config import make_secret
from tests.conftest import PASSWORD, ROOT, SHOEBOX, Server, User, serving
from tests.kit.browser import Person, opened

SKELETON = ROOT / "backlore" / "cli" / "skeleton"


def backlore(*words: object, cwd: Path = ROOT, given: str = "") -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "backlore.cli", *map(str, words)]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}  # what is made is looked at later
    return subprocess.run(command, cwd=cwd, input=given, capture_output=True, text=True, timeout=60, env=environment)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An application fresh from `backlore new`, not yet run."""
    folder = tmp_path_factory.mktemp("new")
    got = backlore("new", "glue-box", cwd=folder)
    assert got.returncode == 0 and "cd glue-box" in got.stdout and not got.stderr
    assert [each.name for each in folder.iterdir()] == ["glue-box"]
    return folder / "glue-box"


@pytest.fixture(scope="module")
def served(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The application, served from a copy of its folder."""
    with serving(made, tmp_path_factory.mktemp("served"), workers=1) as server:
        yield server


# new


def test_what_is_made(made: Path) -> None:
    files = {str(file.relative_to(made)) for file in made.rglob("*") if file.is_file()}
    pages = {"client/index.html", "client/page.js", "client/style.css"}
    code = {"config.py", "secret.py", "server.py", "test.py"}
    assert files == code | pages | {"README.md", ".gitignore", "Vagrantfile"}
    assert (made / "secret.py").stat().st_mode & 0o777 == 0o600
    assert "secret.py" in (made / ".gitignore").read_text().splitlines()
    for file in made.rglob("*"):
        assert file.is_dir() or not re.search("myapp", file.read_text(), re.IGNORECASE), file


def test_its_code_is_clean(made: Path) -> None:
    for words in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *words, "--no-cache", "--config", str(ROOT / "pyproject.toml"), made]
        got = subprocess.run(command, capture_output=True, text=True)
        assert got.returncode == 0, got.stdout + got.stderr


def test_its_readme_says_what_its_routes_are(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "app")
    got = backlore("routes", "--check", "README.md", cwd=tmp_path / "app")
    assert got.returncode == 0, got.stderr
    readme = (made / "README.md").read_text()
    for title in ("Todo", "Routes", "Redis keys", "Files", "Configuration", "Licence"):
        assert f"\n## {title}\n" in readme


def test_it_serves_its_page(served: Server) -> None:
    answer = httpx.get(served.url)
    assert answer.status_code == 200 and "<h1>Glue-box</h1>" in answer.text
    for path in re.findall(r'(?:src|href)="(/[^"]+)"', answer.text):
        assert httpx.get(served.url + path).status_code == 200
    assert not re.search(r"<style| style=| on\w+=|<script>", answer.text)


def test_its_page_on_a_phone(served: Server, tmp_path: Path) -> None:
    """Whatever stands beside a button, like the tutorial's link, does not break the button's own word."""
    with opened(tmp_path) as chromium:
        person = Person(chromium)
        chromium.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
        )
        chromium.get(served.url)
        person.types("#door [name=email]", "phone@example.com")
        person.types("#door [name=password]", PASSWORD)
        person.clicks("#door [value=signup]")
        person.types("#text", "x" * 200)
        person.clicks("#new .primary")
        person.waits_for("#notes button")
        chromium.execute_script("document.querySelector('#notes span').outerHTML = `<a>${'x'.repeat(200)}</a>`")
        assert chromium.find_element("css selector", "#notes button").size["height"] < 50
        assert chromium.execute_script("return document.documentElement.scrollWidth") == 390


def test_its_routes(served: Server) -> None:
    assert httpx.get(f"{served.url}/notes").json() == {"error": "nocookie"}
    with User(served, "ann@example.com") as ann, User(served, "bob@example.com") as bob:
        ann.sign_up(), bob.sign_up()
        assert [ann.post("/notes", json={"text": text}).json() for text in ("a", "b")] == [{"id": 1}, {"id": 2}]
        assert ann.get("/notes").json() == {"notes": [{"id": 2, "text": "b"}, {"id": 1, "text": "a"}]}
        assert ann.post("/notes", json={"text": "x" * 501}).json()["where"] == "text"
        assert bob.get("/notes").json() == {"notes": []}
        assert bob.post("/notes/1/delete").json() == {"error": "note"}
        assert ann.post("/notes/1/delete").json() == {}
        assert ann.get("/notes").json() == {"notes": [{"id": 2, "text": "b"}]}


def test_its_tests_pass(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "app")
    got = backlore("test", cwd=tmp_path / "app")
    assert got.returncode == 0, got.stdout + got.stderr


NAMES = ["", "Box", "1box", "-box", "_box", "a b", "a/b", "../box", "/tmp/box", ".", "é", "b" * 32, "box\n", "a.b"]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_refused(name: str, tmp_path: Path) -> None:
    got = backlore("new", "--", name, cwd=tmp_path)
    assert got.returncode == 1 and "lower-case letters, digits, - and _" in got.stderr
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("empty", "file", "link"):
        got = backlore("new", name, cwd=tmp_path)
        assert got.returncode == 1 and f"{name} is there already" in got.stderr
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["empty", "file", "link"]
    assert (tmp_path / "file").read_text() == "mine"


def test_nothing_half_is_left(tmp_path: Path) -> None:
    """The last step fails: no secret can be made."""
    program = (
        "from pathlib import Path; from backlore.cli import main, new; from backlore.core.config import ConfigError\n"
        "def fail(file): assert file.parent.joinpath('server.py').exists(); raise ConfigError('no room')\n"
        "new_module = __import__('sys').modules['backlore.cli.new']; new_module.make_secret = fail\n"
        "main(['new', 'box'])"
    )
    got = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert got.returncode == 1 and "box could not be made: no room" in got.stderr
    assert not list(tmp_path.iterdir())


def test_what_is_copied_is_in_the_wheel(tmp_path: Path) -> None:
    pip = ["python3", "-m", "pip"]  # the one outside: .venv may have none
    if subprocess.run([*pip, "--version"], capture_output=True).returncode:
        pytest.skip("no pip here")
    build = [*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    got = subprocess.run(build, capture_output=True, text=True)
    assert got.returncode == 0, got.stderr
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    services = ROOT / "backlore" / "services"
    folders = (SKELETON, services / "mail" / "templates", services / "docs")
    wanted = {str(file.relative_to(ROOT)) for each in folders for file in each.rglob("*.*") if "__" not in str(file)}
    assert wanted <= names and len(wanted) > 10


# routes

NOTES = (
    "| private | POST /notes | `text`: 1 to 5,000 characters; `tags`: a list of up to 10 items: a word without spaces "
    'and commas, 1 to 30 characters, optional | Keep a note. 200 {"id": int}. |'
)


def test_markdown_of_shoebox() -> None:
    lines = backlore("routes", "--app", SHOEBOX, "--format", "markdown").stdout.splitlines()
    assert lines[:2] == ["| stage | route | payload | reply |", "| --- | --- | --- | --- |"]
    assert lines[2] == "| public | GET / |  | A file. |" and NOTES in lines and len(lines) == 19
    query = next(line for line in lines if "GET /notes |" in line)
    assert "`?tag`: a word without spaces and commas, 1 to 30 characters, optional;" in query
    assert "`?limit`: a whole number from 1 to 100, by default 20 |" in query
    assert "`id`: a whole number from 1 to 2^53 |" in next(line for line in lines if "GET /notes/{id}" in line)


def test_other_formats() -> None:
    said = backlore("routes", "--app", SHOEBOX).stdout
    assert "private  POST /notes\n           text: 1 to 5,000 characters\n" in said
    make_secret(SHOEBOX / "secret.py")
    rows = json.loads(backlore("routes", "prod", "--app", SHOEBOX, "--format", "json", "--all").stdout)
    [login] = [row for row in rows if row["path"] == "/auth/login"]
    assert login["payload"][0] == {"place": "body", "name": "email", "what": "1 to 254 characters"}
    own = [row["path"] for row in rows].index("/tags")
    assert [row["path"] for row in rows].index("/openapi.json") == own + 1
    assert "/outbox" not in [row["path"] for row in rows]  # it is prod's table


def test_the_readme_of_shoebox_says_what_its_routes_are() -> None:
    got = backlore("routes", "--app", SHOEBOX, "--check", SHOEBOX / "README.md")
    assert got.returncode == 0, got.stderr


def test_the_page_of_routes_says_what_they_are() -> None:
    got = backlore("routes", "--app", SHOEBOX, "--ours", "--check", ROOT / "docs" / "routes.md")
    assert got.returncode == 0, got.stderr


def test_ours_alone(made: Path) -> None:
    def paths(app: Path, *options: str) -> list[str]:
        shown = json.loads(backlore("routes", "--app", app, "--format", "json", *options).stdout)
        return [f"{row['method']} {row['path']}" for row in shown]

    ours = paths(SHOEBOX, "--ours")
    assert ours[0] == "GET /openapi.json" and {"POST /auth/login", "POST /files/zip"} < set(ours)
    assert paths(SHOEBOX) + ours == paths(SHOEBOX, "--all")
    assert not set(paths(SHOEBOX)) & set(ours) and not set(paths(made)) & set(paths(made, "--ours"))
    got = backlore("routes", "--app", made, "--all", "--ours")
    assert got.returncode == 1 and not got.stdout
    assert len(got.stderr.splitlines()) == 1 and "--all" in got.stderr and "--ours" in got.stderr


def test_check_and_write(made: Path, tmp_path: Path) -> None:
    app = tmp_path / "app"
    shutil.copytree(made, app)
    server, readme = app / "server.py", app / "README.md"
    before = readme.read_text()
    server.write_text(server.read_text().replace("length(1, 500)", "length(1, 600)"))
    got = backlore("routes", "--app", app, "--check", readme)
    assert got.returncode == 1 and not got.stdout
    assert re.search(r"^-.*1 to 500 characters", got.stderr, re.MULTILINE)
    assert re.search(r"^\+.*1 to 600 characters", got.stderr, re.MULTILINE)
    assert readme.read_text() == before
    assert backlore("routes", "--app", app, "--write", readme).returncode == 0
    assert readme.read_text() == before.replace("1 to 500", "1 to 600")
    assert backlore("routes", "--app", app, "--check", readme).returncode == 0


def test_files_without_a_place(made: Path, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# None\n")
    for option in ("--check", "--write"):
        got = backlore("routes", "--app", made, option, tmp_path / "a.md")
        assert got.returncode == 1 and "<!-- routes -->" in got.stderr
        assert backlore("routes", "--app", made, option, tmp_path / "none.md").returncode == 1
    assert (tmp_path / "a.md").read_text() == "# None\n" and len(list(tmp_path.iterdir())) == 1
    got = backlore("routes", "--app", tmp_path)
    assert got.returncode == 1 and "config.py is missing" in got.stderr


# shell and completion


def test_shell(served: Server) -> None:
    with User(served, "cid@example.com") as cid:
        cid.sign_up()
    lines = [
        "print(await redis.ping())",
        "async def find():",
        "    return await users.find('cid@example.com')",
        "",
        "user = await find()",
        "print(user.email, key('notes', 'abcdef'), settings.env, app.redis is redis)",
        "await asyncio.gather(redis.incr('n'), redis.incr('n'))",
        "1 / 0",
        "raise SystemExit(3)",
    ]
    got = backlore("shell", "--app", served.folder, "--data", served.data, given="\n".join(lines) + "\n")
    assert got.stdout.splitlines() == ["True", "cid@example.com notes:{abc}def dev True", "[1, 2]"], got.stderr
    assert got.returncode == 3 and got.stderr.count("Traceback") == 1 and "ZeroDivisionError" in got.stderr


def test_shell_without_redis(made: Path, tmp_path: Path) -> None:
    got = backlore("shell", "--app", made, "--data", tmp_path, given="print(1)\n")
    assert got.returncode == 1 and "is the application running?" in got.stderr and not got.stdout
    assert got.stderr.count("\n") == 1 and "The command" not in got.stderr, got.stderr


@pytest.mark.parametrize(("shell", "profile"), [("bash", ".bashrc"), ("zsh", ".zshrc"), ("fish", "completions")])
def test_completion(shell: str, profile: str) -> None:
    said = backlore("completion", shell).stdout
    assert said.startswith("# ") and profile in said.splitlines()[0] and "_BACKLORE_COMPLETE" in said


def test_bash_completes() -> None:
    if not (bash := shutil.which("bash")):
        pytest.skip("no bash here")
    program = f"""
        PATH={Path(sys.executable).parent}:$PATH
        eval "$(backlore completion bash)"
        COMP_WORDS=(backlore ro) COMP_CWORD=1
        $(complete -p backlore | sed 's/.*-F \\([^ ]*\\).*/\\1/') backlore ro backlore
        echo "completes: ${{COMPREPLY[*]}}"
    """
    got = subprocess.run([bash, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert got.stdout.splitlines()[-1] == "completes: routes", got.stdout + got.stderr


def test_a_verb_carries_no_other() -> None:
    """The master of a server runs as long as it does: it has what `run` needs, and no more."""
    program = "import sys, backlore.cli, backlore.cli.run; print([n for n in ('asyncio', 'redis') if n in sys.modules])"
    got = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert got.stdout == "[]\n"
