"""A provider that lies in every way that a test asks for: the code says how.

    python tests/applications/provider/evil.py PORT

A lie is posted to /lie as JSON {"how": …, "claims": {…}, "header": {…}}, which answers the code that tells it; the
claims come over those that would be right.
Below /hang, /html, /error, /away, /large and /other it publishes no metadata that may be believed.
"""

import base64
import hmac
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from joserfc import jwk, jws

CLIENT = {"id": "backlore-test", "secret": "an-3v1l-s3cr3t-of-enough-length-for-hs256"}
KEYS = {name: jwk.RSAKey.generate_key(2048, {"kid": name, "use": "sig"}) for name in ("first", "second")}
STRANGE = jwk.RSAKey.generate_key(2048, {"kid": "first"})  # names itself as a published one does
CURVE = jwk.ECKey.generate_key("P-256", {"kid": "curve"})
SECRETS = {
    "secret": CLIENT["secret"].encode(),
    "public": KEYS["first"].as_pem(private=False),
    "shared": b"published by mistake, 32 bytes..",
}
SHARED = {"kty": "oct", "k": base64.urlsafe_b64encode(SECRETS["shared"]).decode(), "kid": "shared"}


def encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def sign_by_secret(said: str, secret: bytes) -> str:
    """HS256 by hand: joserfc signs with nothing that looks like a public key."""
    signature = hmac.digest(secret, said.encode(), "sha256")
    return f"{said}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def make_token(said: dict[str, Any], issuer: str) -> str:
    """The ID token that a code asks for."""
    now, how = int(time.time()), said.get("how", "right")
    claims = {"iss": issuer, "aud": CLIENT["id"], "sub": "evil-1", "iat": now, "exp": now + 300} | said["claims"]
    claims = {name: value for name, value in claims.items() if value is not None}
    header = {"alg": "RS256", "kid": "first"} | said.get("header", {})
    if how == "none":
        return f"{encoded({'alg': 'none'})}.{encoded(claims)}."
    if how == "garbage":
        return said["token"]
    keys: dict[str, Any] = {
        "right": KEYS["first"],
        "rotated": KEYS["second"],
        "stranger": STRANGE,
        "curve": CURVE,
    }
    header |= {"rotated": {"kid": "second"}, "curve": {"alg": "ES256", "kid": "curve"}}.get(how, {})
    if how in SECRETS:
        header |= {"alg": "HS256", "kid": "shared" if how == "shared" else header["kid"]}
        return sign_by_secret(f"{encoded(header)}.{encoded(claims)}", SECRETS[how])
    registry = jws.JWSRegistry(algorithms=["RS256", "ES256"], strict_check_header=False)
    return jws.serialize_compact(header, json.dumps(claims).encode(), keys[how], registry=registry)


class Evil(BaseHTTPRequestHandler):
    asked = 0  # times for the keys
    lies: list[dict[str, Any]] = []
    rotated = False  # whether the second key is published
    swapped = False  # whether a stranger is published under the first's name

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, status: int, body: Any, **headers: str) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def misbehave(self, how: str) -> bool:
        match how:
            case "hang":
                time.sleep(30)
            case "drip":
                self.send_response(200)
                self.end_headers()
                for _ in range(60):
                    self.wfile.write(b" ")
                    time.sleep(0.5)
            case "error":
                self.answer(500, {"error": "server_error"})
            case "html":
                self.answer(200, b"<html>sorry", content_type="text/html")
            case "away":
                self.answer(302, b"", location="http://127.0.0.1:1/")
            case "large":
                self.answer(200, b'{"a": "' + b"x" * 3_000_000 + b'"}')
            case "array":
                self.answer(200, [1])
            case "refuse":
                self.answer(400, {"error": "invalid_grant", "error_description": "secret words"})
            case "empty":
                self.answer(200, {})
            case _:
                return False
        return True

    def do_GET(self) -> None:
        root = f"http://127.0.0.1:{self.server.server_address[1]}"
        first = self.path.split("/")[1]
        if first == "jwks":
            Evil.asked += 1
            shown = [STRANGE if Evil.swapped else KEYS["first"], *([KEYS["second"]] if Evil.rotated else []), CURVE]
            keys = [SHARED, {"kty": "AKP"}, {"kty": "RSA"}, {"kty": "EC", "crv": "P-0", "x": 1}, 7]
            self.answer(200, {"keys": [*keys, *(each.as_dict(private=False) for each in shown)]})
        elif first == "rotate":
            Evil.rotated = True
            self.answer(200, {})
        elif first == "swap":
            Evil.swapped = not Evil.swapped
            self.answer(200, {})
        elif first == "asked":
            self.answer(200, Evil.asked)
        elif first == "info":
            claims = json.loads(base64.urlsafe_b64decode(self.headers["authorization"].removeprefix("Bearer ")))
            self.answer(200, claims)
        elif not self.misbehave(first):
            self.answer(
                200,
                {
                    "issuer": root,
                    "authorization_endpoint": f"{root}/authorize",
                    "token_endpoint": f"{root}/token",
                    "jwks_uri": f"{root}/jwks",
                    "userinfo_endpoint": f"{root}/info",
                    "token_endpoint_auth_methods_supported": ["client_secret_post"],
                },
            )

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/lie":
            self.lies.append(json.loads(raw))
            self.answer(200, f"code-{len(self.lies) - 1}")
            return
        form = parse_qs(raw.decode())
        if form["client_secret"] != [CLIENT["secret"]]:
            self.answer(401, {"error": "invalid_client"})
            return
        code = form["code"][0]
        said = self.lies[int(code.removeprefix("code-"))] if code.startswith("code-") else {"how": "refuse"}
        if not self.misbehave(said.get("how", "")):
            root = f"http://127.0.0.1:{self.server.server_address[1]}"
            access = base64.urlsafe_b64encode(
                json.dumps(said.get("info", {"sub": said["claims"].get("sub", "evil-1")})).encode()
            ).decode()
            token = make_token(said, root)
            self.answer(200, {"access_token": access, "token_type": "Bearer", "id_token": token})


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Evil).serve_forever()
