"""The breaker: finds nothing in Shoebox and the built-in routes, and finds what is planted there."""

import importlib.util
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from backlore.cli.breaking import fetch
from backlore.tools.breaker import attacks, payloads
from backlore.tools.breaker.breaker import Breaker, Finding
from backlore.tools.breaker.document import flaw
from backlore.tools.breaker.faults import faults
from backlore.tools.breaker.plan import chance
from backlore.tools.breaker.report import to_curl, to_rows
from backlore.tools.breaker.shrink import shrink
from backlore.tools.breaker.values import edges
from backlore.tools.breaker.wire import Sent, Wire
from backlore.tools.testing.rows import Row
from backlore.tools.testing.server import OwnServer
from backlore.web import promises
from tests.conftest import ROOT, SHOEBOX, Server

RUN = "from backlore.cli.breaking import breaking; breaking()"
# What is planted: the phase that finds it, what it says, and of which route. `bench/planted.py` makes whole runs.
QUICK = {
    "bound removed": ("no bounds", "boundless", "POST /notes"),
    "ownership not checked": ("another's", "leak", "GET /notes/{id}"),
    "lost update": ("changes at once", "lost", "POST /notes/{id}"),
    "csrf skipped on one route": ("stages", "gate", "POST /notes/{id}/delete"),
    "another's row in a list": ("another's", "leak", "GET /tags"),
    "admin gate open": ("stages", "gate", "GET /admin/users"),
    "session outlives logout": ("accounts", "session", "POST /auth/logout"),
    "extra key accepted": ("what breaks the type", "accepted", "POST /notes"),
    "pages by offset": ("walks", "walk", "GET /notes"),
    "held open over logout": ("held open", "held", "POST /notes"),
    "held open by a demoted admin": ("held open", "held", "POST /admin/files/{user}/undelete"),
    "a stream after the reset": ("long", "held", "GET /files/follow/{name}"),
    "a file input with nothing chosen": ("forms", "accepted", "POST /files"),
    "the loop held by many keys": ("pauses", "pause", "POST /notes"),
    "no bound in a nested type": ("no bounds", "boundless", "POST /notes"),
    "whose label it is": ("another's", "changed", "POST /labels/{label}/delete"),
}


def load_planted() -> ModuleType:
    spec = importlib.util.spec_from_file_location("planted", ROOT / "bench" / "planted.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["planted"] = module
    spec.loader.exec_module(module)
    return module


PLANTED = load_planted()


@pytest.fixture
def app(tmp_path: Path) -> str:
    """A copy of Shoebox: the first run writes a secret into its folder."""
    skip = shutil.ignore_patterns(".data", "secret.py", "__pycache__")
    return str(shutil.copytree(SHOEBOX, tmp_path / "app", ignore=skip))


@pytest.mark.parametrize("name", QUICK)
def test_what_is_planted_is_found(name: str) -> None:
    phase, kind, route = QUICK[name]
    with PLANTED.planted(PLANTED.DEFECTS[name]) as server:
        found = PLANTED.hunt(server, 180, first=False, phase=phase).findings
    assert (route, kind) in found, found


def test_every_edit_of_the_planted_fits(tmp_path: Path) -> None:
    """What can't be planted any more, because the code has changed, is not called found."""
    assert len(PLANTED.DEFECTS) == 45
    for number, (name, edits) in enumerate(PLANTED.DEFECTS.items()):
        PLANTED.plant(edits, tmp_path / str(number))
        for edit in edits:
            compile((tmp_path / str(number) / edit.file).read_text(), name, "exec")


def run_parts(app: str, seed: int, *phases: Any) -> list[str]:
    with OwnServer(app) as server:
        breaker = Breaker(Wire(server.entrance), fetch(server.url), seed=seed, make_admin=server.make_admin)
        breaker.run([("", phase) for phase in (attacks.populate, *phases)])
        assert not breaker.findings
        return breaker.log


def test_the_same_seed_is_the_same_run(app: str) -> None:
    first = run_parts(app, 7, chance, payloads.payloads_that_break)
    assert len(first) > 1000
    assert first == run_parts(app, 7, chance, payloads.payloads_that_break)
    by_chance = run_parts(app, 8, chance)
    assert len(by_chance) > 20 and by_chance != first[: len(by_chance)]


NOTE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["text", "count"],
    "properties": {
        "text": {"type": "string", "minLength": 1, "maxLength": 10, "pattern": "^[a-z ]+$"},
        "count": {"type": "integer", "minimum": 0, "maximum": 9},
        "tags": {"type": "array", "maxItems": 3, "items": {"type": "string", "maxLength": 5}},
        "inner": {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"on": {"type": "boolean"}}}]},
    },
}


