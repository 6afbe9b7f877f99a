"""Configuration: an application's `config.py` and `secret.py`, and the flags of the command line.

Laws:

- The name of the environment, `dev` by default, is the only outside input besides flags.
- A key that is unknown or has the wrong type is refused; the error names the key and what was expected.
- A flag wins over `config.py`.
- No secret has a default.
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
from typing import Any, Literal

import msgspec

from backlore.core.blame import blame
from backlore.core.payload import Codec, Invalid, Payload
from backlore.core.schema import Config, RedisConfig, Secret
from backlore.core.temporary import FOLDER


class Settings(Payload):
    """The settings that an application runs with."""

    folder: Path
    env: str
    config: Config
    secret: Secret

    @property
    def data(self) -> Path:
        """The data folder, absolute."""
        return real(self.folder / self.config.data)

    @property
    def cookie(self) -> str:
        """The name of the session cookie, without the prefix; the names of our other cookies begin with it."""
        return self.config.cookie or self.config.name

    @property
    def temporary(self) -> Path:
        """The folder for files that last as long as a request."""
        return self.data / FOLDER

    @property
    def outbox(self) -> Path:
        """The folder that mails go into when no SMTP server is configured."""
        return self.data / "outbox"

    @property
    def pages(self) -> list[str]:
        """The names of the developer's pages that this environment serves."""
        return [] if self.env != "dev" else ["docs"] if self.config.mail else ["docs", "outbox"]

    @property
    def key(self) -> str:
        """The key to the developer's pages: derived from the cookie secret, as random as that, and of no other use."""
        return hmac.digest(self.secret.cookie.encode(), b"pages of the developer", "sha256").hex()[:32]

    @property
    def session_memory(self) -> float:
        """The seconds for which a worker caches a session."""
        given = self.config.session_memory
        return (0.0 if self.config.own_redis else 5.0) if given is None else given

    @property
    def verify_email(self) -> bool:
        """Whether an account begins with a verified address."""
        given = self.config.verify_email
        return self.env != "dev" if given is None else given

    @property
    def address(self) -> str:
        """The URL at which users reach the server; links in mails begin with it."""
        return self.config.address or f"http://{in_url(self.config.host)}:{self.config.port}"

    @property
    def engine_socket(self) -> Path:
        """The unix socket of the embedded engine: in the data folder, unless that path is too long for a socket."""
        inside = self.data / "redis" / "engine.sock"
        if len(os.fsencode(inside)) < 100:  # bytes; macOS allows 104, Linux 108
            return inside
        name = hashlib.sha256(os.fsencode(self.data)).hexdigest()[:16]
        # not TMPDIR: that can be as long, and may differ between terminals
        return Path("/tmp") / f"backlore-{os.getuid()}-{name}" / "engine.sock"


class Context(Payload):
    """What the command line said. The master passes it to its workers as JSON."""

    folder: str
    env: str = "dev"
    flags: dict[str, str | int] = {}
    serves: Literal["application", "files"] = "application"


class ConfigError(Exception):
    """The configuration can't be used; the text says which key and what to do."""


_context = Context(folder=".")


def environment() -> str:
    """The environment's name. `config.py` uses it (`from backlore import ENV`) where a value differs by environment."""
    return _context.env


def enter(context: Context) -> None:
    """Make this process work for the application of `context`: its modules can be imported afterwards.

    In dev a missing `secret.py` is made. Raises ConfigError.
    """
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
    """The settings of the application that this process has entered, from its `config.py`. Raises ConfigError."""
    config = import_own("config")
    if not hasattr(config, "CONFIG"):
        raise ConfigError("config.py has no CONFIG: a dict with at least a name.")
    return settle(config.CONFIG)


def import_own(name: str) -> ModuleType:
    """Import a module of the application that this process has entered.

    Raises ConfigError; it names the file and line when the module's own code fails.
    """
    folder = Path(_context.folder)
    if not (folder / f"{name}.py").is_file():
        raise ConfigError(f"{folder} holds no {name}.py.")
    try:
        return importlib.import_module(name)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        why = blame(error, folder) or f"{name}.py: {type(error).__name__}: {error}"
        taken = taken_names(folder) if isinstance(error, ImportError | AttributeError) else []
        hint = f". {taken[0]} has the name of a module that is loaded already: rename it." if taken else ""
        raise ConfigError(why + hint) from None


def taken_names(folder: Path) -> list[str]:
    """Files of an application that `import` doesn't find: others of their names were loaded before."""
    found = [(file.name, getattr(sys.modules.get(file.stem), "__file__", None)) for file in sorted(folder.glob("*.py"))]
    return [name for name, loaded in found if loaded and real(Path(loaded).parent) != folder]


def settle(config: dict[str, Any]) -> Settings:
    """The settings made from `CONFIG`, the flags and `secret.py`. Raises ConfigError."""
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
        raise ConfigError("config.py: redis.embedded: stands alone: the program that it names takes no other key.")
    servers = settings.config.files.servers
    if len(set(servers)) < len(servers):
        raise ConfigError("config.py: files.servers: names a server twice: copies would lie on one disk.")
    if not settings.secret.files_token and (servers or _context.serves == "files"):
        raise ConfigError("secret.py: files_token is missing: a long random text, the same on nodes and file servers.")
    return settings


def _check_environment(named: list[str]) -> None:
    """Raises ConfigError for an environment that is not declared, and for one other than dev without `secret.py`."""
    env, folder = _context.env, _context.folder
    secret = Path(folder) / "secret.py"
    known = list(dict.fromkeys(["dev", "prod", *named]))
    if env not in known:
        raise ConfigError(
            f"{env!r} is no name of an environment here: there are {', '.join(known)}. "
            "Declare others in `environments` of config.py."
        )
    if env != "dev" and not secret.exists():
        raise ConfigError(
            f"{secret} is missing: it is made automatically in dev only, because all servers of {env} share one. "
            f"Copy theirs; for the first server, make it with: backlore routes --app {folder}"
        )


def _convert(value: Any, type: type[Any], file: str, flags: Collection[str] = ()) -> Any:
    try:
        return Codec(type).from_object(value)
    except Invalid as error:
        known = ", ".join(type.__struct_fields__)
        hint = f" Known are: {known}." if error.why == "Is not known here." else ""
        # for secret.py the key's name is shown, never a value
        place = f"--{error.where}" if error.where in flags else f"{file}: {error.where or 'the whole'}"
        raise ConfigError(f"{place}: {error.why}{hint}") from None


def in_url(host: str) -> str:
    """The host as a URL writes it: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def real(path: Path) -> Path:
    """The absolute path with symbolic links resolved. A link that can't be followed stays, and fails on use."""
    return Path(os.path.realpath(path))


def make_secret(file: Path) -> None:
    """Write a `secret.py` with random secrets, readable by its owner alone, unless there is one. Raises ConfigError."""
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
                os.link(draft.name, file)  # atomic, and never replaces one that another process has made meanwhile
    except OSError as error:
        raise ConfigError(f"{file} can't be written ({error.strerror}): make the folder writable.") from None
