"""WebAuthn's ceremonies (W3C Web Authentication Level 3, §7): options for a browser, checks of its answer. No I/O.

Laws: whatever a browser sends, the worst outcome is a refusal. Base64url must be in its canonical form. CBOR must be as
authenticators write it (CTAP 2.1, §8: no tags, definite lengths, flat). That is checked before any library reads it:
some 200 bytes of shared references (tags 28 and 29) would grow to 50 MB there.

We ask for no attestation: the maker of an authenticator doesn't matter to us. Browsers then send none, or a "packed"
self attestation. Formats with certificates and tokens of makers are not even parsed.
"""

import base64
import ipaddress
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

import idna
import msgspec

from backlore.core.payload import length

C = TypeVar("C", bound="Credential")

LASTS = 300  # seconds that a browser has from the options to the answer
ALGORITHMS = (-8, -7, -257)  # EdDSA, ECDSA with P-256, RSA with PKCS #1 v1.5 (Windows Hello): RFC 9053, RFC 8812
DEPTH = 6  # of nested CBOR, at most: an attestation with certificates has 3
FIXED = 37  # bytes of authenticator data before the optional parts: hash, flags at 32, count
ATTESTED, EXTENDED = 0x40, 0x80  # flags: a key is included, and extensions

Text = Annotated[str, length(1, 4096)]
Long = Annotated[str, length(1, 16_384)]
Id = Annotated[str, length(1, 1400)]  # of a credential: at most 1,023 bytes
Transports = Annotated[list[Annotated[str, length(1, 30)]], length(0, 10)]


# Browsers and password managers write these by `PublicKeyCredential.toJSON()`, with more fields in each version. Those
# that are not named here are ignored.


class Credential(msgspec.Struct):
    """The fields that the answers of both ceremonies share."""

    id: Id
    rawId: Id
    type: Literal["public-key"]


class Attestation(msgspec.Struct):
    """The response of an authenticator that made a credential."""

    attestationObject: Long
    clientDataJSON: Text
    transports: Transports = []


class NewCredential(Credential, kw_only=True):
    """The result of `navigator.credentials.create()`."""

    response: Attestation


class Assertion(msgspec.Struct):
    """The response of an authenticator that signed a challenge."""

    authenticatorData: Text
    clientDataJSON: Text
    signature: Text
    userHandle: Annotated[str, length(0, 100)] | None = None


class KnownCredential(Credential, kw_only=True):
    """The result of `navigator.credentials.get()`."""

    response: Assertion


class Passkey(msgspec.Struct):
    """A credential as it is stored."""

    key: bytes  # the public key, as COSE writes it
    count: int  # of its signatures; always 0 for those that several devices share
    name: str
    created: int
    used: int  # the last login with it, in seconds; 0 for never
    transports: list[str]
    backed_up: bool


class Made(msgspec.Struct):
    """A new credential that was verified."""

    key: bytes
    count: int
    backed_up: bool


class VerifiedAssertion(msgspec.Struct):
    """An assertion that was verified."""

    count: int
    backed_up: bool


class ClientData(msgspec.Struct):
    """What the browser says that it asked the authenticator for."""

    challenge: str
    crossOrigin: bool = False