def test_values_that_fit_and_values_that_don_t() -> None:
    from random import Random

    good = [value for _, value in edges(NOTE, Random(1))]
    bad = [value for _, value in faults(NOTE, Random(1))]
    assert all(not flaw(NOTE, value) for value in good) and all(flaw(NOTE, value) for value in bad)
    assert {len(each["text"]) for each in good} >= {1, 10} and {0, 9} <= {each["count"] for each in good}
    assert any(each.get("inner", 1) is None for each in good)
    link = {"type": "string", "minLength": 10, "maxLength": 2000, "pattern": r"^(?:https?://\S+)$"}
    assert all(value.startswith("http") for _, value in edges(link, Random(1)))
    spoilt = [each for each in bad if isinstance(each, dict)]
    assert {-1, 10, "1", True} <= {
        each["count"] for each in spoilt if not isinstance(each.get("count", []), list | dict)
    }
    assert any(len(each["text"]) == 11 for each in spoilt if isinstance(each.get("text"), str))
    assert any(isinstance(each.get("tags"), list) and len(each["tags"]) == 4 for each in spoilt)
    assert any("admin" in each for each in spoilt) and any("text" not in each for each in spoilt)
    assert any(each.get("tags") == ["a", 1] or each.get("tags") == [1] for each in spoilt)


def test_shrinking_leaves_what_shows_it() -> None:
    big = {"text": "x" * 900 + "\u0130" + "y" * 77, "tags": ["a", "b"], "deep": {"a": [1, 2, {"b": 5}]}}
    assert shrink(big, lambda value: "\u0130" in value.get("text", ""), 100) == {"text": "\u0130"}
    deep = shrink(big, lambda value: value.get("deep", {}).get("a", [])[-1:] == [{"b": 5}], 100)
    assert deep == {"deep": {"a": [{"b": 5}]}}
    calls: list[Any] = []
    shrink(big, lambda value: bool(calls.append(value)), 5)
    assert len(calls) == 5


@pytest.fixture(scope="module")
def crashing() -> Iterator[tuple[OwnServer, list[Finding]]]:
    """A server that crashes on one character, and what the breaker found there."""
    with PLANTED.planted(PLANTED.DEFECTS["500 on a Unicode edge"]) as server:
        yield server, list(PLANTED.hunt(server, 240, phase="what fits the type").findings.values())


def test_a_finding_is_small_and_its_command_shows_it(crashing: tuple[OwnServer, list[Finding]]) -> None:
    server, (finding, *_) = crashing
    assert finding.kind == "crash" and finding.route.startswith("POST /notes")
    text = json.loads(finding.sent.body or b"")["text"]
    assert "\u0130" in text and len(text) <= 2
    got = subprocess.run(["sh", "-c", to_curl(server.url, finding.sent)], capture_output=True, text=True, timeout=20)
    assert got.stdout.startswith("HTTP/1.1 500"), got


def test_saved_rows_are_rows(crashing: tuple[OwnServer, list[Finding]]) -> None:
    """Each expects what should have come."""
    from backlore.tools.testing import rows

    source = to_rows(crashing[1]).replace(
        "from backlore.tools.testing import", "from backlore.tools.testing.rows import"
    )
    names: dict[str, Any] = {}
    exec(compile(source, "found.py", "exec"), names)
    found = [each for each in names["ROWS"] if isinstance(each, Row)]
    assert found and found[0].status == 200 and "crash" in found[0].name
    assert isinstance(names["ROWS"][0], rows.Chapter) and found[0].request.user == "bob"


