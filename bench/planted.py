"""Forty-five defects, each planted alone in a copy of Shoebox and of the framework: which does the breaker find?

    python bench/planted.py                    all, one by one, until the first finding each
    python bench/planted.py --together         one copy with all that can live together, for five minutes at most
    python bench/planted.py --schemathesis     the same, by schemathesis alone, with a session (slow)
    python bench/planted.py --second           the fifteen of second.py alone
    python bench/planted.py --only "lost update"

What the breaker finds in a copy without a defect is not counted. Anything else that it finds in a copy with a defect
counts as that defect.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from backlore.cli.breaking import fetch
from backlore.tools.breaker.breaker import Breaker, Finding, TimeOver
from backlore.tools.breaker.plan import plan
from backlore.tools.breaker.wire import Wire
from backlore.tools.testing.server import OwnServer

sys.path.append(str(Path(__file__).parent))
from second import SECOND

ROOT = Path(__file__).parent.parent
SHOEBOX, PICTURES, STAGES = "example/server.py", "example/pictures.py", "backlore/web/stages.py"
PAYLOAD, BODY, REPLY = "backlore/core/payload.py", "backlore/web/body.py", "backlore/web/reply.py"
WEB, STATIC, RATES = "backlore/web/application.py", "backlore/web/static.py", "backlore/services/rates.py"
USERS, ACCOUNTS, SESSIONS = (f"backlore/services/identity/{name}.py" for name in ("users", "accounts", "sessions"))
DIRECTORY = "backlore/services/identity/directory.py"


class Edit(NamedTuple):
    """`old` occurs in `file` exactly once, and is replaced."""

    file: str
    old: str
    new: str


TAGS = "        tags = list(dict.fromkeys(note.tags))\n"
HIGHEST = 'key=lambda each: (len("".join(each)), "".join(each))'
WORDS = r"[^\s\x00-\x1f\x7f-\x9f\ufeff,]+"
NO_NOTE = '                    return reply(404, error="{}")\n                pipe.multi()'
NO_DOTS = """if any(part in ("", "..") or part.startswith(".") or "\\0" in part or "\\\\" in part for part in parts):"""

DEFECTS: dict[str, list[Edit]] = {
    "bound removed": [Edit(SHOEBOX, "text: Annotated[str, length(1, 5000)]", "text: str")],
    "ownership not checked": [
        Edit(SHOEBOX, 'redis.incr(key("lastnote", user))', 'redis.incr("lastnote")'),
        Edit(SHOEBOX, 'redis.hgetall(key("note", request.user.id, id))', 'redis.hgetall(f"note:{id}")'),
        Edit(
            SHOEBOX,
            'pipe.hset(key("note", user, id), mapping=fields)',
            'pipe.hset(key("note", user, id), mapping=fields).hset(f"note:{id}", mapping=fields)',
        ),
    ],
    "500 on a Unicode edge": [Edit(SHOEBOX, TAGS, f"{TAGS}        assert len(note.text.lower()) == len(note.text)\n")],
    "extra key accepted": [
        Edit(PAYLOAD, "class Payload(msgspec.Struct, forbid_unknown_fields=True", "class Payload(msgspec.Struct"),
        Edit(PAYLOAD, "lax = not shape.forbid_unknown_fields", "lax = False"),
    ],
    "lost update": [
        Edit(SHOEBOX, '                await pipe.watch(key("note", user, id))\n', ""),
        Edit(SHOEBOX, 'await pipe.hgetall(key("note", user, id))', 'await redis.hgetall(key("note", user, id))'),
    ],
    "csrf skipped on one route": [
        Edit(
            STAGES,
            '    header = request.headers.get(b"x-csrf-token")\n',
            '    if request.path.endswith("/delete"):\n        return None\n'
            '    header = request.headers.get(b"x-csrf-token")\n',
        )
    ],
    "another's row in a list": [
        Edit(SHOEBOX, 'sorted(await redis.smembers(key("tags", user)))', 'sorted(await redis.smembers("tags"))'),
        Edit(SHOEBOX, "zip(tags, counts, strict=True) if n]", "zip(tags, counts, strict=True)]"),
        Edit(SHOEBOX, 'pipe.sadd(key("tags", user), tag)', 'pipe.sadd("tags", tag)'),
    ],
    "slow regular expression": [Edit(PICTURES, f'matching(r"{WORDS}"', f'matching(r"({WORDS})+"')],
    "wrong word of an error": [Edit(SHOEBOX, NO_NOTE.format("note"), NO_NOTE.format("gone"))],
    "admin gate open": [
        Edit(STAGES, 'return None if request.user.admin else reply(403, error="admin")', "return None")
    ],
    "session outlives logout": [
        Edit(
            SESSIONS,
            "        await self.end(request.user.id, request.session)\n        return reply(200, headers",
            "        return reply(200, headers",
        )
    ],
    "number too large for redis": [
        Edit(SHOEBOX, "limit: Annotated[int, between(1, 100)]", "limit: Annotated[int, between(1, 2**63 - 1)]")
    ],
    "page one too long": [Edit(SHOEBOX, '"notes": shown[: query.limit],', '"notes": shown[: query.limit + 1],')],
    "wrong content-type": [
        Edit(
            SHOEBOX,
            "return reply(200, show(id, note)) if note",
            'return reply(200, show(id, note), headers=[("content-type", "text/html")]) if note',
        )
    ],
    "detail of an error shown": [
        Edit(
            WEB,
            'case Malformed():\n                return reply(400, error="json")',
            "case Malformed():\n                return reply(400, error=str(error))",
        )
    ],
    "HEAD differs from GET": [
        Edit(REPLY, '(b"content-length", b"%d" % len(self.body))]', '(b"content-length", b"0")]')
    ],
    "one ETag for all": [Edit(REPLY, "hashlib.blake2b(body, digest_size=12).hexdigest().encode()", 'b"etag"')],
    "token spent twice": [
        Edit("backlore/services/identity/tokens.py", "await self._redis.getdel(", "await self._redis.get(")
    ],
    "ids given twice at once": [
        Edit(
            SHOEBOX,
            'id = await redis.incr(key("lastnote", user))',
            'id = int(await redis.get(key("lastnote", user)) or 0) + 1\n    await redis.set(key("lastnote", user), id)',
        )
    ],
    "memory kept": [
        Edit(WEB, "Hook = Callable[[], Awaitable[None]]", "Hook = Callable[[], Awaitable[None]]\nKEPT: list = []"),
        Edit(
            WEB,
            "request = Request(scope, receive, self._proxies)",
            'request = Request(scope, receive, self._proxies)\n            KEPT.append((request, b"x" * 10_000))',
        ),
    ],
    "null let in": [
        Edit(
            SHOEBOX,
            "tags: Annotated[list[Tag], length(0, 10)] = []",
            "tags: Annotated[list[Tag], length(0, 10)] | None = None",
        )
    ],
    "address in other case": [
        Edit("backlore/core/addresses.py", 'normalize("NFC", email).lower())', 'normalize("NFC", email))')
    ],
    "space in an address": [
        Edit(
            ACCOUNTS,
            "class SignUp(Payload):\n    email: Email",
            "class SignUp(Payload):\n    email: Annotated[str, length(3, 254)]",
        )
    ],
    "one address, two accounts": [
        Edit(
            DIRECTORY,
            "return bool(await self._redis.set(email_key(email), user, nx=True, ex=CLAIM))",
            "return not await self._redis.get(email_key(email))",
        ),
        Edit(DIRECTORY, "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end\n", ""),
    ],
    "crash on deep nesting": [
        Edit(
            PAYLOAD,
            '        except RecursionError:\n            raise Invalid("", "Is nested too deeply.") from None\n'
            "        except (msgspec.DecodeError",
            "        except (msgspec.DecodeError",
        )
    ],
    "hang on a full list": [
        Edit(SHOEBOX, TAGS, f"        tags = list(min(permutations(dict.fromkeys(note.tags)), {HIGHEST}))\n"),
        Edit(SHOEBOX, "import time\n", "import time\nfrom itertools import permutations\n"),
    ],
    "data of an erased user": [
        Edit(
            USERS,
            "email, id, now = normalize(email), random_text(80), await self._now()",
            "email, now = normalize(email), await self._now()\n"
            "        id = __import__('hashlib').blake2b(email.encode(), digest_size=8).hexdigest()",
        ),
        Edit(SHOEBOX, "app.identity.on_destroy.append(erase_notes)\n", ""),
    ],
    "another method accepted": [
        Edit(
            WEB,
            'method = "GET" if request.method == "HEAD" else request.method',
            'method = {"HEAD": "GET", "PUT": "POST"}.get(request.method, request.method)',
        )
    ],
    "path out of the folder": [
        Edit(STATIC, NO_DOTS, "if not wanted:"),
        Edit(STATIC, "return path if path.is_relative_to(self._place) else None", "return path"),
    ],
    "header missing": [
        Edit(
            REPLY,
            'JSON: list[Header] = [(b"content-type", b"application/json"), *SECURITY]',
            'JSON: list[Header] = [(b"content-type", b"application/json"), *SECURITY[1:]]',
        )
    ],
}
DEFECTS |= {name: [Edit(*edit) for edit in edits] for name, edits in SECOND.items()}
# Defects that can't be in one copy with others: they edit the same place, stop the run, or hide other defects.
APART = {
    "hang on a full list",
    "ownership not checked",
    "500 on a Unicode edge",
    "memory kept",
    "address in other case",
    *SECOND,
}


def plant(edits: list[Edit], folder: Path) -> tuple[Path, dict[str, str]]:
    """Make a copy with these edits. Returns the application's folder, and an environment that imports the copy."""
    skip = shutil.ignore_patterns(".data", "secret.py", "__pycache__")
    for name in ("example", "backlore"):
        shutil.copytree(ROOT / name, folder / name, ignore=skip)
    for edit in edits:
        file = folder / edit.file
        text = file.read_text()
        assert text.count(edit.old) == 1, f"{text.count(edit.old)} times in {edit.file}: {edit.old}"
        file.write_text(text.replace(edit.old, edit.new))
    return folder / "example", {**os.environ, "PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}


@contextlib.contextmanager
def planted(edits: list[Edit]) -> Iterator[OwnServer]:
    """A server from a copy with these edits."""
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        app, env = plant(edits, Path(folder))
        with OwnServer(str(app), env) as server:
            yield server


def hunt(
    server: OwnServer,
    seconds: float,
    first: bool = True,
    phase: str = "",
    known: frozenset[tuple[str, str]] = frozenset(),
) -> Breaker:
    """A run against a server. `first`: stop at the first finding that is not `known`. `phase`: run only this phase,
    after the one that makes people.
    """
    breaker = Breaker(
        Wire(server.entrance), fetch(server.url), seconds=seconds, make_admin=server.make_admin, heal=server.heal
    )

    def stop(route: str) -> None:
        if first and breaker.findings.keys() - known:
            raise TimeOver

    breaker.on_progress = stop
    breaker.run(each for each in plan(server.process.pid) if not phase or each[0] in ("people", phase))
    return breaker


def one_by_one(names: list[str], seconds: float) -> None:
    """Plant each defect alone: what is found first, and when."""
    print(f"{'planted':<34} {'found':<60} {'s':>6} {'requests':>9}")
    with planted([]) as server:
        known = frozenset(hunt(server, seconds, first=False).findings)
    print(f"{'nothing':<34} {', '.join(f'{kind}: {route}' for route, kind in known) or '-'}", flush=True)
    found, total = 0, 0.0
    for name in names:
        with planted(DEFECTS[name]) as server:
            since = time.monotonic()
            breaker = hunt(server, seconds, known=known)
            took = time.monotonic() - since
        first = next((each for place, each in breaker.findings.items() if place not in known), None)
        total += took
        found += first is not None
        print(f"{name:<34} {tell(first):<60.60} {took:6.1f} {breaker.wire.count:9,}", flush=True)
    print(f"\n{found} of {len(names)} found, in {total:.0f} s of searching altogether")


def tell(finding: Finding | None) -> str:
    """A finding in short."""
    return f"{finding.kind}: {finding.route}: {finding.why}" if finding else "-"


def together(seconds: float) -> None:
    """One copy with many defects: all findings, within the time."""
    edits = [edit for name, edits in DEFECTS.items() if name not in APART for edit in edits]
    with planted(edits) as server:
        since = time.monotonic()
        breaker = hunt(server, seconds, first=False)
        took = time.monotonic() - since
    for finding in breaker.findings.values():
        print(f"{finding.kind:<12} {finding.route:<32} {finding.why:.100}")
    print(f"\n{len(DEFECTS) - len(APART)} defects in one copy: {len(breaker.findings)} findings in {took:.0f} s")


HOOKS = """
import os, httpx, schemathesis

@schemathesis.auth(refresh_interval=None)
class Session:
    def get(self, case, context):
        login = {"email": "schema@example.com", "password": "correct horse battery"}
        with httpx.Client(base_url=os.environ["PLANTED_URL"]) as client:
            client.post("/auth/signup", json=login)
            got = client.post("/auth/login", json=login)
        return got.headers["set-cookie"].split(";")[0], got.json()["csrf"]

    def set(self, case, data, context):
        if case.operation.path in ("/auth/logout", "/auth/destroy", "/auth/login"):
            data = self.get(case, context)
        name, _, value = data[0].partition("=")
        case.cookies = {**(case.cookies or {}), name: value}
        case.headers["x-csrf-token"] = data[1]
"""
# Behaviour that is no defect, but that a schema can't express: a query that is too long is 414; POST .../delete
# deletes; some routes refuse more than their type does (`x-beyond-type`): a common password, an address that no mail
# can reach, a file that is no picture.
SETTINGS = """
[checks]
ensure_resource_availability.enabled = false
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 408, 413, 414, 415, 429]

[[operations]]
include-path-regex = "^/auth/(signup|recover|reset|changePassword|changeEmail)$"
checks.positive_data_acceptance.enabled = false

# bodies of raw bytes, with headers that their protocol demands and no schema of ours says
[[operations]]
include-path-regex = "^/files/tus"
checks.positive_data_acceptance.enabled = false

[[operations]]
include-name = "POST /pictures"
checks.positive_data_acceptance.enabled = false
"""


def by_schemathesis(names: list[str], seconds: float) -> None:
    """The same, by schemathesis alone: a defect counts as found if schemathesis fails."""
    found = 0
    for name in ["nothing", *names]:
        with planted(DEFECTS.get(name, [])) as server, tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "hooks.py").write_text(HOOKS)
            (Path(folder) / "schemathesis.toml").write_text(SETTINGS)
            env = {**os.environ, "PLANTED_URL": server.url, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": folder}
            words = [
                str(Path(sys.executable).parent / "schemathesis"),
                "run",
                f"{server.url}/openapi.json",
                "--seed",
                "1",
            ]
            words += ["--max-time", str(int(seconds)), "--max-failures", "1", "--request-timeout", "5", "-n", "30"]
            since = time.monotonic()
            # it runs the pattern itself too, and may hang as long as the server does
            with contextlib.suppress(subprocess.TimeoutExpired), (Path(folder) / "said").open("w") as out:
                subprocess.run(words, cwd=folder, env=env, stdout=out, stderr=out, timeout=3 * seconds)
            took = time.monotonic() - since
            lines = (Path(folder) / "said").read_text().splitlines()
        said = next((line for line in lines if line.startswith("- ")), "")
        found += bool(said and name != "nothing")
        print(f"{name:<28} {'found' if said else '-':<6} {took:6.1f} s  {said}", flush=True)
    print(f"\nschemathesis: {found} of {len(names)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--together", action="store_true")
    parser.add_argument("--schemathesis", action="store_true")
    parser.add_argument("--second", action="store_true", help="The second planting alone.")
    parser.add_argument("--only", action="append", choices=list(DEFECTS), metavar="NAME")
    parser.add_argument("--seconds", type=float, default=300, help="For one run at most.")
    given = parser.parse_args()
    wanted = given.only or list(SECOND if given.second else DEFECTS)
    if given.together:
        together(given.seconds)
    elif given.schemathesis:
        by_schemathesis(wanted, given.seconds)
    else:
        one_by_one(wanted, given.seconds)
