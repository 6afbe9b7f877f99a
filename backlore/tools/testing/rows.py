"""Rows: what is sent, and what must come back. Values only: nothing here sends.

    row("create", post("/notes", {"text": "x"}), 200, {"id": int}, keep={"note": "id"})

Law: a row that can't work is refused, with its name, when it is written and not when its turn comes.
"""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import msgspec

from backlore.tools.testing.kept import names_in
from backlore.tools.testing.match import check_expected
from backlore.tools.testing.reply import RowReply

PASSWORD = "correct horse battery"  # of the users that `sign_up` makes
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a name in HTTP (RFC 9110, §5.6.2)


class SuiteError(ValueError):
    """The suite itself is wrong; the text names the row and what is wrong with it."""


class Default(Enum):
    """Stands for an argument that was not given."""

    USER = "the user of the chapter"
    NOTHING = "no payload"


User = str | Literal[Default.USER] | None
File = bytes | Path | tuple[str, bytes] | tuple[str, bytes, str]
Keep = Mapping[str, str | Callable[[RowReply], Any]]


@dataclass(frozen=True)
class RowRequest:
    """A request to send: made by `get`, `post` and `request`."""

    method: str
    path: str
    payload: Any = Default.NOTHING
    query: Mapping[str, Any] = field(default_factory=dict)
    form: Mapping[str, Any] | None = None
    files: Mapping[str, File | Sequence[File]] | None = None
    raw: bytes | None = None
    headers: Mapping[str, str | None] = field(default_factory=dict)
    user: User = Default.USER
    csrf: bool = True

    def names(self) -> set[str]:
        """The names of kept values that it uses."""
        return names_in([self.path, self.payload, self.query, self.form], [self.path, *self.headers.values()])


@dataclass(frozen=True)
class Row:
    """One request and what must come back: made by `row`."""

    name: str
    request: RowRequest
    status: int
    body: Any
    headers: Mapping[str, Any]
    keep: Keep
    until: float
    place: str = ""  # FILE:LINE

    def names(self) -> set[str]:
        """The names of kept values that it uses."""
        return self.request.names() | self.names_expected()

    def names_expected(self) -> set[str]:
        """The names of kept values in what must come back."""
        return names_in([self.body, self.headers], [])


@dataclass(frozen=True)
class ExpectedMail:
    """A mail that must come: made by `mail`."""

    address: str
    keep: Mapping[str, str]
    name: str
    within: float
    place: str = ""  # FILE:LINE

    def names(self) -> set[str]:
        """The names of kept values that it uses."""
        return names_in([], [self.address])


@dataclass(frozen=True)
class Visitor:
    """Introduces a user, with cookies, a csrf token and a loopback address of its own: made by `visitor`."""

    user: str


@dataclass(frozen=True)
class Chapter:
    """Rows that belong together. `always`: they run even when a row before them failed."""

    name: str
    items: Sequence[Any]
    always: bool = False
    made: bool = False  # made by `sign_up` or `destroy`: `--only` keeps it


@dataclass(frozen=True)
class Parallel:
    """Chapters that run at the same time: made by `parallel`."""

    chapters: Sequence[Any]


def request(
    method: str,
    path: str,
    payload: Any = Default.NOTHING,
    *,
    query: Mapping[str, Any] | None = None,
    form: Mapping[str, Any] | None = None,
    files: Mapping[str, File | Sequence[File]] | None = None,
    raw: bytes | None = None,
    headers: Mapping[str, str | None] | None = None,
    user: User = Default.USER,
    csrf: bool = True,
) -> RowRequest:
    """A request of any method.

    At most one of these is its body: `payload` (sent as JSON), `form` (urlencoded; with `files` multipart), `raw`.
    A file is its bytes, a Path, or (name, bytes) or (name, bytes, type); a list of them repeats the field. A list in
    `query` or `form` repeats its key. A header that is None is not sent. `user` None is a stranger without cookies.
    """
    return RowRequest(method, path, payload, query or {}, form, files, raw, headers or {}, user, csrf)


def get(path: str, **given: Any) -> RowRequest:
    """GET `path`; the rest as in `request`."""
    return request("GET", path, **given)


def post(path: str, payload: Any = Default.NOTHING, **given: Any) -> RowRequest:
    """POST `payload` as JSON to `path`; the rest as in `request`."""
    return request("POST", path, payload, **given)


def row(
    name: str,
    request: RowRequest,
    status: int,
    body: Any = ...,
    headers: Mapping[str, Any] | None = None,
    keep: Keep | None = None,
    until: float = 0,
) -> Row:
    """A request and what must come back.

    `body` may have in any place an exact value, a type, a function that takes what came and returns True, or `...` for
    anything. `...: ...` in a dict, or `...` at the end of a list, allows more. `headers` is the same by name; None
    stands for a header that must be absent. `keep` takes from the reply what later rows use as {name}: "sessions.0.id"
    is a path in the JSON body, a function takes the whole RowReply. `until` is for how many seconds the row is tried
    again until it fits. Raises SuiteError, naming the row.
    """
    made = Row(name, request, status, body, headers or {}, keep or {}, until, _place())
    try:
        _check_row(made)
        _check_request(made.request)
    except (ValueError, TypeError) as error:
        raise SuiteError(f"the row {name!r}: {error}") from None
    return made