class RelyingParty:
    """The site that asks for credentials. It follows from our configured address, never from a request.

    `name` is for people. The id is the address's host. An IP address can't be an id: then it is "localhost", and
    browsers must use that name with the same port: http://127.0.0.1:8000 has passkeys at http://localhost:8000.
    """

    def __init__(self, address: str, name: str):
        parts = urlsplit(address)
        self.name = name
        self.id = _host(parts.hostname or "")
        usual = {"http": 80, "https": 443}.get(parts.scheme)
        port = f":{parts.port}" if parts.port and parts.port != usual else ""
        self.origin = f"{parts.scheme}://{self.id}{port}"

    def creation(self, challenge: str, user: str, email: str, known: dict[str, Passkey]) -> dict[str, Any]:
        """PublicKeyCredentialCreationOptionsJSON for a user who has the `known` passkeys."""
        return {
            "rp": {"id": self.id, "name": self.name},
            "user": {"id": to_base64url(user.encode()), "name": email, "displayName": email},
            "challenge": to_base64url(challenge.encode()),
            "pubKeyCredParams": [{"type": "public-key", "alg": algorithm} for algorithm in ALGORITHMS],
            "timeout": LASTS * 1000,
            "excludeCredentials": _descriptors(known),
            "authenticatorSelection": {"residentKey": "preferred", "userVerification": "preferred"},
            "attestation": "none",
        }

    def request(self, challenge: str, known: dict[str, Passkey] | None = None) -> dict[str, Any]:
        """PublicKeyCredentialRequestOptionsJSON: for one of the `known` passkeys, or for any that names its user."""
        options = {"challenge": to_base64url(challenge.encode()), "timeout": LASTS * 1000, "rpId": self.id}
        if known is None:
            return options | {"userVerification": "required"}
        return options | {"userVerification": "preferred", "allowCredentials": _descriptors(known)}

    def verify_new(self, credential: NewCredential, challenge: str) -> Made | None:
        """What to store of a new credential; None if it is invalid. CPU-bound: for threads."""
        try:
            _check_written(credential, credential.response.attestationObject)
            _check_attestation(from_base64url(credential.response.attestationObject))
            return self._verify_new(credential, challenge)
        except Exception:  # a stranger's bytes may raise anything, here and in three libraries
            return None

    def verify_known(
        self, credential: KnownCredential, challenge: str, key: bytes, with_user: bool
    ) -> VerifiedAssertion | None:
        """The verified assertion, by the public key; None if it is invalid, or doesn't verify the user if `with_user`.

        The caller compares the count with the stored one.
        """
        response = credential.response
        try:
            _check_written(credential, response.authenticatorData, response.signature)
            _check_signed(from_base64url(response.authenticatorData))
            return self._verify_known(credential, challenge, key, with_user)
        except Exception:  # as above
            return None

    # `webauthn` is imported where it is used: it takes 14 MB, which a worker without passkeys doesn't need

    def _verify_new(self, credential: NewCredential, challenge: str) -> Made:
        from webauthn import verify_registration_response
        from webauthn.helpers.cose import COSEAlgorithmIdentifier

        found = verify_registration_response(
            credential=_plain(credential),
            expected_challenge=challenge.encode(),
            expected_rp_id=self.id,
            expected_origin=self.origin,
            supported_pub_key_algs=[COSEAlgorithmIdentifier(algorithm) for algorithm in ALGORITHMS],
        )
        if to_base64url(found.credential_id) != credential.id:
            raise ValueError("another credential than it says")
        return Made(found.credential_public_key, found.sign_count, found.credential_backed_up)

    def _verify_known(
        self, credential: KnownCredential, challenge: str, key: bytes, with_user: bool
    ) -> VerifiedAssertion:
        from webauthn import verify_authentication_response

        found = verify_authentication_response(
            credential=_plain(credential),
            expected_challenge=challenge.encode(),
            expected_rp_id=self.id,
            expected_origin=self.origin,
            credential_public_key=key,
            credential_current_sign_count=0,
            require_user_verification=with_user,
        )
        return VerifiedAssertion(found.new_sign_count, found.credential_backed_up)


def read(kind: type[C], raw: dict[str, Any]) -> C | None:
    """A credential from JSON; None if it isn't one."""
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError:
        return None


def challenge_of(credential: NewCredential | KnownCredential) -> str:
    """The challenge that a credential claims to answer; "" if it can't be read."""
    try:
        client = msgspec.json.decode(from_base64url(credential.response.clientDataJSON), type=ClientData)
        return from_base64url(client.challenge).decode("ascii")
    except (msgspec.DecodeError, ValueError, RecursionError):
        return ""


