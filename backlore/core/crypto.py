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
TRIM_THRESHOLD = -1  # of mallopt: bytes at the end of a heap that are kept for the next that asks
REST = 5.0  # seconds after the last password: its memory goes back to the system then


class Signer:
    """Signs short texts with a key of the server: keyed BLAKE2b (RFC 7693, §2.9), 128 bits, in hexadecimal.

    `purpose` separates the uses of one secret: a signature for one is none for another.
    """

    def __init__(self, secret: str, purpose: str):
        key = hashlib.sha256(secret.encode()).digest()
        self._keyed = hashlib.blake2b(key=key, digest_size=SIGNATURE_BYTES, person=purpose.encode())

    def sign(self, text: str) -> str:
        """The signature of `text`: 32 characters."""
        keyed = self._keyed.copy()  # the key's block is hashed once, not at each request
        keyed.update(text.encode())
        return keyed.hexdigest()

    def verify(self, text: str, signature: str) -> bool:
        """Whether `signature` is that of `text`, compared in constant time."""
        return hmac.compare_digest(self.sign(text).encode(), signature.encode())


def random_text(bits: int) -> str:
    """At least `bits` random bits as lower-case base32 letters and digits."""
    count = -(-bits // 5)
    return base64.b32encode(secrets.token_bytes(count)).decode().lower()[:count]


class Passwords:
    """argon2id, off the event loop and one at a time: each takes a core for some 17 ms and 19 MiB.

    They take turns by whose they are, a user or an origin; too many raise Busy.

    Passwords are taken in the Unicode form NFC, and every character counts.
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
        """Whether the password fits. Without a hash (no such user) it takes as long, and is False."""
        return await self._work(whose, self._verify, hashed, unicodedata.normalize("NFC", password))

    def is_outdated(self, hashed: str) -> bool:
        """Whether a hash was made with lesser parameters than those of today."""
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
        """No rest yet: a password is at work."""
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
    """Return freed memory. At once would cost each hash 10 ms more, for the system hands out cleared pages."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "malloc_trim"):  # not glibc
        return
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
    # malloc_trim spares the end of a thread's own heap, where ours lies: it goes when something is freed there
    libc.mallopt(TRIM_THRESHOLD, 0)
    libc.free(libc.malloc(128 << 10))
    libc.mallopt(TRIM_THRESHOLD, 64 << 20)
    libc.malloc_trim(0)


def _be_nice() -> None:
    """Let the event loops have a core first: Linux gives each thread a priority of its own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
