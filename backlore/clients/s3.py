"""The client of S3, or of any server that speaks its protocol. It uses obstore.

Laws: every call ends within its timeouts, and is retried only as often as makes sense while a caller waits. Uploads
carry their SHA-256, so that S3 refuses data that was damaged on the way. No error contains any part of a secret.
"""

from collections.abc import AsyncIterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import obstore
from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    NotFoundError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import S3Store

PART = 8 << 20  # bytes of a part of a multipart upload, and the size from which uploads have parts
PIECE = 1 << 20  # bytes returned at once when reading
SIDE_BY_SIDE = 4  # parts of one upload in flight
CONNECT = timedelta(seconds=3)
TRY = timedelta(seconds=60)  # for one request; in a multipart upload, for one part
RETRIES = 2
LATEST_RETRY = timedelta(seconds=10)  # after the first try
FIRST_PAUSE, LONGEST_PAUSE = timedelta(milliseconds=100), timedelta(seconds=3)  # with jitter


class S3Error(Exception):
    """S3 did not do what it was asked for."""


class S3Missing(S3Error):
    """No such object, or no such bucket."""


class S3Refused(S3Error):
    """S3 refuses us: because of the credentials, the bucket's policy, or an invalid name."""


class S3Unreachable(S3Error):
    """S3 does not answer, or answers that it can't. It may later."""


class S3Object(NamedTuple):
    """An object. `size` in bytes, `modified` in seconds since the epoch."""

    name: str
    size: int
    modified: float


class S3:
    """One bucket. `endpoint` None is Amazon's own in the region; `prefix` is put before all names."""

    def __init__(
        self,
        bucket: str,
        *,
        region: str = "us-east-1",
        endpoint: str | None = None,
        path_style: bool = True,
        access_key: str | None = None,
        secret_key: str | None = None,
        prefix: str = "",
    ):
        given: dict[str, Any] = {"access_key_id": access_key, "secret_access_key": secret_key, "endpoint": endpoint}
        self._store = S3Store(
            bucket,
            prefix=prefix or None,
            region=region,
            virtual_hosted_style_request=not path_style,
            checksum_algorithm="SHA256",
            client_options={
                "allow_http": bool(endpoint and endpoint.startswith("http:")),
                "connect_timeout": CONNECT,
                "timeout": TRY,
            },
            retry_config={
                "max_retries": RETRIES,
                "retry_timeout": LATEST_RETRY,
                "backoff": {"init_backoff": FIRST_PAUSE, "max_backoff": LONGEST_PAUSE, "base": 2},
            },
            **{name: value for name, value in given.items() if value},
        )

    async def put(self, name: str, content: bytes | Path) -> None:
        """Upload an object, in parts when it is large. It is stored whole or not at all. Raises S3Error, OSError."""
        with translated(name):
            await obstore.put_async(self._store, name, content, chunk_size=PART, max_concurrency=SIDE_BY_SIDE)

    async def get(self, name: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """The bytes of an object, or a part of them, piece by piece. Raises S3Error, also in the middle.

        A download that is cut off, or takes longer than one request may, continues in another request, as long as each
        request brings at least one byte.
        """
        at, end = start, None if length is None else start + length
        while True:
            began = at
            try:
                async for piece in self._stream(name, at, end):
                    at += len(piece)
                    yield piece
                return
            except S3Unreachable:
                if at == began:
                    raise

    async def _stream(self, name: str, start: int, end: int | None) -> AsyncIterator[bytes]:
        with translated(name):
            span: Any = {"range": (start, end)} if end is not None else {"range": {"offset": start}} if start else None
            got = await obstore.get_async(self._store, name, options=span)
            async for piece in got.stream(min_chunk_size=PIECE):
                yield bytes(piece)

    async def head(self, name: str) -> S3Object:
        """Size and age of an object. Raises S3Error."""
        with translated(name):
            return _found(await obstore.head_async(self._store, name))

    async def copy(self, source: str, target: str) -> None:
        """Copy an object within the bucket, on the server. Raises S3Error."""
        with translated(source):
            await obstore.copy_async(self._store, source, target)

    async def delete(self, names: list[str]) -> None:
        """Delete objects; one that isn't there is no error. Raises S3Error."""
        with translated(f"{len(names)} objects"):
            await obstore.delete_async(self._store, names)

    async def list(self, prefix: str = "") -> AsyncIterator[S3Object]:
        """All objects below `prefix`, which must be a whole folder. Raises S3Error."""
        with translated(prefix):
            async for page in obstore.list(self._store, prefix or None):
                for each in page:
                    yield _found(each)


def _found(meta: Any) -> S3Object:
    return S3Object(meta["path"], meta["size"], meta["last_modified"].timestamp())


@contextmanager
def translated(name: str) -> Any:
    """Turn obstore's errors into ours."""
    try:
        yield
    except NotFoundError as error:
        raise S3Missing(name) from error
    except FileNotFoundError as error:
        # obstore raises it for a missing object as well as for a missing local file
        raise S3Missing(name) from error
    except (PermissionDeniedError, UnauthenticatedError, InvalidPathError) as error:
        _raise(S3Refused, name, error)
    except BaseError as error:
        _raise(S3Unreachable, name, error)


def _raise(kind: type[S3Error], name: str, error: Exception) -> NoReturn:
    # only the first line, which says what happened: the rest is the whole request, with its signature
    raise kind(f"{name}: {type(error).__name__}: {str(error).partition(chr(10))[0][:300]}") from None
