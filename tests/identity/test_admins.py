"""Admins over HTTP and on the command line: what they see and do with users, and what nobody may."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.conftest import (
    KINDS,
    PASSWORD,
    SHOEBOX,
    Server,
    User,
    engine_cli,
    mail_to,
    mails,
    serving,
    wait_until_letters_left,
)

NEW = "another long password"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(KINDS, tmp_path_factory.mktemp("admins")) as made:
        User(made, "admin@example.com").sign_up()  # by configuration
        yield made


@pytest.fixture
def boss(server: Server) -> Iterator[User]:
    with User(server, "admin@example.com") as user:
        yield user.log_in()


def id_of(user: User) -> str:
    return user.get("/auth/csrf").json()["user"]["id"]


def backlore(server: Server, *words: str, answer: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "backlore.cli", "user", "--app", str(server.folder), "--data", str(server.data)]
    return subprocess.run([*command, *words], input=answer, capture_output=True, text=True, timeout=20)


def test_only_admins_get_in(server: Server) -> None:
    user = User(server, "plain@example.com").sign_up()
    for path in ("/admin/users", f"/admin/users/{id_of(user)}"):
        assert user.get(path).json() == {"error": "admin"}
        assert User(server).get(path).json() == {"error": "nocookie"}
    for act in ("disable", "enable", "endSessions", "reset", "removeFactors", "destroy"):
        assert user.post(f"/admin/users/{id_of(user)}/{act}").json() == {"error": "admin"}
    assert user.post(f"/admin/users/{id_of(user)}/admin", json={"admin": True}).json() == {"error": "admin"}


def test_list(server: Server, boss: User) -> None:
    for name in ("zoe", "adam", "mia"):
        User(server, f"{name}@list.example").sign_up()
    found = boss.get("/admin/users", params={"search": "LIST.example", "sort": "email"}).json()
    assert [each["email"] for each in found["users"]] == ["adam@list.example", "mia@list.example", "zoe@list.example"]
    assert found["after"] == "" and found["total"] >= 4
    newest = boss.get("/admin/users", params={"search": "list.example"}).json()["users"]
    assert {each["email"] for each in newest} == {"adam@list.example", "mia@list.example", "zoe@list.example"}
    assert [each["created"] for each in newest] == sorted((each["created"] for each in newest), reverse=True)
    assert "password" not in str(found).replace("has_password", "")
    for sort in ("email", "created"):
        seen, after = [], ""
        while True:
            query = {"search": "list.example", "sort": sort, "limit": 1, "after": after}
            page = boss.get("/admin/users", params=query).json()
            seen += [each["email"] for each in page["users"]]
            after = page["after"]
            if not after:
                break
        assert sorted(seen) == ["adam@list.example", "mia@list.example", "zoe@list.example"]
    for wrong in ({"sort": "password"}, {"limit": 0}, {"limit": 101}, {"x": 1}, {"search": "a" * 255}):
        assert boss.get("/admin/users", params=wrong).json()["error"] == "payload"


def test_a_page_goes_on_where_its_end_was_erased(server: Server, boss: User) -> None:
    ids = {name: id_of(User(server, f"{name}@gone.example").sign_up()) for name in "abcd"}
    query = {"search": "gone.example", "sort": "email", "limit": 2}
    first = boss.get("/admin/users", params=query).json()
    assert boss.post(f"/admin/users/{ids['b']}/destroy").json() == {}
    second = boss.get("/admin/users", params=query | {"after": first["after"]}).json()
    assert [each["email"] for each in second["users"]] == ["c@gone.example", "d@gone.example"]


def test_see_one(server: Server, boss: User) -> None:
    user = User(server, "seen@example.com").sign_up()
    got = boss.get(f"/admin/users/{id_of(user)}").json()
    assert got["user"]["email"] == "seen@example.com" and got["user"]["state"] == "active"
    assert [each["origin"] for each in got["sessions"]] == ["127.0.0.1"]
    secret = user.cookies["kinds"].partition(".")[0]
    assert secret not in str(got) and "argon2" not in str(got)
    assert boss.get("/admin/users/nobody").status_code == 404


def test_disable_and_enable(server: Server, boss: User) -> None:
    user = User(server, "off@example.com").sign_up()
    path = f"/admin/users/{id_of(user)}"
    assert boss.post(f"{path}/disable").json() == {}
    assert user.get("/who").json() == {"error": "session"}
    login = {"email": "off@example.com", "password": PASSWORD}
    assert user.post("/auth/login", json=login).json() == {"error": "auth"}
    user.post("/auth/recover", json={"email": "off@example.com"})
    wait_until_letters_left(server)
    assert boss.get(path).json()["user"]["state"] == "disabled"
    assert boss.post(f"{path}/enable").json() == {}
    assert user.log_in().get("/who").status_code == 200
    assert not mails(server, "off@example.com")  # no link to go round the disabling


def test_sessions_reset_and_destroy(server: Server, boss: User) -> None:
    user = User(server, "acted@example.com").sign_up()
    path = f"/admin/users/{id_of(user)}"
    assert boss.post(f"{path}/endSessions").json() == {}
    assert user.get("/who").json() == {"error": "session"}
    assert boss.post(f"{path}/reset").json() == {}
    assert "#reset=" in mail_to(server, "acted@example.com")
    assert boss.post(f"{path}/destroy").json() == {}
    assert boss.get(path).status_code == 404 and boss.post(f"{path}/enable").status_code == 404
    assert not boss.get("/admin/users", params={"search": "acted@"}).json()["users"]
    server.wait_said("admin.destroy")


def test_an_admin_by_flag(server: Server, boss: User) -> None:
    user = User(server, "second@example.com").sign_up()
    path = f"/admin/users/{id_of(user)}"
    assert boss.post(f"{path}/admin", json={"admin": True}).json() == {}
    assert user.get("/auth/csrf").json()["user"]["admin"] and user.get("/admin/users").status_code == 200
    for act in ("disable", "destroy", "endSessions"):
        assert user.post(f"{path}/{act}").json() == {"error": "self"}
    assert user.post(f"{path}/admin", json={"admin": False}).json() == {"error": "self"}
    assert boss.post(f"{path}/admin", json={"admin": False}).json() == {}
    assert user.get("/admin/users").json() == {"error": "admin"}


def test_csrf_guards_admins(server: Server, boss: User) -> None:
    user = User(server, "forged@example.com").sign_up()
    del boss.headers["x-csrf-token"]
    assert boss.post(f"/admin/users/{id_of(user)}/destroy").json() == {"error": "csrf"}
    evil = {"sec-fetch-site": "cross-site", "x-csrf-token": boss.csrf}
    assert boss.post(f"/admin/users/{id_of(user)}/destroy", headers=evil).json() == {"error": "csrf"}


def test_command_line(server: Server) -> None:
    user = User(server, "cli@example.com").sign_up()
    assert "cli@example.com" in backlore(server, "list", "CLI@").stdout
    shown = backlore(server, "show", "Cli@example.com").stdout
    assert "active" in shown and "python-httpx" in shown
    assert backlore(server, "admin", "cli@example.com").returncode == 0
    assert user.get("/auth/csrf").json()["user"]["admin"]
    assert backlore(server, "admin", "--off", "cli@example.com").returncode == 0
    assert not user.get("/auth/csrf").json()["user"]["admin"]
    assert backlore(server, "end-sessions", "cli@example.com").returncode == 0
    assert user.get("/who").json() == {"error": "session"}
    assert backlore(server, "disable", "cli@example.com").returncode == 0
    login = {"email": "cli@example.com", "password": PASSWORD}
    assert user.post("/auth/login", json=login).json() == {"error": "auth"}
    assert backlore(server, "enable", "cli@example.com").returncode == 0
    user.log_in()
    refused = backlore(server, "disable", "nobody@example.com")
    assert (refused.returncode, refused.stderr) == (1, "Error: There is no user nobody@example.com.\n")


def test_command_line_destroys_the_applications_data_too(tmp_path_factory: pytest.TempPathFactory) -> None:
    with serving(SHOEBOX, tmp_path_factory.mktemp("destroying")) as server:
        user = User(server, "cli@example.com").sign_up()
        user.post("/notes", json={"text": "a note", "tags": ["red"]})
        assert backlore(server, "destroy", "cli@example.com", answer="n\n").returncode == 1
        assert user.get("/notes").json()["notes"]
        assert backlore(server, "destroy", "cli@example.com", answer="y\n").returncode == 0
        keys = subprocess.run([*engine_cli(server), "keys", "*"], capture_output=True, text=True).stdout
        assert "note" not in keys and "cli@" not in keys
        server.stop()
        stopped = backlore(server, "list")
        assert stopped.returncode == 1 and "is the application running?" in stopped.stderr, stopped.stderr
        assert stopped.stderr.count("\n") == 1, stopped.stderr


def test_whitelist_of_domains(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = {"whitelist": ["one@example.com", "Friends.example", "@club.example"]}
    with serving(KINDS, tmp_path_factory.mktemp("whitelist"), settings=settings) as server, User(server) as user:

        def tried(email: str) -> int:
            return user.post("/auth/signup", json={"email": email, "password": PASSWORD}).status_code

        assert [tried(each) for each in ("One@example.com", "a@friends.example", "b@club.example")] == [200] * 3
        strangers = ("two@example.com", "a@sub.friends.example", "a@notfriends.example", "friends.example@evil.example")
        assert [tried(each) for each in strangers] == [403] * 4


def test_a_known_browser_gets_in_while_others_guess(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = {"rates": {"login-account": (5, 60), "login": (8, 60), "login-device": (3, 60)}}
    with serving(KINDS, tmp_path_factory.mktemp("device"), settings=settings) as server:
        owner = User(server, "owner@example.com").sign_up()
        other = User(server, "other@example.com").sign_up()
        guess = {"email": "owner@example.com", "password": "a wrong password"}
        with User(server) as stranger:
            while stranger.post("/auth/login", json=guess).status_code != 429:
                pass
            right = guess | {"password": PASSWORD}
            assert stranger.post("/auth/login", json=right).status_code == 429
        assert other.post("/auth/login", json=right).status_code == 429  # known, but for another account
        owner.post("/auth/logout")
        assert owner.log_in().get("/who").status_code == 200
        tries = [owner.post("/auth/login", json=guess).status_code for _ in range(4)]
        assert tries == [403] * 3 + [429]  # a browser that was stolen can't guess without end
        forged = {"cookie": "kinds-device=" + "0" * 32 + "." + "0" * 32}
        assert User(server).post("/auth/login", json=right, headers=forged).status_code == 429
