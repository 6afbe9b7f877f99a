"""Whole runs over Shoebox and the built-in routes, which take minutes: the breaker finds nothing, nor schemathesis."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SHOEBOX, serving
from tests.tools.test_breaker import PLANTED, RUN, app

__all__ = ["app"]  # the fixture


def test_nothing_is_found_in_shoebox_and_the_built_in_routes(app: str) -> None:
    """The whole run, as a user starts it."""
    words = [sys.executable, "-c", RUN, "--app", app, "--seconds", "1200"]
    got = subprocess.run(words, capture_output=True, text=True, timeout=1300)
    assert got.returncode == 0, got.stdout + got.stderr
    assert re.search(r"[\d,]+ requests in [\d.]+ s, 0 findings\.", got.stdout)
    lines = (line.rsplit(maxsplit=1) for line in got.stdout.splitlines()[:-2] if line)
    counts = {name: int(count.replace(",", "")) for name, count in lines}
    assert {"POST /notes/{id}", "POST /auth/destroy", "GET /admin/users"} <= set(counts)
    assert min(count for name, count in counts.items() if name != "GET /openapi.json") >= 20, counts
    assert "Not tried" not in got.stdout


def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    """Another's eyes on the same document: positive, negative, stateful by links, with a session; bounded by a seed."""
    pytest.importorskip("schemathesis")
    with serving(SHOEBOX, tmp_path / "server") as server:
        (tmp_path / "hooks.py").write_text(PLANTED.HOOKS)
        (tmp_path / "schemathesis.toml").write_text(PLANTED.SETTINGS)
        env = {**os.environ, "PLANTED_URL": server.url, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(tmp_path)}
        words = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{server.url}/openapi.json"]
        words += ["--seed", "1", "-n", "5", "--max-time", "40", "--mode", "all"]
        got = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=150)
        assert got.returncode == 0, got.stdout[-5000:]
        assert "Stateful" in got.stdout