def mail(address: str, keep: Mapping[str, str] | None = None, name: str = "", within: float = 10) -> ExpectedMail:
    """A row that waits for a mail to `address` in the developer's page /outbox. The newest that fits is used, once.

    `keep` maps a name to a regular expression that the mail's text must match. What is kept is its first group or,
    without one, all that matched. Mails from before the suite don't count. `within`: seconds to wait. Raises
    SuiteError.
    """
    made = ExpectedMail(address, keep or {}, name or f"a mail to {address}", within, _place())
    for each, pattern in made.keep.items():
        try:
            re.compile(pattern)
            _check_name(each)
        except (re.error, TypeError, ValueError) as error:
            raise SuiteError(f"the row {made.name!r}: keep {each!r}: {error}") from None
    return made


def visitor(user: str) -> Visitor:
    """A new user that `sign_up` does not sign up, for a suite that has such rows of its own."""
    return Visitor(user)


def sign_up(user: str, email: str = "", password: str = PASSWORD, verify: bool = False) -> Chapter:
    """A chapter: `user` signs up and logs in, as USER@example.com by default.

    `verify`: the user follows the link in the mail, for an application whose accounts begin with that.
    """
    email = email or address_of(user)
    login = {"email": email, "password": password}
    rows: list[Any] = [Visitor(user), row("sign up", post("/auth/signup", login, user=user), 200, {})]
    if verify:
        rows.append(mail(email, keep={"verify_token": r"#verify=(\w+)"}))
        proof = {"token": "{verify_token}", "password": password}
        rows.append(row("verify", post("/auth/verifyEmail", proof, user=user), 200))
    rows.append(row("log in", post("/auth/login", login, user=user), 200, {"csrf": str}))
    return Chapter(f"sign up {user}", rows, made=True)


def destroy(user: str, email: str = "", password: str = PASSWORD) -> Chapter:
    """A chapter that erases a user through the routes. It runs even when a row before it failed."""
    login = {"email": email or address_of(user), "password": password}
    rows = [
        row("log in", post("/auth/login", login, user=user), 200),
        row("destroy", post("/auth/destroy", {"password": password}, user=user), 200, {}),
    ]
    return Chapter(f"destroy {user}", rows, always=True, made=True)


def parallel(*chapters: Sequence[Any] | Chapter) -> Parallel:
    """Chapters that share no state, run at the same time. Each begins with a copy of what was kept before it.

    What a chapter keeps, and the users that it signs up, are known in that chapter only.
    """
    return Parallel(chapters)


def address_of(user: str) -> str:
    """The e-mail address that `sign_up` gives a user."""
    return user if "@" in user else f"{user}@example.com"


def _place() -> str:
    """The FILE:LINE of the suite that makes a row."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename == __file__ and frame.f_back:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _check_row(made: Row) -> None:
    if not isinstance(made.name, str) or not made.name:
        raise TypeError("its name should be a string")
    if not isinstance(made.request, RowRequest):
        raise TypeError(f"its request should be made by get, post or request, not {made.request!r}")
    if type(made.status) is not int or not 100 <= made.status <= 599:
        raise TypeError(f"its status should be a number from 100 to 599, not {made.status!r}")
    if not isinstance(made.until, int | float) or made.until < 0:
        raise TypeError(f"until should be seconds, not {made.until!r}")
    check_expected(made.body, "body")
    for name, expected in made.headers.items():
        check_expected(expected, f"headers.{name}")
    for name, source in made.keep.items():
        _check_name(name)
        if not isinstance(source, str) and not callable(source):
            raise TypeError(f"keep {name!r} should be a path or a function, not {source!r}")


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise ValueError(f"{name!r} can't be kept: a name has letters, digits and _")


def _check_request(sent: RowRequest) -> None:
    if not isinstance(sent.path, str) or not sent.path.startswith(("/", "{")):
        raise TypeError(f"its path should begin with /, not be {sent.path!r}")
    if not TOKEN.fullmatch(sent.method):
        raise ValueError(f"{sent.method!r} is no method")
    bodies = [sent.payload is not Default.NOTHING, sent.raw is not None, (sent.form or sent.files) is not None]
    if sum(bodies) > 1:
        raise ValueError("a request has one body: payload, raw, or form and files")
    if sent.raw is not None and not isinstance(sent.raw, bytes):
        raise TypeError("raw should be bytes")
    if sent.payload is not Default.NOTHING:
        msgspec.json.encode(sent.payload)  # raises TypeError for a value that JSON can't hold
    for name, value in sent.headers.items():
        if not TOKEN.fullmatch(name) or not isinstance(value, str | None) or re.search("[\r\n\0]", value or ""):
            raise ValueError(f"the header {name!r}: {value!r} can't be sent")
