"""Header lines of one name: joined, where the header is a list, refused, where it has one value (RFC 9110, §5.3)."""

from collections.abc import Iterable

# Two lines of them are no request that we could understand: of a proxy and us, each might take another one.
SINGLE = frozenset(
    b"authorization content-disposition content-encoding content-length content-location content-range content-type "
    b"date from host idempotency-key if-modified-since if-range if-unmodified-since last-event-id max-forwards origin "
    b"proxy-authorization range referer user-agent x-csrf-token x-http-method-override x-real-ip".split()
)
FAMILIES = (b"sec-", b"tus-", b"upload-", b"access-control-request-")


class Repeated(Exception):
    """A header of one value that is given twice: its name."""


def join(lines: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The headers by their names, lines of one name joined in their order. Raises Repeated."""
    found: dict[bytes, bytes] = {}
    for name, value in lines:
        if name not in found:
            found[name] = value
        elif name in SINGLE or name.startswith(FAMILIES):
            raise Repeated(name.decode("latin-1"))
        else:
            found[name] += (b"; " if name == b"cookie" else b", ") + value
    return found
