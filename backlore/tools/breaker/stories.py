"""What the account routes promise from one request to the next: sessions end, a token works once, an address has one
account, a client that guesses is stopped, and nothing is left of an erased user.
"""

import base64
import hashlib
import hmac
import json
import struct
import time
from urllib.parse import quote

from backlore.tools.breaker.breaker import Breaker
from backlore.tools.breaker.crowds import observe, together
from backlore.tools.breaker.document import owners
from backlore.tools.breaker.endings import ask, has, reset_token
from backlore.tools.breaker.judge import Flaw
from backlore.tools.breaker.people import JSON, Person
from backlore.tools.breaker.wire import Got, Sent

SIGNUPS = 30  # races of four requests for an address: password hashing spreads them, so that few are close
# Texts that are not e-mail addresses, or look like another one.
ADDRESSES = (
    "", "a", "@", "a@", "@b.example", "a b@b.example", " a@b.example", "a@b.example ", "a@b.example\n", "\ta@b.example",
    "a@b@c.example", "a@b..example", "a@.example", "a@b.example.", "a\u200bb@b.example", "a\u202eb@b.example",
    "a\x00@b.example",
    "a\r\nbcc: c@d.example", "<a@b.example>", "a,b@c.example", "a;b@c.example", "a\u00a0b@b.example", "a@b c.example",
)  # fmt: skip


def accounts(breaker: Breaker) -> None:
    """All stories whose routes the server has."""
    for story in (signups, sessions, cookies, passwords, resets, second_factor, erasure, guessing, silence, disabling):
        story(breaker)


def judge(breaker: Breaker, route: str, right: bool, kind: str, why: str, sent: Sent, got: Got) -> None:
    """Keep a finding unless `right`, and judge the reply by its contract."""
    breaker.requests[route] += 1
    breaker.log.append(f"{breaker.phase} {route} {kind} {why}")
    if not right:
        breaker.keep(route, Flaw(kind, f"{why} It was {got.status} {got.error}".strip() + "."), "a story", sent, got)
    operation = breaker.operation(sent.method, sent.path)
    for each in breaker.flaws(operation, sent, got) if operation else ():
        breaker.keep(str(operation), each, "a story", sent, got)


def signups(breaker: Breaker) -> None:
    """An address has one account, however it is written and however many clients want it at once."""
    route = "POST /auth/signup"
    if not has(breaker, "/auth/signup", "/auth/login"):
        return
    person = breaker.cast.new("case")
    for email in (person.email.upper(), person.email.swapcase(), person.email.title()):
        sent, got = ask(breaker, "/auth/signup", {"email": email, "password": person.password})
        judge(breaker, route, got.status != 200, "taken", "A taken address, in other case, is taken again.", sent, got)
        sent, got = ask(breaker, "/auth/login", {"email": email, "password": person.password})
        judge(
            breaker,
            "POST /auth/login",
            got.status == 200,
            "case",
            "The address in other case does not log in.",
            sent,
            got,
        )
    for email in ADDRESSES:
        sent, got = ask(breaker, "/auth/signup", {"email": email, "password": person.password})
        judge(breaker, route, got.status == 400, "accepted", f"{email!r} is taken for an address.", sent, got)
    operation = breaker.operation("POST", "/auth/signup")
    assert operation is not None
    for number in range(SIGNUPS):
        body = json.dumps({"email": f"race{number}-{person.email}", "password": person.password}).encode()
        sents = [Sent("POST", "/auth/signup", body, JSON)] * 4
        replies = together(breaker, operation, sents, None, "signed up at once")
        good = sum(each.status == 200 for each in replies)
        judge(breaker, route, good == 1, "lost", f"One address signed up {good} times at once.", sents[0], replies[0])


def sessions(breaker: Breaker) -> None:
    """A logout, and the end of the other sessions, end what they should and nothing else."""
    if not has(breaker, "/auth/logout", "/auth/sessions/end"):
        return
    person = breaker.cast.new("leaves")
    ask(breaker, "/auth/logout", {}, person)
    _is_out(breaker, person, "POST /auth/logout", "after logout")
    breaker.cast.log_in(person)
    other = Person(person.name, person.email, person.marker, breaker.wire.new_address())
    breaker.cast.log_in(other)
    ask(breaker, "/auth/sessions/end", {"others": True}, person)
    _is_out(breaker, other, "POST /auth/sessions/end", "after its end")
    _is_in(breaker, person, "POST /auth/sessions/end", "of who ended the others")


def _who(breaker: Breaker, person: Person) -> tuple[Sent, Got]:
    sent = Sent("GET", "/auth/csrf", None, {}, person.name, person.session)
    return sent, breaker.wire.send(sent, person.address)


