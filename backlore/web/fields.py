"""Repeated header lines: joined if the header is a list, refused if it has a single value (RFC 9110, §5.3)."""

from collections.abc import Iterable

# Headers that may come only once: of two lines, a proxy and we might each pick a different one.
SINGLE = frozenset(
    b"authorization content-disposition content-encoding content-length content-location content-range content-type "
    b"date from host idempotency-key if-modified-since if-range if-unmodified-since last-event-id max-forwards origin "
    b"proxy-authorization range referer user-agent x-csrf-token x-http-method-override x-real-ip".split()
)
FAMILIES = (b"sec-", b"tus-", b"upload-", b"access-control-request-")


class Repeated(Exception):
    """A header with a single value came twice; the message is its name."""


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
