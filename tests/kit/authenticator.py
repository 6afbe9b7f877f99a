"""An authenticator of ours, which does what no browser would; and users with passkeys of it."""

import base64
import hashlib
import json
import random
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tests.conftest import PASSWORD, Server, User

MANY = dict.fromkeys(("signup", "login", "login-account", "passkey", "password", "verify", "mail"), (10000, 60))
SIGNED = ("authenticatorData", "clientDataJSON", "signature", "userHandle")


def write(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def read(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "===")


class Device:
    """An authenticator that does whatever it is told."""

    def __init__(self, port: int, origin: str = "", party: str = "localhost"):
        self.secret = ec.generate_private_key(ec.SECP256R1())
        self.id = random.randbytes(16)
        self.count = 0
        self.origin = origin or f"http://localhost:{port}"
        self.party = party
        self.user = b""

    def client(self, kind: str, challenge: str, **more: Any) -> bytes:
        return json.dumps({"type": kind, "challenge": challenge, "origin": self.origin, **more}).encode()

    def data(self, flags: int, rest: bytes = b"") -> bytes:
        self.count += 1
        return hashlib.sha256(self.party.encode()).digest() + bytes([flags]) + self.count.to_bytes(4, "big") + rest

    def key(self) -> bytes:
        point = self.secret.public_key().public_numbers()
        return cbor2.dumps({1: 2, 3: -7, -1: 1, -2: point.x.to_bytes(32, "big"), -3: point.y.to_bytes(32, "big")})

    def credential(self, response: dict) -> dict:
        return {
            "id": write(self.id),
            "rawId": write(self.id),
            "type": "public-key",
            "authenticatorAttachment": "platform",
            "clientExtensionResults": {},
            "response": response,
        }

    def create(self, options: dict, public: bytes | None = None, flags: int = 0x45, fmt: str = "none") -> dict:
        self.user = read(options["user"]["id"])
        public = self.key() if public is None else public
        rest = bytes(16) + len(self.id).to_bytes(2, "big") + self.id + public
        attestation = cbor2.dumps({"fmt": fmt, "attStmt": {}, "authData": self.data(flags, rest)})
        client = self.client("webauthn.create", options["challenge"])
        response = {"attestationObject": write(attestation), "clientDataJSON": write(client), "transports": ["usb"]}
        return self.credential(response)

    def get(self, options: dict, flags: int = 0x05, rest: bytes = b"", **more: Any) -> dict:
        client, data = self.client("webauthn.get", options["challenge"], **more), self.data(flags, rest)
        signature = self.secret.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(hashes.SHA256()))
        texts = map(write, (data, client, signature, self.user))
        return self.credential(dict(zip(SIGNED, texts, strict=True)))


def begin(user: User) -> dict:
    got = user.post("/auth/passkeys/begin", json={"password": PASSWORD})
    assert got.status_code == 200, got.text
    return got.json()["options"]


def add(user: User, credential: dict) -> tuple[int, dict]:
    got = user.post("/auth/passkeys/add", json={"credential": credential, "name": "My phone"})
    return got.status_code, got.json()


def options(user: User, **ticket: str) -> dict:
    got = user.post("/auth/passkey/options", json=ticket)
    assert got.status_code == 200, got.text
    return got.json()["options"]


def show(user: User, credential: dict, **ticket: str) -> tuple[int, str]:
    got = user.post("/auth/passkey", json={"credential": credential, **ticket})
    user.headers["x-csrf-token"] = got.json().get("csrf", user.headers.get("x-csrf-token", ""))
    return got.status_code, got.json().get("error", "")


def ticket(user: User) -> str:
    got = user.post("/auth/login", json={"email": user.email, "password": PASSWORD}).json()
    assert (got["error"], got["factors"]) == ("second", ["passkey"])
    return got["ticket"]


def owner(server: Server, email: str) -> tuple[User, Device]:
    """Somebody with a passkey."""
    user, device = User(server, email).sign_up(), Device(server.port)
    status, got = add(user, device.create(begin(user)))
    assert status == 200 and len(got["recoveryCodes"]) == 10, got
    return user, device


REFUSED = (403, "passkey")
