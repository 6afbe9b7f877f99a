"""What Shoebox promises, as requests and their replies: `backlore test --app example` sends them."""

import struct
import zlib
from typing import Any

from backlore.tools.testing import PASSWORD, destroy, get, mail, parallel, post, request, row, sign_up, visitor

NEW = "another long password"
NOTE = {"id": int, "text": str, "tags": list, "created": int, "changed": int}
NO_NOTE = {"error": "note"}
NO_PICTURE = {"error": "picture"}
NO_ROUTE = {"error": "route"}


def wrong(where: str) -> dict[str, Any]:
    """The reply to a payload that breaks the route's type at `where`."""
    return {"error": "payload", "where": where, "why": str}


def texts(*expected: str):
    """Whether a list of notes has these texts, in this order."""
    return lambda notes: [note["text"] for note in notes] == list(expected)


def png(width: int, height: int, shade: int = 0) -> bytes:
    """A grey picture; without pixel data if there would be much of it."""
    parts = b"\x89PNG\r\n\x1a\n"
    pixels = zlib.compress((b"\0" + bytes([shade]) * width) * height) if width * height < 1e6 else b""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    for kind, data in ((b"IHDR", head), (b"IDAT", pixels), (b"IEND", b"")):
        parts += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return parts


def bring(name: str, content: bytes, *tags: str):
    """The request that uploads a picture."""
    return post("/pictures", files={"file": (name, content)}, form={"tags": list(tags)})


def names(*expected: str):
    """Whether a list of pictures has these names, in this order."""
    return lambda pictures: [picture["name"] for picture in pictures] == list(expected)


