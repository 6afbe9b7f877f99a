"""Configuration: an application's `config.py` and `secret.py`, and what the command line said.

Laws: one environment name, `dev` by default, is the only outside input; an unknown or wrongly typed key is
refused with its name and what was expected; a flag wins over `config.py`; a secret is never a default one.
"""

import contextlib
import hashlib
import hmac
import importlib
import os
import secrets
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import msgspec

from backlore.core.blame import blame
from backlore.core.payload import Codec, Invalid, Payload, between, length, matching
from backlore.core.temporary import FOLDER

Port = Annotated[int, between(1, 65535)]
Seconds = Annotated[float, between(0.01, 10 * 365 * 86400)]
# Without TLS a provider is believed on this machine alone.
ISSUER = r"https://[^\s?#@]+|http://(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?(/[^\s?#@]*)?"
Name = Annotated[str, matching("[a-z][a-z0-9_-]{0,30}", "lower-case letters, digits, - and _")]
Filled = Annotated[str, matching(r"[^\0]*\S[^\0]*", "a text that is not empty")]
Size = Annotated[int, between(1, 1 << 40)]  # bytes
Server = Annotated[str, matching(r"https?://[^/\s@]+", "like http://10.0.0.5:8001")]


class RedisConfig(Payload):
    """A redis or valkey that we don't start ourselves. Its password is `redis_password` in `secret.py`."""

    embedded: Annotated[str, matching("/.+", "like /usr/bin/valkey-server")] | None = (
        None  # a program that we do start, instead of our own; stands alone
    )
    host: Filled = "127.0.0.1"
    port: Port = 6379
    path: Filled | None = None  # of a unix socket; wins over host and port
    username: str | None = None
    tls: bool = False
    ca: Filled | None = None  # file with the certificate authority to trust, else the system's
    db: Annotated[int, between(0, 15)] = 0


class MailConfig(Payload):
    """An SMTP server to send by, Amazon SES's for one. Its password is `smtp_password` in `secret.py`."""

    host: Filled
    sender: Annotated[str, length(3, 254)]  # what mails come from: "Shoebox <hello@shoebox.example>"
    port: Port = 587
    username: str | None = None
    tls: Literal["starttls", "tls", "none"] = "starttls"


class ProviderConfig(Payload):
    """A provider of OpenID Connect that users sign in by. Its client secret stands in `providers` of `secret.py`."""

    issuer: Annotated[str, matching(ISSUER, "like https://accounts.example.com")]  # to the letter as it names itself
    client_id: Annotated[str, length(1, 500)]
    name: Annotated[str, length(1, 50)]  # for users


class BucketConfig(Payload):
    """A bucket of S3, Amazon's or another's. Its keys are `s3_key` and `s3_secret` in `secret.py`."""

    name: Annotated[str, matching(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "3 to 63 lower-case letters, digits, . and -")]
    region: Annotated[str, length(1, 50)] = "us-east-1"
    endpoint: Annotated[str, matching(r"https?://[^/\s]+", "like https://s3.example.com")] | None = (
        None  # None: Amazon's
    )
    path_style: bool = True  # the bucket's name in the path; else in the host's name
    prefix: Annotated[str, matching("[A-Za-z0-9/_-]{0,200}", "letters, digits, /, - and _")] = ""  # before all names


class FilesConfig(Payload):
    """What users may keep, and how safely."""

    quota: Size = 10 << 30  # of a user, with the trash
    entries: Annotated[int, between(1, 1 << 30)] = 100_000  # files of a user, with the trash
    total: Size | None = None  # of all users together; None: as much as the disk takes
    free: Annotated[int, between(0, 1 << 40)] = 1 << 30  # bytes of the disk that no upload may take
    trash: Seconds = 30 * 86400.0  # how long what was deleted or overwritten can be had back
    unfinished: Seconds = 86400.0  # how long a resumable upload waits for its next bytes
    durable: Literal["disk", "s3"] = "disk"  # where a file must be before it is acknowledged
    servers: list[Server] = []  # that keep the contents, by their URLs; none: the disk of this machine does
    copies: Annotated[int, between(1, 5)] = 2  # of a content, on so many of the servers
    # nginx's internal location for the contents of the data folder; requests that come through `proxies` are
    # answered by it (X-Accel-Redirect)
    accel: Annotated[str, matching("/[a-z0-9_-]{1,50}/", "like /contents/")] | None = None