def test_the_document_says_what_the_docstrings_promise(shoebox: Server) -> None:
    """Words by status, shapes, links by names, other media types, and what a schema can't say."""
    from openapi_spec_validator import validate

    document = fetch(shoebox.url)
    validate(document)
    paths = document["paths"]

    def words(path: str, method: str, code: str) -> set[str]:
        content = paths[path][method]["responses"][code]["content"]["application/json"]
        return set(content["schema"]["properties"]["error"]["enum"])

    assert words("/auth/login", "post", "403") == {"csrf", "auth", "verify", "second"}
    assert words("/notes/{id}", "get", "404") == {"route", "note"}
    assert words("/admin/users", "get", "403") == {"nocookie", "session", "tampered", "admin"}
    assert "Retry-After" in paths["/auth/login"]["post"]["responses"]["429"]["headers"]
    made = paths["/notes"]["post"]["responses"]["200"]
    assert made["content"]["application/json"]["schema"]["properties"] == {"id": {"type": "integer"}}
    assert {each["operationId"] for each in made["links"].values()} == {
        "get /notes/{id}",
        "post /notes/{id}",
        "post /notes/{id}/delete",
    }
    assert set(paths["/"]["get"]["responses"]["200"]["content"]) == {"text/html"}
    assert "200" not in paths["/auth/openid/back/{provider}"]["get"]["responses"]
    assert paths["/auth/signup"]["post"]["responses"]["400"]["x-beyond-type"] is True
    assert "x-beyond-type" not in paths["/auth/login"]["post"]["responses"]["400"]


def test_promises() -> None:
    said = promises.read(
        'Things. 200 {"a": [{id, "b": int | None}], c: str}; 403 `x`, `y` {z}; 303 to `/`; 429. 100 here'
    )
    assert list(said) == [200, 403, 303, 429]
    assert said[403].words == ("x", "y") and said[403].keys == ("z",)
    shape = said[200].shape
    assert shape and shape["required"] == ["a", "c"]
    assert shape["properties"]["a"]["items"]["properties"]["b"] == {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    assert promises.read("200 text/html; 404 `route`")[200].media == "text/html"
    assert promises.read("Says nothing of 200 things.") == {}
    cut = promises.read_shape('{"a": [')
    assert cut and cut["properties"] == {"a": {"type": "array", "items": {}}}


def test_a_range_outside_of_a_file_is_an_error_of_json(shoebox: Server) -> None:
    """Found by the breaker: it had the content-type of the file."""
    got = httpx.get(f"{shoebox.url}/", headers={"range": "bytes=99999999-"})
    assert (got.status_code, got.json(), got.headers["content-type"]) == (416, {"error": "range"}, "application/json")
    assert got.headers["content-range"].startswith("bytes */")


class Echo(BaseHTTPRequestHandler):
    """Keeps what it gets."""

    got: list[tuple[str, str, bytes, str | None]] = []

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.got.append((self.command, self.path, raw, self.headers.get("x-odd")))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    do_PUT = do_POST

    def log_message(self, *words: Any) -> None:
        pass


BODIES = [
    b"{}", b'{"a":"it\'s $HOME `id` \\"x\\" %s \\\\n"}', b"@file", b"\x00\xff\n%d\\", b"x" * 7000,
    b" " * 3_000_000 + b"{}",
    b"[" * 100_000, b'{"a":"' + b"%" * 1500 + b'\xc3\xa9"}', b"",
]  # fmt: skip


def test_commands_send_what_was_sent() -> None:
    """Any body, any path, byte by byte, through a plain shell."""
    server = HTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        for number, body in enumerate(BODIES):
            sent = Sent("PUT" if number % 2 else "POST", f"/a/../b%2f?q='{number}'&[x]", body, {"x-odd": "a'b\"c"})
            command = to_curl(f"http://127.0.0.1:{server.server_port}", sent).replace("curl ", "curl -g ")
            got = subprocess.run(["sh", "-c", command], capture_output=True, timeout=20)
            assert got.returncode == 0, got.stderr
            assert Echo.got[-1] == (sent.method, sent.path, body, "a'b\"c")
    finally:
        server.shutdown()
        server.server_close()


def test_a_server_that_does_not_start_is_one_clear_line(tmp_path: Path) -> None:
    got = subprocess.run(
        [sys.executable, "-c", RUN, "--app", str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert got.returncode == 1 and got.stderr.startswith("Error: The application does not start: "), got.stderr
    assert got.stderr.count("Error: ") == 1 and got.stderr.count("\n") == 1, got.stderr
    gone = subprocess.run([sys.executable, "-c", RUN, "http://127.0.0.1:9"], capture_output=True, text=True, timeout=60)
    assert gone.returncode == 1 and gone.stderr.startswith("Error: No openapi.json"), gone.stderr
