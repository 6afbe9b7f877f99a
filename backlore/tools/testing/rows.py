"""Rows: what is sent, and what has to come back. Values only: nothing here sends.

    row("create", post("/notes", {"text": "x"}), 200, {"id": int}, keep={"note": "id"})

Law: a row that can't work is refused when it is written, with its name, not when its turn comes.
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
    """What is meant where nothing is said."""

    USER = "the user of the chapter"
    NOTHING = "no payload"


User = str | Literal[Default.USER] | None
File = bytes | Path | tuple[str, bytes] | tuple[str, bytes, str]
Keep = Mapping[str, str | Callable[[RowReply], Any]]


@dataclass(frozen=True)
class RowRequest:
    """What is sent: made by `get`, `post` and `request`."""

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
        """The kept names that it uses."""
        return names_in([self.path, self.payload, self.query, self.form], [self.path, *self.headers.values()])


@dataclass(frozen=True)
class Row:
    """One request and what has to come back: made by `row`."""

    name: str
    request: RowRequest
    status: int
    body: Any
    headers: Mapping[str, Any]
    keep: Keep
    until: float
    place: str = ""  # FILE:LINE

    def names(self) -> set[str]:
        """The kept names that it uses."""
        return self.request.names() | self.names_expected()

    def names_expected(self) -> set[str]:
        """Those in what has to come back."""
        return names_in([self.body, self.headers], [])


@dataclass(frozen=True)
class ExpectedMail:
    """A mail that has to come: made by `mail`."""

    address: str
    keep: Mapping[str, str]
    name: str
    within: float
    place: str = ""  # FILE:LINE

    def names(self) -> set[str]:
        """The kept names that it uses."""
        return names_in([], [self.address])


@dataclass(frozen=True)
class Visitor:
    """From here on this user is known: cookies, a csrf token, a loopback address of its own."""

    user: str


@dataclass(frozen=True)
class Chapter:
    """Rows that belong together. `always`: they run even when a row before them failed."""

    name: str
    items: Sequence[Any]
    always: bool = False
    made: bool = False  # by `sign_up` or `destroy`: `--only` keeps it


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
    """A request and what has to come back.

    In any place of `body`: an exact value; a type; a function that takes what came and says True; `...` for anything.
    `...: ...` in a dict, or `...` at the end of a list: there may be more. `headers` likewise by name, None for one
    that must be absent. `keep` takes from the reply what later rows use as {name}: "sessions.0.id" is a path in the
    JSON body, a function takes the whole Reply. `until`: seconds for which it is tried again until it fits.
    Raises SuiteError, naming the row.
    """
    made = Row(name, request, status, body, headers or {}, keep or {}, until, _place())
    try:
        _check_row(made)
        _check_request(made.request)
    except (ValueError, TypeError) as error:
        raise SuiteError(f"the row {name!r}: {error}") from None
    return made


def mail(address: str, keep: Mapping[str, str] | None = None, name: str = "", within: float = 10) -> ExpectedMail:
    """A row that waits for a mail to `address`, in the dev page /outbox: the newest that fits counts, and serves once.

    `keep`: name → regular expression that its text must have; kept is the first group, or else all that matched.
    Mails from before the suite don't count. `within`: seconds to wait. Raises SuiteError.
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
    """Somebody new, who is not signed up by rows made for it: to write these rows oneself."""
    return Visitor(user)


def sign_up(user: str, email: str = "", password: str = PASSWORD, verify: bool = False) -> Chapter:
    """A chapter: `user` signs up and logs in, as USER@example.com by default.

    `verify`: by the link in the mail, for an application whose accounts begin with that.
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
    """A chapter that erases a user again, through the routes. It runs even when a row before it failed."""
    login = {"email": email or address_of(user), "password": password}
    rows = [
        row("log in", post("/auth/login", login, user=user), 200),
        row("destroy", post("/auth/destroy", {"password": password}, user=user), 200, {}),
    ]
    return Chapter(f"destroy {user}", rows, always=True, made=True)


def parallel(*chapters: Sequence[Any] | Chapter) -> Parallel:
    """Chapters that share no state, run at the same time; each begins with a copy of what was kept before it.

    What a chapter keeps, and whom it signs up, ends with it.
    """
    return Parallel(chapters)


def address_of(user: str) -> str:
    """The address of e-mail that `sign_up` gives a user."""
    return user if "@" in user else f"{user}@example.com"


def _place() -> str:
    """Where the suite says what is being made: FILE:LINE."""
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
        msgspec.json.encode(sent.payload)  # raises TypeError for what JSON can't say
    for name, value in sent.headers.items():
        if not TOKEN.fullmatch(name) or not isinstance(value, str | None) or re.search("[\r\n\0]", value or ""):
            raise ValueError(f"the header {name!r}: {value!r} can't be sent")
