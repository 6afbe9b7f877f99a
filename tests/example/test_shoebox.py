"""Shoebox, what its rows (example/test.py) can't say: many changes of one note at the same time."""

import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import Server, User


@pytest.fixture
def ann(shoebox: Server, request: pytest.FixtureRequest) -> Iterator[User]:
    with User(shoebox, f"ann{zlib.crc32(request.node.name.encode())}@example.com") as user:
        yield user.sign_up()


def create(user: User, text: str, *tags: str) -> int:
    got = user.post("/notes", json={"text": text, "tags": list(tags)})
    assert got.status_code == 200, got.text
    return got.json()["id"]


def test_changes_at_once_leave_tags_and_notes_in_agreement(ann: User) -> None:
    id = create(ann, "start", "t0")
    with ThreadPoolExecutor(8) as pool:
        sent = [{"text": str(n), "tags": [f"t{n}", "all"]} for n in range(40)]
        got = list(pool.map(lambda body: ann.post(f"/notes/{id}", json=body).status_code, sent))
    assert set(got) == {200}
    note = ann.get(f"/notes/{id}").json()
    assert ann.get("/tags").json()["tags"] == [{"tag": tag, "count": 1} for tag in sorted(note["tags"])]