WRONG_NOTES = [
    # payload, where
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
ANY_TEXT = ["é\n\t\u0000\u2028😀 \\ \" ' <script>", "a" * 5000, "שלום", "\ufeffx", "e\u0301"]

STRANGERS = [
    "strangers",
    row("the page", get("/", user=None), 200, str, {"content-type": "text/html; charset=utf-8"}),
    row("a script", get("/client/shoebox.js", user=None), 200, str, {"etag": str}),
    row("no file", get("/client/none.js", user=None), 404, NO_ROUTE),
    row("no way out", get("/client/%2e%2e/secret.py", user=None), 404, NO_ROUTE),
    row("no route", get("/none", user=None), 404, NO_ROUTE),
    row("wrong method", request("DELETE", "/notes", user=None), 405, {"error": "method"}, {"allow": str}),
    row("health", get("/health", user=None), 200, {"ok": True}),
    row("the document", get("/openapi.json", user=None), 200, {"paths": {"/notes": dict, ...: ...}, ...: ...}),
    row("list", get("/notes", user=None), 403, {"error": "nocookie"}),
    row("read", get("/notes/1", user=None), 403, {"error": "nocookie"}),
    row("tags", get("/tags", user=None), 403, {"error": "nocookie"}),
    [
        row(f"{path}", get(path, user=None), 403, {"error": "nocookie"})
        for path in ("/pictures", "/files", "/files/trash")
    ],
    row("create", post("/notes", {"text": "x"}, user=None), 403, {"error": "nocookie"}),
    row("edit", post("/notes/1", {"text": "x"}, user=None), 403, {"error": "nocookie"}),
    row("delete", post("/notes/1/delete", {}, user=None), 403, {"error": "nocookie"}),
    row("forged", get("/notes", headers={"cookie": "shoebox=forged.signature"}), 403, {"error": "tampered"}),
]
NOTES = [
    "notes",
    row("none yet", get("/notes"), 200, {"notes": [], "more": False}),
    row("without csrf", post("/notes", {"text": "x"}, csrf=False), 403, {"error": "csrf"}),
    row(
        "no JSON", post("/notes", raw=b'{"text"', headers={"content-type": "application/json"}), 400, {"error": "json"}
    ),
    row(
        "first", post("/notes", {"text": "first", "tags": ["red", "blue", "red"]}), 200, {"id": 1}, keep={"note": "id"}
    ),
    row("second", post("/notes", {"text": "second", "tags": ["red"]}), 200, {"id": 2}, keep={"second": "id"}),
    row("read", get("/notes/{note}"), 200, NOTE | {"id": "{note}", "text": "first", "tags": ["red", "blue"]}),
    row("newest first", get("/notes"), 200, {"notes": texts("second", "first"), "more": False}),
    row("with a tag", get("/notes", query={"tag": "blue"}), 200, {"notes": texts("first"), "more": False}),
    row("with no such tag", get("/notes", query={"tag": "none"}), 200, {"notes": [], "more": False}),
    row("tags", get("/tags"), 200, {"tags": [{"tag": "blue", "count": 1}, {"tag": "red", "count": 2}]}),
    row("keep the etag", get("/notes"), 200, keep={"etag": lambda reply: reply.headers["etag"]}),
    row("unchanged", get("/notes", headers={"if-none-match": "{etag}"}), 304, ""),
    row("edit", post("/notes/{note}", {"text": "changed", "tags": ["green"]}), 200, {}),
    row("changed", get("/notes", headers={"if-none-match": "{etag}"}), 200),
    row("edited", get("/notes/{note}"), 200, {"text": "changed", "tags": ["green"], ...: ...}),
    row("its old tag", get("/notes", query={"tag": "blue"}), 200, {"notes": [], "more": False}),
    row("its new tag", get("/notes", query={"tag": "green"}), 200, {"notes": texts("changed"), "more": False}),
    row("delete", post("/notes/{second}/delete", {}), 200, {}),
    row("delete again", post("/notes/{second}/delete", {}), 404, NO_NOTE),
    row("what is left", get("/notes"), 200, {"notes": texts("changed"), "more": False}),
    row("its tags", get("/tags"), 200, {"tags": [{"tag": "green", "count": 1}]}),
]
PICTURE = {"id": str, "name": str, "size": int, "width": int, "height": int, "tags": list, "created": int}
GONE = PICTURE | {"deleted": int}
HILL = png(40, 30)
PICTURES = [
    "pictures",
    sign_up("pia"),
    row("none yet", get("/pictures"), 200, {"pictures": [], "before": 0}),
    row("no tags", get("/pictures/tags"), 200, {"tags": []}),
    row(
        "first",
        bring("in/a/hill.png", HILL, "red", "blue", "red"),
        200,
        PICTURE | {"name": "hill.png", "size": len(HILL), "width": 40, "height": 30, "tags": ["red", "blue"]},
        keep={"hill": "id"},
    ),
    row("another of that name", bring("hill.png", png(30, 40)), 200, PICTURE | {"name": "hill (2).png"}),
    row("the same again", bring("hill.png", HILL, "red"), 200, PICTURE, keep={"third": "id"}),
    row(
        "newest first", get("/pictures"), 200, {"pictures": names("hill (3).png", "hill (2).png", "hill.png"), ...: ...}
    ),
    row("with a tag", get("/pictures", query={"tag": "blue"}), 200, {"pictures": names("hill.png"), "before": 0}),
    row("tags", get("/pictures/tags"), 200, {"tags": [{"tag": "blue", "count": 1}, {"tag": "red", "count": 2}]}),
    row(
        "a page",
        get("/pictures", query={"limit": 2}),
        200,
        {"pictures": names("hill (3).png", "hill (2).png"), "before": int},
        keep={"before": "before"},
    ),
    row(
        "the next",
        get("/pictures", query={"limit": 2, "before": "{before}"}),
        200,
        {"pictures": names("hill.png"), "before": 0},
    ),
    row(
        "itself", get("/pictures/{hill}"), 200, headers={"content-type": "image/png", "content-length": str(len(HILL))}
    ),
    row("a part", get("/pictures/{hill}", headers={"range": "bytes=1-3"}), 206, b"PNG"),
    row(
        "small",
        get("/pictures/{hill}/thumb"),
        200,
        headers={"content-type": "image/webp", "cache-control": "private, max-age=31536000, immutable"},
        keep={"etag": lambda reply: reply.headers["etag"]},
    ),
    row("unchanged", get("/pictures/{hill}/thumb", headers={"if-none-match": "{etag}"}), 304, ""),
    row("other tags", post("/pictures/{hill}/tags", {"tags": ["green"]}), 200, {}),
    row("found", get("/pictures", query={"tag": "green"}), 200, {"pictures": names("hill.png"), "before": 0}),
    row("no more", get("/pictures", query={"tag": "blue"}), 200, {"pictures": [], "before": 0}),
    row("its file", get("/files/content/hill.png"), 200, headers={"content-type": "image/png"}),
    row("all as a zip", post("/files/zip", {}), 200, headers={"content-type": "application/zip"}),
    row("delete", post("/pictures/{hill}/delete", {}), 200, {}),
    row("delete again", post("/pictures/{hill}/delete", {}), 404, NO_PICTURE),
    row("not shown", get("/pictures"), 200, {"pictures": names("hill (3).png", "hill (2).png"), "before": 0}),
    row("nor read", get("/pictures/{hill}"), 404, NO_PICTURE),
    row("nor counted", get("/pictures/tags"), 200, {"tags": [{"tag": "red", "count": 1}]}),
    row("no tags in the trash", post("/pictures/{hill}/tags", {"tags": []}), 404, NO_PICTURE),
    row(
        "the trash",
        get("/pictures/trash"),
        200,
        {"pictures": [GONE | {"id": "{hill}", "tags": ["green"]}], "before": 0},
    ),
    row("small, from the trash", get("/pictures/{hill}/thumb"), 200),
    row("its name is taken", bring("hill.png", HILL), 200, PICTURE | {"name": "hill.png"}),
    row("undelete", post("/pictures/{hill}/undelete", {}), 200, {}),
    row("undelete again", post("/pictures/{hill}/undelete", {}), 404, NO_PICTURE),
    row("has another", get("/pictures", query={"tag": "green"}), 200, {"pictures": names("hill (1).png"), "before": 0}),
    row("delete", post("/pictures/{third}/delete", {}), 200, {}),
    row("for good", post("/files/erase", {"ids": ["{third}"]}), 200, {"erased": 1}),
    row("gone", post("/pictures/{third}/undelete", {}), 404, NO_PICTURE),
    row("from everywhere", get("/pictures/{third}/thumb"), 404, NO_PICTURE),
    row("deleted as a file", post("/files/delete", {"name": "hill (1).png"}), 200, {"id": "{hill}"}),
    row("is not shown", get("/pictures", query={"tag": "green"}), 200, {"pictures": [], "before": 0}),
    row("nor counted", get("/pictures/tags"), 200, {"tags": []}),
    row("and can come back", post("/pictures/{hill}/undelete", {}), 200, {}),
    sign_up("pip"),
    [
        row(f"{method} another's {what}", request(method, f"/pictures/{{hill}}{what}", *payload), 404, NO_PICTURE)
        for method, what, *payload in (
            ("GET", ""),
            ("GET", "/thumb"),
            ("POST", "/tags", {"tags": []}),
            ("POST", "/delete", {}),
            ("POST", "/undelete", {}),
        )
    ],
    destroy("pip"),
    destroy("pia"),
]
WHY = {"error": "picture", "where": "file", "why": str}
NO_PICTURES = [
    "what is no picture",
    sign_up("pam"),
    row("a bomb", bring("a.png", png(20_000, 20_000)), 415, WHY | {"why": "It has more than 64 million pixels."}),
    row("half of one", bring("a.png", HILL[:-20]), 415, WHY | {"why": "It is damaged, or was cut."}),
    row("a drawing with a script", bring("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"), 415, WHY),
    row("a page", bring("a.png", b"<script>alert(1)</script>"), 415, WHY),
    row("nothing", bring("a.png", b""), 415, WHY),
    row("no file", post("/pictures", form={"tags": "x"}, files={"other": b""}), 400, wrong("other")),
    row("a text for a file", post("/pictures", {"file": "x"}), 400, wrong("file")),
    row("a wrong tag", bring("a.png", HILL, "two words"), 400, wrong("tags[0]")),
    row("a wrong name", bring("a\u202egnp.exe", HILL), 400, wrong("name")),
    row("nothing is kept", get("/files"), 200, {"files": [], "before": 0}),
    row("nor shown", get("/pictures"), 200, {"pictures": [], "before": 0}),
    [row(f"id {id}", get(f"/pictures/{id}"), 404, NO_ROUTE) for id in ("1", "x" * 32, "a" * 33)],
    row("no such", get(f"/pictures/{'a' * 32}"), 404, NO_PICTURE),
    destroy("pam"),
]
REFUSED = [
    "refused",
    [row(f"create {n}", post("/notes", payload), 400, wrong(where)) for n, (payload, where) in enumerate(WRONG_NOTES)],
    [row(f"edit {n}", post("/notes/{note}", sent), 400, wrong(where)) for n, (sent, where) in enumerate(WRONG_NOTES)],
    [row(f"id {id}", get(f"/notes/{id}"), 404, NO_ROUTE) for id in ("0", "-1", "1.5", "x", "9" * 20)],
    row("limit", get("/notes", query={"limit": 101}), 400, wrong("limit")),
    row("unknown key", get("/notes", query={"user": "bob"}), 400, wrong("user")),
    row("no such note", get("/notes/7"), 404, NO_NOTE),
    row("edit none", post("/notes/7", {"text": "x"}), 404, NO_NOTE),
    row("nothing was changed", get("/notes"), 200, {"notes": texts("changed"), "more": False}),
]
ANOTHER = [
    "another's notes",
    sign_up("bob"),
    row("not in the list", get("/notes"), 200, {"notes": [], "more": False}),
    row("nor the tags", get("/tags"), 200, {"tags": []}),
    row("can't be read", get("/notes/{note}"), 404, NO_NOTE),
    row("nor edited", post("/notes/{note}", {"text": "his"}), 404, NO_NOTE),
    row("nor deleted", post("/notes/{note}/delete", {}), 404, NO_NOTE),
    row("it is as it was", get("/notes/{note}", user="ann"), 200, {"text": "changed", ...: ...}),
    destroy("bob"),
]
PAGES = [
    "pages",
    sign_up("pat"),
    [row(f"create {n}", post("/notes", {"text": str(n)}), 200, {"id": n}) for n in range(1, 26)],
    row(
        "the newest ten",
        get("/notes", query={"limit": 10}),
        200,
        {"notes": texts(*(str(n) for n in range(25, 15, -1))), "more": True},
        keep={"last": "notes.9.id"},
    ),
    row(
        "the rest",
        get("/notes", query={"limit": 100, "before": "{last}"}),
        200,
        {"notes": texts(*(str(n) for n in range(15, 0, -1))), "more": False},
    ),
    destroy("pat"),
]
TEXTS = [
    "any text comes back as it was",
    sign_up("tex"),
    [
        [
            row(f"create {n}", post("/notes", {"text": text}), 200, {"id": int}, keep={"text": "id"}),
            row(f"read {n}", get("/notes/{text}"), 200, {"text": text, ...: ...}),
        ]
        for n, text in enumerate(ANY_TEXT)
    ],
    row("tags", post("/notes", {"text": "tags", "tags": ["é", "<b>", "😀", "a:b{c}"]}), 200, keep={"tagged": "id"}),
    row("as they were", get("/notes/{tagged}"), 200, {"tags": ["é", "<b>", "😀", "a:b{c}"], ...: ...}),
    row("found", get("/notes", query={"tag": "a:b{c}"}), 200, {"notes": texts("tags"), "more": False}),
    destroy("tex"),
]
SIGN_UP = [
    "sign up",
    visitor("una"),
    row("short password", post("/auth/signup", {"email": "una@example.com", "password": "x"}), 400, wrong("password")),
    row("no address", post("/auth/signup", {"email": "una", "password": PASSWORD}), 400, wrong("email")),
    sign_up("una"),
    row("taken", post("/auth/signup", {"email": "una@example.com", "password": PASSWORD}), 403, {"error": "email"}),
    row("who am I", get("/auth/csrf"), 200, {"csrf": str, "user": {"email": "una@example.com", ...: ...}}),
    destroy("una"),
]
SESSIONS = [
    "sessions",
    sign_up("ses"),
    visitor("phone"),
    row("wrong password", post("/auth/login", {"email": "ses@example.com", "password": NEW}), 403, {"error": "auth"}),
    row("log in", post("/auth/login", {"email": "ses@example.com", "password": PASSWORD}), 200, {"csrf": str}),
    row("two", get("/auth/sessions"), 200, {"sessions": lambda them: len(them) == 2}),
    row("end the others", post("/auth/sessions/end", {"others": True}), 200, {}),
    row("ended", get("/notes", user="ses"), 403, {"error": "session"}),
    row("log out", post("/auth/logout", {}), 200, {}),
    row("logged out", get("/notes"), 403, {"error": "nocookie"}),
    destroy("ses"),
]
PASSWORDS = [
    "passwords",
    sign_up("pam"),
    row("wrong old one", post("/auth/changePassword", {"old": NEW, "new": NEW}), 403, {"error": "auth"}),
    row("change", post("/auth/changePassword", {"old": PASSWORD, "new": NEW}), 200, {}),
    mail("pam@example.com", name="told of it"),
    row("forgotten", post("/auth/recover", {"email": "pam@example.com"}), 200, {}),
    mail("pam@example.com", keep={"reset": r"#reset=(\w+)"}),
    row("no such token", post("/auth/reset", {"token": "x" * 26, "password": NEW}), 403, {"error": "token"}),
    row("reset", post("/auth/reset", {"token": "{reset}", "password": PASSWORD}), 200, {}),
    row("once only", post("/auth/reset", {"token": "{reset}", "password": PASSWORD}), 403, {"error": "token"}),
    row("all sessions ended", get("/notes"), 403, {"error": "session"}),
    row("a stranger's address", post("/auth/recover", {"email": "nobody@example.com"}), 200, {}),
    destroy("pam"),
]
ADDRESSES = [
    "addresses",
    sign_up("eve"),
    row("change", post("/auth/changeEmail", {"email": "eva@example.com", "password": PASSWORD}), 200, {}),
    mail("eva@example.com", keep={"verify": r"#verify=(\w+)"}),
    row("not yet", get("/auth/csrf"), 200, {"csrf": str, "user": {"email": "eve@example.com", ...: ...}}),
    row("verify", post("/auth/verifyEmail", {"token": "{verify}"}), 200, {}),
    row("once only", post("/auth/verifyEmail", {"token": "{verify}"}), 403, {"error": "token"}),
    row("the new one", get("/auth/csrf"), 200, {"csrf": str, "user": {"email": "eva@example.com", ...: ...}}),
    destroy("eve", email="eva@example.com"),
    row("gone", post("/auth/login", {"email": "eva@example.com", "password": PASSWORD}), 403, {"error": "auth"}),
]

ROWS = [
    STRANGERS,
    sign_up("ann"),
    NOTES,
    REFUSED,
    ANOTHER,
    destroy("ann"),
    parallel(PICTURES, NO_PICTURES),
    parallel(PAGES, TEXTS),
    parallel(SIGN_UP, SESSIONS, PASSWORDS, ADDRESSES),
]
