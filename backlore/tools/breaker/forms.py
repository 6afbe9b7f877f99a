"""Multipart bodies made from payloads."""

import json
from typing import Any

from backlore.tools.breaker.document import Operation
from backlore.tools.breaker.values import kind_of

# The content of files, with a text after it: a PNG of one pixel.
PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010100000000376ef9240000000a49444154789c636000000002000148afa471"
    "0000000049454e44ae426082"
)


def to_form(payload: Any, operation: Operation, content: bytes = PICTURE) -> tuple[bytes, dict[str, str]]:
    """A payload as a multipart body. Files are small pictures, which also suit a route that takes nothing else."""
    boundary = "backlore-breaker"
    shapes = (operation.body or {}).get("properties", {})
    body = b""
    for key, value in payload.items() if isinstance(payload, dict) else ():
        shape = kind_of(shapes.get(key, {}))
        is_file = "binary" in (shape.get("format"), shape.get("items", {}).get("format"))
        name = '; filename="a.png"' if is_file else ""
        for each in value if isinstance(value, list) else [value]:
            shown = (each if isinstance(each, str) else json.dumps(each)).encode("utf-8", "surrogatepass")
            head = f'--{boundary}\r\ncontent-disposition: form-data; name="{key}"{name}\r\n\r\n'
            body += head.encode("utf-8", "surrogatepass") + (content if is_file else b"") + shown + b"\r\n"
    return body + f"--{boundary}--\r\n".encode(), {"content-type": f"multipart/form-data; boundary={boundary}"}
