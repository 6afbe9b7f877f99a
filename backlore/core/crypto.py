"""Signing, random identifiers and password hashes: the primitives are the standard library's and argon2-cffi's."""

import asyncio
import base64
import ctypes
import hashlib
import hmac
import os
import secrets
import sys
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from backlore.core.turns import Turns

T = TypeVar("T")

SIGNATURE_BYTES = 16
TRIM_THRESHOLD = -1  # a parameter of mallopt: how many free bytes at the end of a heap are kept for later requests
REST = 5.0  # seconds after the last password until its memory goes back to the system


class Signer:
    """Signs short texts with a key of the server: keyed BLAKE2b (RFC 7693, §2.9), 128 bits, in hexadecimal.

    `purpose` separates the uses of one secret: a signature for one purpose is invalid for another.
    """

    def __init__(self, secret: str, purpose: str):
        key = hashlib.sha256(secret.encode()).digest()
        self._keyed = hashlib.blake2b(key=key, digest_size=SIGNATURE_BYTES, person=purpose.encode())

    def sign(self, text: str) -> str:
        """The signature of `text`: 32 characters."""
        keyed = self._keyed.copy()  # the key's block is hashed once, not on each call
        keyed.update(text.encode())
        return keyed.hexdigest()

    def verify(self, text: str, signature: str) -> bool:
        """Whether `signature` is that of `text`, compared in constant time."""
        return hmac.compare_digest(self.sign(text).encode(), signature.encode())


def random_text(bits: int) -> str:
    """At least `bits` random bits, as lower-case base32 letters and digits."""
    count = -(-bits // 5)
    return base64.b32encode(secrets.token_bytes(count)).decode().lower()[:count]


class Passwords:
    """argon2id, off the event loop and one hash at a time: each takes a core for some 17 ms, and 19 MiB.

    `whose` is the user or origin that a hash is for: they take turns, and when too many hashes wait, methods raise
    Busy. Passwords are normalized to the Unicode form NFC, and every character counts.
    Parameters: OWASP Password Storage Cheat Sheet (t=2, m=19 MiB, p=1).
    """

    def __init__(self, each: int = 20, total: int = 200):
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="argon2", initializer=_be_nice)
        self._turns = Turns(1, each=each, total=total)
        self._decoy = ""
        self._rest: asyncio.TimerHandle | None = None

    async def hash(self, password: str, whose: str) -> str:
        """The hash to keep, in the PHC string format."""
        return await self._work(whose, self._hasher.hash, unicodedata.normalize("NFC", password))

    async def verify(self, hashed: str | None, password: str, whose: str) -> bool:
        """Whether the password matches the hash. Without a hash (no such user): False, after the same time."""
        return await self._work(whose, self._verify, hashed, unicodedata.normalize("NFC", password))

    def is_outdated(self, hashed: str) -> bool:
        """Whether a hash was made with parameters other than today's."""
        return self._hasher.check_needs_rehash(hashed)

    async def _work(self, whose: str, function: Callable[..., T], *arguments: str | None) -> T:
        loop = asyncio.get_running_loop()
        self._stay_up()
        try:
            return await self._turns.run(whose, lambda: loop.run_in_executor(self._pool, function, *arguments))
        finally:
            self._stay_up()
            self._rest = loop.call_later(REST, self._pool.submit, _give_back)

    def _stay_up(self) -> None:
        """Don't give memory back yet: a hash is in progress."""
        if self._rest:
            self._rest.cancel()

    def _verify(self, hashed: str | None, password: str) -> bool:
        if not hashed and not self._decoy:
            self._decoy = self._hasher.hash(random_text(64))
        try:
            return self._hasher.verify(hashed or self._decoy, password) and bool(hashed)
        except (VerificationError, InvalidHashError):
            return False


def _give_back() -> None:
    """Return freed memory to the system. After every hash it would cost 10 ms each: the system zeroes new pages."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "malloc_trim"):  # not glibc
        return
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
    # malloc_trim spares the end of a thread's own heap, where our memory lies; a free at that end returns it
    libc.mallopt(TRIM_THRESHOLD, 0)
    libc.free(libc.malloc(128 << 10))
    libc.mallopt(TRIM_THRESHOLD, 64 << 20)
    libc.malloc_trim(0)


def _be_nice() -> None:
    """Let the event loops have a core first: on Linux each thread has a priority of its own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