def _is_out(breaker: Breaker, person: Person, route: str, when: str) -> None:
    sent, got = _who(breaker, person)
    right = (got.status, got.error) == (403, "session")
    judge(breaker, route, right, "session", f"A session lives on {when}.", sent, got)


def _is_in(breaker: Breaker, person: Person, route: str, whose: str) -> None:
    sent, got = _who(breaker, person)
    judge(breaker, route, got.status == 200, "session", f"The session {whose} has ended.", sent, got)


def cookies(breaker: Breaker) -> None:
    """The session cookie is HttpOnly and SameSite."""
    if not has(breaker, "/auth/login"):
        return
    person = breaker.cast.people["bob2"]
    sent, got = ask(breaker, "/auth/login", {"email": person.email, "password": person.password})
    for cookie in got.cookies:
        words = {word.strip().lower() for word in cookie.split(";")[1:]}
        right = "httponly" in words and bool({"samesite=lax", "samesite=strict"} & words)
        judge(breaker, "POST /auth/login", right, "cookie", "A cookie without HttpOnly and SameSite.", sent, got)


def passwords(breaker: Breaker) -> None:
    """A new password ends the other sessions and replaces the old password."""
    route = "POST /auth/changePassword"
    if not has(breaker, "/auth/changePassword"):
        return
    person = breaker.cast.new("changes")
    other = Person(person.name, person.email, person.marker, breaker.wire.new_address())
    breaker.cast.log_in(other)
    new = "another long battery \u00e9"
    sent, got = ask(breaker, "/auth/changePassword", {"old": person.password, "new": new}, person)
    judge(breaker, route, got.status == 200, "refused", "A password can't be changed.", sent, got)
    _is_out(breaker, other, route, "after the password was changed")
    sent, got = ask(breaker, "/auth/login", {"email": person.email, "password": person.password})
    judge(breaker, route, got.error == "auth", "session", "The old password still logs in.", sent, got)
    decomposed = "another long battery e\u0301"
    sent, got = ask(breaker, "/auth/login", {"email": person.email, "password": decomposed})
    judge(
        breaker,
        route,
        got.status == 200,
        "case",
        "The new password, in another Unicode form, does not log in.",
        sent,
        got,
    )


def resets(breaker: Breaker) -> None:
    """The token of a mail works once, also at once. It is read from /outbox, which is there in dev."""
    route = "POST /auth/reset"
    operation = breaker.operation("POST", "/auth/reset")
    if not has(breaker, "/auth/recover", "/auth/reset") or operation is None:
        return
    person = breaker.cast.new("forgets")
    token = reset_token(breaker, person)
    if not token:
        return
    body = json.dumps({"token": token, "password": "yet another battery"}).encode()
    sents = [Sent("POST", "/auth/reset", body, JSON)] * 10
    replies = together(breaker, operation, sents, None, "one token at once")
    good = sum(each.status == 200 for each in replies)
    judge(breaker, route, good == 1, "spent", f"One token served {good} times at once.", sents[0], replies[0])
    sent, got = ask(breaker, "/auth/reset", {"token": token, "password": "yet another battery 2"})
    judge(breaker, route, got.error == "token", "spent", "A token that has served serves again.", sent, got)
    _is_out(breaker, person, route, "after the password was reset")


