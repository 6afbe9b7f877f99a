"""What Shoebox promises, as requests and their replies: `backlore test --app example` sends them."""

from typing import Any

from backlore.testing import PASSWORD, destroy, get, mail, parallel, post, request, row, sign_up, visitor

NEW = "another long password"
NOTE = {"id": int, "text": str, "tags": list, "created": int, "changed": int}
NO_NOTE = {"error": "note"}
NO_ROUTE = {"error": "route"}


def wrong(where: str) -> dict[str, Any]:
    """The reply to a payload that breaks the route's type there."""
    return {"error": "payload", "where": where, "why": str}


def texts(*expected: str):
    """Whether a list of notes has these texts, in this order."""
    return lambda notes: [note["text"] for note in notes] == list(expected)


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
    parallel(PAGES, TEXTS),
    parallel(SIGN_UP, SESSIONS, PASSWORDS, ADDRESSES),
]
