"""Verifies ID tokens: a provider's signed claims about a user (OpenID Connect Core 1.0, §2 and §3.1.3.7).

Law: only a signature by a key that the provider publishes proves who a user is. Neither `none` nor a shared-secret
algorithm is accepted, whatever a token's header says.
"""

from typing import Any

from joserfc import jwt
from joserfc.errors import BadSignatureError, InvalidKeyIdError, JoseError
from joserfc.jwk import JWKRegistry, Key, KeySet
from joserfc.jws import JWSRegistry

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA"]
LEEWAY = 60  # seconds that clocks may differ
LONGEST_SUB = 255  # characters (§2)

BROKEN = (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError)  # for malformed JWTs and keys


def read_keys(document: Any) -> KeySet:
    """The public keys of a JWK set. Keys that we can't use are left out. Raises ValueError if it is no JWK set."""
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ValueError("there is no list of keys")
    keys: list[Key] = []
    for each in listed[:100]:
        if isinstance(each, dict) and each.get("kty") in ("RSA", "EC", "OKP"):
            try:
                keys.append(JWKRegistry.import_key(each))
            except BROKEN:
                continue
    return KeySet(keys)


def verify(token: str, keys: KeySet, *, issuer: str, client_id: str, nonce: str) -> dict[str, Any]:
    """The claims of an ID token. Raises LookupError when none of the keys has signed it, ValueError when it is invalid.

    `nonce` is the one that we sent with the sign-in.
    """
    # a provider's own headers are allowed, unless `crit` names them
    registry = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
    try:
        claims = jwt.decode(token, keys, registry=registry).claims
        jwt.JWTClaimsRegistry(
            leeway=LEEWAY,
            iss={"essential": True, "value": issuer},
            sub={"essential": True},
            aud={"essential": True, "value": client_id},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True, "value": nonce},
        ).validate(claims)
    except (InvalidKeyIdError, BadSignatureError):
        raise LookupError("the ID token is signed by a key that the provider does not publish") from None
    except BROKEN as error:
        # only the class of the error: its message may repeat parts of the token
        raise ValueError(f"the ID token is refused: {type(error).__name__}, {getattr(error, 'claim', '')}") from None
    _check_parties(claims, client_id)
    # checked again, because the registry also accepts a list that contains the nonce
    if claims["nonce"] != nonce or len(claims["sub"]) > LONGEST_SUB:
        raise ValueError("the ID token is refused: nonce or sub")
    return claims


def _check_parties(claims: dict[str, Any], client_id: str) -> None:
    """Raises ValueError unless `azp` is our client id; with a single audience it may be missing (§3.1.3.7, 4 and 5)."""
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if claims.get("azp", None if several else client_id) != client_id:
        raise ValueError("the ID token is refused: azp")