def code_of(secret: str, moment: float) -> str:
    """The six digits that an authenticator shows (RFC 6238)."""
    key = base64.b32decode(secret)
    digest = hmac.digest(key, struct.pack(">Q", int(moment) // 30), hashlib.sha1)
    start = digest[-1] & 15
    return f"{(int.from_bytes(digest[start : start + 4], 'big') & 0x7FFFFFFF) % 10**6:06}"


def second_factor(breaker: Breaker) -> None:
    """A ticket and a recovery code work once, also at once. The password alone opens nothing."""
    if not has(breaker, "/auth/totp/begin", "/auth/totp/confirm", "/auth/second"):
        return
    person = breaker.cast.new("careful")
    _, begun = ask(breaker, "/auth/totp/begin", {"password": person.password}, person)
    secret = (begun.body or {}).get("secret", "")
    sent, got = (
        ask(breaker, "/auth/totp/confirm", {"code": code_of(secret, time.time())}, person) if secret else (None, begun)
    )
    codes = (got.body or {}).get("recoveryCodes") or []
    if sent is None or len(codes) < 3:
        return
    login = {"email": person.email, "password": person.password}
    route = "POST /auth/second"

    def ticket() -> str:
        sent, got = ask(breaker, "/auth/login", login)
        judge(breaker, "POST /auth/login", got.error == "second", "gate", "The password alone is enough.", sent, got)
        return str((got.body or {}).get("ticket", ""))

    first = ticket()
    sent, got = ask(breaker, "/auth/second", {"ticket": first, "code": codes[0]})
    judge(breaker, route, got.status == 200, "refused", "A recovery code is refused.", sent, got)
    sent, got = ask(breaker, "/auth/second", {"ticket": first, "code": codes[1]})
    judge(breaker, route, got.error == "token", "spent", "A ticket that has served serves again.", sent, got)
    sent, got = ask(breaker, "/auth/second", {"ticket": ticket(), "code": codes[0]})
    judge(breaker, route, got.error == "code", "spent", "A recovery code that has served serves again.", sent, got)
    operation = breaker.operation("POST", "/auth/second")
    assert operation is not None
    sents = [
        Sent("POST", "/auth/second", json.dumps({"ticket": ticket(), "code": codes[2]}).encode(), JSON)
        for _ in range(4)
    ]
    replies = together(breaker, operation, sents, None, "one code at once")
    good = sum(each.status == 200 for each in replies)
    judge(breaker, route, good == 1, "spent", f"One recovery code served {good} times at once.", sents[0], replies[0])


def erasure(breaker: Breaker) -> None:
    """Nothing is left of an erased account: no session, no login, no data for the next user of its address."""
    route = "POST /auth/destroy"
    if not has(breaker, "/auth/destroy"):
        return
    person = breaker.cast.new("erased")
    for maker in owners(breaker.operations):
        breaker.make(maker, person, breaker.name_of(maker))
    sent, got = ask(breaker, "/auth/destroy", {"password": person.password}, person)
    judge(breaker, route, got.status == 200, "refused", "An account can't be erased.", sent, got)
    _is_out(breaker, person, route, "after the account was erased")
    login = {"email": person.email, "password": person.password}
    again, got = ask(breaker, "/auth/login", login)
    judge(breaker, route, got.error == "auth", "erased", "An erased account logs in.", again, got)
    again, got = ask(breaker, "/auth/signup", login)
    judge(breaker, route, got.status == 200, "erased", "The address of an erased account is not free.", again, got)
    heir = Person(person.name, person.email, person.marker, breaker.wire.new_address(), made=person.made)
    breaker.cast.log_in(heir)
    left = person.marker in observe(breaker, heir)
    judge(breaker, route, not left, "erased", "Who takes the address sees the erased user's data.", sent, got)


def guessing(breaker: Breaker) -> None:
    """A client that guesses passwords is stopped, and told for how long."""
    route = "POST /auth/login"
    if not has(breaker, "/auth/login") or not breaker.wire.has_addresses:
        return
    person, address = breaker.cast.new("guessed"), breaker.wire.new_address()
    for number in range(45):
        sent, got = ask(breaker, "/auth/login", {"email": person.email, "password": f"wrong {number}"}, None, address)
        judge(breaker, route, True, "guess", "", sent, got)
        if got.status == 429:
            break
    judge(breaker, route, got.status == 429, "guess", "45 wrong passwords from one address are not stopped.", sent, got)
    header = Sent("POST", "/auth/login", sent.body, {**JSON, "x-forwarded-for": "192.0.2.7", "x-real-ip": "192.0.2.7"})
    got = breaker.wire.send(header, address)
    judge(breaker, route, got.status == 429, "guess", "X-Forwarded-For gets a stopped guesser on.", header, got)


def silence(breaker: Breaker) -> None:
    """No reply shows whether an address is known."""
    person = breaker.cast.people["bob2"]
    for path, more in (("/auth/recover", {}), ("/auth/login", {"password": "wrong battery"})):
        if has(breaker, path):
            _, known = ask(breaker, path, {"email": person.email, **more})
            sent, got = ask(breaker, path, {"email": f"nobody-{person.email}", **more})
            alike = (known.status, known.raw, sorted(known.headers)) == (got.status, got.raw, sorted(got.headers))
            judge(breaker, f"POST {path}", alike, "tells", "A known address is answered in another way.", sent, got)


def disabling(breaker: Breaker) -> None:
    """A user that is disabled is logged out, and can't log in."""
    eve = breaker.cast.people["eve3"]
    path = "/admin/users/{id}/disable"
    if not has(breaker, path) or not eve.is_admin:
        return
    person = breaker.cast.new("disabled")
    sent, got = ask(breaker, path.replace("{id}", quote(person.id)), {}, eve)
    judge(breaker, f"POST {path}", got.status == 200, "refused", "A user can't be disabled.", sent, got)
    _is_out(breaker, person, f"POST {path}", "after the user was disabled")
    again, got = ask(breaker, "/auth/login", {"email": person.email, "password": person.password})
    judge(breaker, f"POST {path}", got.error == "auth", "session", "A disabled user logs in.", again, got)
