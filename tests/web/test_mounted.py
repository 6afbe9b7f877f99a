"""A real FastAPI application, mounted: it gets our gatekeeper, csrf and user, and keeps its own ways."""

import subprocess
from pathlib import Path

from tests.conftest import ROOT, User, engine_cli, serving


def test_fastapi_behind_our_gates(tmp_path: Path) -> None:
    with serving(ROOT / "tests" / "applications" / "mounted", tmp_path, workers=1) as server, User(server) as nobody:
        user = User(server, "fast@example.com").sign_up()
        assert user.get("/fast/me/hello").json() == {"word": "hello", "email": "fast@example.com"}
        assert user.post("/fast/add", json=[1, 2, 3]).json() == 6
        assert user.post("/fast/add", json=["x"]).status_code == 422
        assert user.get("/fast/nothing").json() == {"detail": "Not Found"}
        refused = user.post("/fast/add", json=[1], headers={"x-csrf-token": "wrong"})
        assert (refused.status_code, refused.json()) == (403, {"error": "csrf"})
        assert nobody.get("/fast/me/hello").json() == {"error": "nocookie"}
        assert nobody.post("/open/add", json=[1, 2]).json() == 3
        asked = subprocess.run([*engine_cli(server), "config", "get", "appendfsync"], capture_output=True, text=True)
        assert asked.stdout.split() == ["appendfsync", "always"]