class Config(Payload):
    """All keys of `CONFIG` in `config.py`, with their defaults."""

    name: Name  # of the application
    host: Filled = "127.0.0.1"
    port: Port = 8000
    address: Annotated[str, matching(r"https?://[^/\s]+", "like https://app.example")] | None = (
        None  # as users see it; https: Secure cookies
    )
    cookie: Annotated[str, matching("[A-Za-z0-9_-]{1,50}", "letters, digits, - and _")] | None = (
        None  # its name; by default that of the app
    )
    environments: list[Name] = []  # that there are beside dev and prod
    data: Filled = ".data"  # folder of all state on this machine
    workers: Annotated[int, between(0, 512)] = 0  # 0: one per CPU
    redis: RedisConfig | None = None  # None: embedded, in the data folder
    redis_timeout: Seconds = 0.8  # how long a command may wait; then 503
    durability: Literal["everysec", "always"] = "everysec"  # of the embedded engine: when the AOF is fsynced
    proxies: list[str] = []  # addresses or networks whose X-Forwarded-For is believed
    session_idle: Seconds = 14 * 86400  # a session ends after so long without use
    session_limit: Seconds = 90 * 86400  # and after so long in any case
    mail: MailConfig | None = None  # None: into the folder outbox of the data folder
    verify_email: bool | None = None  # whether an account begins with a verified address; None: in prod
    bucket: BucketConfig | None = None  # None: files are on the disk alone
    files: FilesConfig = msgspec.field(default_factory=FilesConfig)
    rates: dict[str, tuple[int, float]] = {}  # limits by kind, over the defaults: count, seconds
    whitelist: list[str] | None = None  # addresses that may sign up; None: everybody
    admins: list[str] = []  # addresses
    providers: dict[Name, ProviderConfig] = {}  # of OpenID Connect, by an id of your choice
    body_limit: Size = 1 << 20  # JSON and forms without files; of identity's routes 64 KiB at most
    upload_limit: Size = 100 << 20  # a form with files, all parts together; a resumable upload
    upload_parts: Annotated[int, between(1, 10_000)] = 100
    header_timeout: Seconds = 10.0  # a client that takes longer for its headers is cut
    body_timeout: Seconds = 30.0  # for a whole body within body_limit
    upload_rate: Size = 1024  # bytes a second that an upload brings at least, in each body_timeout
    upload_timeout: Seconds = 3 * 3600.0  # for a whole upload
    drain: Seconds = 10.0  # how long requests under way may take when a worker ends

    @property
    def own_redis(self) -> RedisConfig | None:
        """The redis that we don't start; None when ours is embedded."""
        return None if self.redis is None or self.redis.embedded else self.redis

    @property
    def secure(self) -> bool:
        """Whether users reach us by HTTPS."""
        return bool(self.address and self.address.startswith("https:"))


class Secret(Payload):
    """All keys of `SECRET` in `secret.py`."""

    cookie: Annotated[str, length(32, 1000)]  # signs sessions and what is bound to them
    redis_password: str | None = None
    smtp_password: str | None = None
    s3_key: str | None = None
    s3_secret: str | None = None
    files_token: Annotated[str, length(16, 1000)] | None = None  # opens the file servers
    providers: dict[str, str] = {}  # client secrets by the id of the provider


class Settings(Payload):
    """What an application runs with."""

    folder: Path
    env: str
    config: Config
    secret: Secret

    @property
    def data(self) -> Path:
        """The data folder, absolute."""
        return real(self.folder / self.config.data)

    @property
    def temporary(self) -> Path:
        """Where files of requests are for as long as these last."""
        return self.data / FOLDER

    @property
    def outbox(self) -> Path:
        """Where mails are, without an SMTP server."""
        return self.data / "outbox"

    @property
    def pages(self) -> list[str]:
        """The developer's pages that there are."""
        return [] if self.env != "dev" else ["docs"] if self.config.mail else ["docs", "outbox"]

    @property
    def key(self) -> str:
        """Opens the developer's pages: as random as the secret it is made of, and of no use for anything else."""
        return hmac.digest(self.secret.cookie.encode(), b"pages of the developer", "sha256").hex()[:32]

    @property
    def verify_email(self) -> bool:
        """Whether an account begins with a verified address."""
        given = self.config.verify_email
        return self.env != "dev" if given is None else given

    @property
    def address(self) -> str:
        """Where users reach us; links in mails begin with it."""
        return self.config.address or f"http://{in_url(self.config.host)}:{self.config.port}"

    @property
    def engine_socket(self) -> Path:
        """The unix socket of the embedded engine: in the data folder, unless that path is too long for a socket."""
        inside = self.data / "redis" / "engine.sock"
        if len(os.fsencode(inside)) < 100:  # bytes, of the 104 that macOS takes and the 108 of Linux
            return inside
        name = hashlib.sha256(os.fsencode(self.data)).hexdigest()[:16]
        # not TMPDIR, which can be as long, and another one for who looks from a terminal
        return Path("/tmp") / f"backlore-{os.getuid()}-{name}" / "engine.sock"


class Context(Payload):
    """What the command line said: travels from the master to its workers as JSON."""

    folder: str
    env: str = "dev"
    flags: dict[str, str | int] = {}
    serves: Literal["application", "files"] = "application"


class ConfigError(Exception):
    """The configuration can't be used; the text says which key and what to do."""


_context = Context(folder=".")


