"""Shoebox over HTTP: every route with what it takes and gives."""

import json
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


def texts(user: User, **query: object) -> list[str]:
    return [note["text"] for note in user.get("/notes", params=query).json()["notes"]]


def test_notes(ann: User) -> None:
    assert ann.get("/notes").json() == {"notes": [], "more": False}
    first, second = create(ann, "first", "red", "blue", "red"), create(ann, "second", "red")
    assert (first, second) == (1, 2)
    note = ann.get(f"/notes/{first}").json()
    assert note == {"id": 1, "text": "first", "tags": ["red", "blue"]} | {n: note[n] for n in ("created", "changed")}
    assert texts(ann) == ["second", "first"]
    assert texts(ann, tag="blue") == ["first"] and texts(ann, tag="none") == []
    assert ann.get("/tags").json() == {"tags": [{"tag": "blue", "count": 1}, {"tag": "red", "count": 2}]}
    assert ann.post("/notes/1", json={"text": "changed", "tags": ["green"]}).json() == {}
    assert ann.get("/notes/1").json()["text"] == "changed"
    assert texts(ann, tag="blue") == [] and texts(ann, tag="green") == ["changed"]
    assert ann.post("/notes/2/delete", json={}).json() == {}
    assert texts(ann) == ["changed"]
    assert ann.get("/tags").json() == {"tags": [{"tag": "green", "count": 1}]}


def test_no_such_note(ann: User) -> None:
    for method, path in [("GET", "/notes/7"), ("POST", "/notes/7/delete")]:
        got = ann.request(method, path)
        assert (got.status_code, got.json()) == (404, {"error": "note"})
    assert ann.post("/notes/7", json={"text": "x"}).status_code == 404
    for path in ("/notes/0", "/notes/-1", "/notes/1.5", "/notes/x", "/notes/99999999999999999999"):
        assert ann.get(path).json() == {"error": "route"}


def test_pages(ann: User) -> None:
    for number in range(25):
        create(ann, str(number))
    page = ann.get("/notes", params={"limit": 10}).json()
    assert ([n["text"] for n in page["notes"]], page["more"]) == ([str(n) for n in range(24, 14, -1)], True)
    rest = ann.get("/notes", params={"limit": 100, "before": page["notes"][-1]["id"]}).json()
    assert (len(rest["notes"]), rest["more"]) == (15, False)


def test_one_user_never_sees_anothers(shoebox: Server, ann: User) -> None:
    id = create(ann, "mine", "secret")
    with User(shoebox, "bob@example.com") as bob:
        bob.sign_up()
        assert bob.get(f"/notes/{id}").status_code == 404
        assert bob.post(f"/notes/{id}", json={"text": "his"}).status_code == 404
        assert bob.post(f"/notes/{id}/delete").status_code == 404
        assert (texts(bob), bob.get("/tags").json()) == ([], {"tags": []})
    assert texts(ann) == ["mine"]


def test_any_text_comes_back_as_it_was(ann: User) -> None:
    for text in ("é\n\t\u0000\u2028😀 \\ \" ' <script>", "a" * 5000, "שלום", "\ufeffx", "e\u0301"):
        assert ann.get(f"/notes/{create(ann, text)}").json()["text"] == text
    id = create(ann, "tags", "é", "<b>", "😀", "a:b{c}")
    assert ann.get(f"/notes/{id}").json()["tags"] == ["é", "<b>", "😀", "a:b{c}"]
    assert texts(ann, tag="a:b{c}") == ["tags"]


WRONG = [
    # body, where
    ({"text": ""}, "text"),
    ({"text": "a" * 5001}, "text"),
    ({"tags": []}, "text"),
    ({"text": "a", "tags": ["x"] * 11}, "tags"),
    ({"text": "a", "tags": ["x", ""]}, "tags[1]"),
    ({"text": "a", "tags": ["x" * 31]}, "tags[0]"),
    ({"text": "a", "tags": ["two words"]}, "tags[0]"),
    ({"text": "a", "tags": ["a\n"]}, "tags[0]"),
    ({"text": "a", "tags": "x"}, "tags"),
    ({"text": "a", "id": 3}, "id"),
    ({"text": {"a": 1}}, "text"),
]


@pytest.mark.parametrize(("body", "where"), WRONG, ids=lambda v: json.dumps(v)[:30])
def test_wrong_notes(ann: User, body: dict, where: str) -> None:
    id = create(ann, "there")
    for path in ("/notes", f"/notes/{id}"):
        got = ann.post(path, json=body)
        assert (got.status_code, got.json()["error"], got.json()["where"]) == (400, "payload", where)
    assert texts(ann) == ["there"]


def test_changes_at_once_leave_tags_and_notes_in_agreement(ann: User) -> None:
    id = create(ann, "start", "t0")
    with ThreadPoolExecutor(8) as pool:
        sent = [{"text": str(n), "tags": [f"t{n}", "all"]} for n in range(40)]
        got = list(pool.map(lambda body: ann.post(f"/notes/{id}", json=body).status_code, sent))
    assert set(got) == {200}
    note = ann.get(f"/notes/{id}").json()
    assert ann.get("/tags").json()["tags"] == [{"tag": tag, "count": 1} for tag in sorted(note["tags"])]


def test_unchanged_list_is_not_sent_again(ann: User) -> None:
    create(ann, "one")
    etag = ann.get("/notes").headers["etag"]
    assert ann.get("/notes", headers={"if-none-match": etag}).status_code == 304
    create(ann, "two")
    assert ann.get("/notes", headers={"if-none-match": etag}).status_code == 200
