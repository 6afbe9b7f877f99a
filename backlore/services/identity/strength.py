"""Refuses passwords that are too weak (NIST 800-63B rev. 4, §3.1.1.2)."""

import asyncio
import functools
import importlib.util
import runpy
import string
from pathlib import Path

from backlore.core.payload import Invalid


@functools.cache
def common_passwords() -> frozenset[str]:
    """The most common passwords of 8 characters or more, from zxcvbn's list."""
    package = importlib.util.find_spec("zxcvbn")
    assert package is not None and package.origin is not None  # it is a dependency of ours
    # the file is run, not imported: the package would hold some 7 MB more for good
    lists = runpy.run_path(str(Path(package.origin).with_name("frequency_lists.py")))["FREQUENCY_LISTS"]
    return frozenset(word for word in lists["passwords"] if len(word) >= 8)


async def check_password(password: str, where: str, email: str, application: str) -> None:
    """Refuse common passwords, and those that are only the user's address or the application's name, with or without
    digits and punctuation around it. Raises Invalid."""
    small = password.lower()
    if small in await asyncio.to_thread(common_passwords):  # the first call reads the disk
        raise Invalid(where, "Is one of the most common passwords: choose another.")
    bare = small.strip(string.digits + string.punctuation)
    if email and (small == email or bare == email.partition("@")[0]):
        raise Invalid(where, "Is your own address: choose another.")
    if bare == application.lower():
        raise Invalid(where, "Is the name of this place: choose another.")