def environment() -> str:
    """The environment's name, for `config.py` to split a property at: `from backlore import ENV`."""
    return _context.env


def enter(context: Context) -> None:
    """Make `context` the one that this process works in, its application importable, its secrets made."""
    global _context
    if not context.folder.strip():
        raise ConfigError("The application's folder is empty: name it with --app.")
    folder = real(Path(context.folder))
    if not (folder / "config.py").is_file():
        raise ConfigError(f"{folder} holds no application: config.py is missing. Name its folder with --app.")
    _context = msgspec.structs.replace(context, folder=str(folder))
    sys.path.insert(0, str(folder))
    if context.env == "dev":
        make_secret(folder / "secret.py")


def load() -> Settings:
    """The settings of the application that was entered, from its `config.py`."""
    config = import_own("config")
    if not hasattr(config, "CONFIG"):
        raise ConfigError("config.py has no CONFIG: a dict with at least a name.")
    return settle(config.CONFIG)


def import_own(name: str) -> ModuleType:
    """A module of the application that was entered. Raises ConfigError, with file and line of what is wrong."""
    folder = Path(_context.folder)
    if not (folder / f"{name}.py").is_file():
        raise ConfigError(f"{folder} holds no {name}.py.")
    try:
        return importlib.import_module(name)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(blame(error, folder) or f"{name}.py: {type(error).__name__}: {error}") from None


def settle(config: dict[str, Any]) -> Settings:
    """The settings that `CONFIG`, the flags and `secret.py` make together. Raises ConfigError."""
    if not isinstance(config, dict):
        raise ConfigError("config.py: CONFIG should be a dict.")
    known = _convert({**config, **_context.flags}, Config, "config.py", _context.flags)
    _check_environment(known.environments)
    settings = Settings(
        folder=real(Path(_context.folder)),
        env=_context.env,
        config=known,
        secret=_convert(getattr(import_own("secret"), "SECRET", {}), Secret, "secret.py"),
    )
    if settings.data in (settings.folder, *settings.folder.parents):
        raise ConfigError(f"The data folder {settings.data} holds the application: choose one of its own with --data.")
    redis = settings.config.redis
    if redis and redis.embedded and redis != RedisConfig(embedded=redis.embedded):
        raise ConfigError("config.py: redis.embedded: stands alone, for what it starts has no host, port or name.")
    servers = settings.config.files.servers
    if len(set(servers)) < len(servers):
        raise ConfigError("config.py: files.servers: each is named once, or copies would lie on one disk.")
    if not settings.secret.files_token and (servers or _context.serves == "files"):
        raise ConfigError("secret.py: files_token is missing: a long random text, the same on nodes and file servers.")
    return settings


def _check_environment(named: list[str]) -> None:
    """Raises ConfigError for an environment that nobody has named, and for one of production without secrets."""
    env, folder = _context.env, _context.folder
    secret = Path(folder) / "secret.py"
    known = list(dict.fromkeys(["dev", "prod", *named]))
    if env not in known:
        raise ConfigError(
            f"{env!r} is no name of an environment here: there are {', '.join(known)}. "
            "Others are named by `environments` in config.py."
        )
    if env != "dev" and not secret.exists():
        raise ConfigError(
            f"{secret} is missing, and is made by itself in dev only: all servers of {env} share one. "
            f"Bring theirs; the first of all is made by: backlore routes --app {folder}"
        )


def _convert(value: Any, type: type[Any], file: str, flags: Collection[str] = ()) -> Any:
    try:
        return Codec(type).from_object(value)
    except Invalid as error:
        known = ", ".join(type.__struct_fields__)
        hint = f" Known are: {known}." if error.why == "Is not known here." else ""
        # of secret.py only the key's name is shown, never a value
        place = f"--{error.where}" if error.where in flags else f"{file}: {error.where or 'the whole'}"
        raise ConfigError(f"{place}: {error.why}{hint}") from None


def in_url(host: str) -> str:
    """As a URL has it: an address of IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def real(path: Path) -> Path:
    """The absolute path without links. One that can't be followed stays, and fails when it is used."""
    return Path(os.path.realpath(path))


def make_secret(file: Path) -> None:
    """Write a `secret.py` of random secrets, readable by its owner alone, if there is none."""
    if file.exists():
        return
    text = (
        '"""Secrets of this installation. Keep out of version control; all its servers share one."""\n\n'
        f'SECRET = {{\n    "cookie": "{secrets.token_urlsafe(48)}",\n'
        f'    "files_token": "{secrets.token_urlsafe(48)}",\n}}\n'
    )
    try:
        with tempfile.NamedTemporaryFile("w", prefix=".secret.", dir=file.parent) as draft:  # of mode 600
            draft.write(text)
            draft.flush()
            os.fsync(draft.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(draft.name, file)  # atomic, and never over one that another process made meanwhile
    except OSError as error:
        raise ConfigError(f"{file} can't be written ({error.strerror}): make the folder writable.") from None
