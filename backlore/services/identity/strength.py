"""Which passwords are too weak to be taken (NIST 800-63B rev. 4, §3.1.1.2)."""

import asyncio
import functools
import importlib.util
import runpy
import string
from pathlib import Path

from backlore.core.payload import Invalid


@functools.cache
def common_passwords() -> frozenset[str]:
    """The passwords that everybody guesses first, by zxcvbn's list."""
    package = importlib.util.find_spec("zxcvbn")
    assert package is not None and package.origin is not None  # it is a dependency of ours
    # the file alone, and not for good: imported, the package would keep some 7 MB more for all time
    lists = runpy.run_path(str(Path(package.origin).with_name("frequency_lists.py")))["FREQUENCY_LISTS"]
    return frozenset(word for word in lists["passwords"] if len(word) >= 8)


async def check_password(password: str, where: str, email: str, application: str) -> None:
    """Refuse common passwords, and what is only the user's own address or our name, whatever digits or signs stand
    around it. Raises Invalid."""
    small = password.lower()
    if small in await asyncio.to_thread(common_passwords):  # which are read from the disk at first
        raise Invalid(where, "Is one of the most common passwords: choose another.")
    bare = small.strip(string.digits + string.punctuation)
    if email and (small == email or bare == email.partition("@")[0]):
        raise Invalid(where, "Is your own address: choose another.")
    if bare == application.lower():
        raise Invalid(where, "Is the name of this place: choose another.")
