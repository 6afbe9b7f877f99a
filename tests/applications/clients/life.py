"""A user's life with Shoebox by the generated client; then an upload to the application odd. Ends silently."""

import sys
from collections.abc import Callable

from odd import Client as Odd
from odd import File
from shoebox import Client, LogIn, Refused, SignUp


def refused(call: Callable[[], object]) -> Refused:
    try:
        call()
    except Refused as error:
        return error
    raise AssertionError("was not refused")


shoebox, odd = sys.argv[1:]
client = Client(f"{shoebox}/")
assert refused(client.list_notes).error == "nocookie"
person: SignUp = {"email": "py@example.com", "password": "correct horse battery"}
login: LogIn = {"email": "py@example.com", "password": "correct horse battery"}
client.signup(person)
client.login(login)
id = client.create_note({"text": "a & b", "tags": ["t", "ü"]})["id"]
assert client.read_note(id)["text"] == "a & b"
listed = client.list_notes({"tag": "ü", "limit": 5})
assert [note["id"] for note in listed["notes"]] == [id] and not listed["more"]
wrong = refused(lambda: client.create_note({"text": "x", "tags": ["ok", "a b"]}))
assert (wrong.status, wrong.error, wrong.where) == (400, "payload", "tags[1]") and len(wrong.why) > 5
client._csrf = "stale"
client.edit_note(id, {"text": "changed"})
assert client._csrf != "stale" and client.read_note(id)["text"] == "changed"
client.delete_note(id)
gone = refused(lambda: client.read_note(id))
assert (gone.status, gone.error) == (404, "note")
client.logout()
assert refused(client.list_tags).error == "nocookie"
nobody = refused(Client("http://127.0.0.1:1").get_health)
assert (nobody.status, nobody.error) == (0, "unreachable")

other = Odd(odd)
other.signup({"email": "py@example.com", "password": "correct horse battery"})
other.login({"email": "py@example.com", "password": "correct horse battery"})
seen = other.upload({"title": 'ä"b', "tags": ["1", "2"], "file": File('ü".txt', b"h\0llo", "text/plain")})
assert (seen["title"], seen["tags"], seen["type"], seen["size"]) == ('ä"b', ["1", "2"], "text/plain", 5), seen
assert other.search({"class": "a&b", "yes": True, "many": ["x", "y z"]}) == {
    "class": "a&b",
    "yes": True,
    "many": ["x", "y z"],
}
path = "a b/../c%2F?#ü"
assert other.delete(7, path) == {"id": 7, "path": path}
try:
    other.get_class_name("..")
    raise AssertionError("was sent")
except ValueError:
    pass
uuid = "123e4567-e89b-12d3-a456-426614174000"
everything = other.everything(
    {
        "pet": {"type": "cat", "lives": 9},
        "colour": "red",
        "id": uuid,
        "at": "2026-01-01T00:00:00Z",
        "price": "1.10",
        "tree": {"children": [{"children": []}]},
    }
)
assert (everything["class"], everything["nested"][0]["and"]["so"], everything["rest"]) == ("red", True, uuid)