def user_of(credential: KnownCredential) -> str:
    """The id of the user that the authenticator names; "" if it names none."""
    try:
        user = from_base64url(credential.response.userHandle or "").decode("ascii")
    except ValueError:
        return ""
    return user if user.isalnum() else ""


def to_base64url(raw: bytes) -> str:
    """Base64url without padding (RFC 4648, §5)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    """The bytes of a text as `to_base64url` writes it. Raises ValueError for any other spelling."""
    raw = base64.urlsafe_b64decode(f"{text}===")
    if to_base64url(raw) != text:
        raise ValueError("no base64url")
    return raw


def _host(name: str) -> str:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        # as browsers write it in an origin (WHATWG URL, "domain to ASCII"): straße is not strasse
        labels = idna.uts46_remap(name, std3_rules=False, transitional=False).split(".")
        return ".".join(each if each.isascii() else f"xn--{each.encode('punycode').decode()}" for each in labels)
    return "localhost"


def _descriptors(known: dict[str, Passkey]) -> list[dict[str, Any]]:
    return [{"type": "public-key", "id": id, "transports": each.transports} for id, each in known.items()]


def _plain(credential: NewCredential | KnownCredential) -> dict[str, Any]:
    """The fields of a credential that are verified."""
    response = msgspec.structs.asdict(credential.response)
    return {"id": credential.id, "rawId": credential.rawId, "type": credential.type, "response": response}


def _check_written(credential: NewCredential | KnownCredential, *texts: str) -> None:
    """Raises ValueError unless all texts are base64url, and the page is in no frame of another site."""
    for text in (credential.id, credential.rawId, *texts):
        from_base64url(text)
    client = msgspec.json.decode(from_base64url(credential.response.clientDataJSON), type=ClientData)
    if client.crossOrigin:
        raise ValueError("asked from within another site's page")


def _check_signed(data: bytes) -> None:
    """Raises ValueError unless an assertion's authenticator data is plain: without a key, perhaps with extensions."""
    if len(data) < FIXED or data[32] & ATTESTED or _end_of_extensions(data, FIXED) != len(data):
        raise ValueError("no plain authenticator data")


def _check_attestation(raw: bytes) -> None:
    """Raises ValueError, or an exception of webauthn, unless an attestation and its key are plain."""
    from webauthn.helpers import encode_cbor, parse_cbor

    if _skip(raw, 0) != len(raw):
        raise ValueError("more than one attestation")
    attestation = parse_cbor(raw)
    data = attestation["authData"]
    if attestation["fmt"] not in ("none", "packed") or not data[32] & ATTESTED:
        raise ValueError("no attestation that we asked for")
    start = FIXED + 16 + 2  # behind the model of the authenticator and the length of the id
    start += int.from_bytes(data[start - 2 : start], "big")
    end = _skip(data, start)
    key = parse_cbor(data[start:end])
    # webauthn continues where the key would end in its own encoding, and repairs one kind of broken key: it must not
    # interpret bytes that were skipped here
    if encode_cbor(key) != data[start:end] or type(key[1]) is not int or _end_of_extensions(data, end) != len(data):
        raise ValueError("no plain key")


def _end_of_extensions(data: bytes, start: int) -> int:
    return _skip(data, start) if data[32] & EXTENDED else start


def _skip(raw: bytes, start: int, depth: int = 0) -> int:
    """Where the item of plain CBOR at `start` ends (RFC 8949, §3). Raises ValueError, or IndexError."""
    kind, number = raw[start] >> 5, raw[start] & 31
    at = start + 1
    if number >= 24:
        size = 1 << number - 24
        number, at = int.from_bytes(raw[at : at + size], "big"), at + size
    if kind == 6 or raw[start] & 31 > 27 or depth > DEPTH:
        raise ValueError("tagged, of no definite length, or deep")
    if kind in (2, 3):
        at += number
    elif kind in (4, 5):
        for _ in range(number * (kind - 3)):
            at = _skip(raw, at, depth + 1)
    if at > len(raw):
        raise ValueError("ends too early")
    return at
