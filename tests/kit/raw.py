"""Requests about files as raw bytes, for what no client library would send."""

import contextlib
import hashlib
import socket
import struct

from tests.conftest import Server, User


def put(user: User, name: str, content: bytes) -> int:
    return user.post("/files", files={"file": ("f", content)}, data={"name": name}).status_code


def listed(user: User) -> dict[str, str]:
    """The user's files: hashes by name."""
    return {file["name"]: file["hash"] for file in user.get("/files", params={"limit": 500}).json()["files"]}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def head(user: User, line: str, **headers: object) -> bytes:
    """The head of a request of this user."""
    cookies = "; ".join(f"{name}={value}" for name, value in user.cookies.items())
    lines = [f"{line} HTTP/1.1", "host: x", f"cookie: {cookies}", f"x-csrf-token: {user.csrf}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def form(name: bytes, content: bytes, filename: bytes = b"f") -> bytes:
    """A multipart body."""
    return b"".join(
        (
            b'--b\r\ncontent-disposition: form-data; name="name"\r\n\r\n' + name,
            b'\r\n--b\r\ncontent-disposition: form-data; name="file"; filename="' + filename,
            b'"\r\ncontent-type: application/octet-stream\r\n\r\n' + content,
            b"\r\n--b--\r\n",
        )
    )


def upload(user: User, body: bytes) -> bytes:
    """The whole request of an upload."""
    return head(user, "POST /files", content_type="multipart/form-data; boundary=b", content_length=len(body)) + body


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), 20)


def ask(server: Server, request: bytes) -> tuple[int, bytes]:
    """Send a request. Returns the reply's status and body; the connection ends with it."""
    with connect(server) as connection:
        connection.sendall(request.replace(b"host: x", b"host: x\r\nconnection: close", 1))
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(1 << 16):
                answer += piece
    lines, _, body = answer.partition(b"\r\n\r\n")
    assert lines.startswith(b"HTTP/1.1 "), answer[:200]
    return int(lines[9:12]), body


def reset(connection: socket.socket) -> None:
    """Break the connection with a reset, as a machine does that is switched off and on again."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
