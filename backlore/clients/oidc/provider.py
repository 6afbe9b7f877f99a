"""A client of an OpenID Connect provider (Core 1.0, Discovery 1.0; PKCE: RFC 7636; RFC 9207).

Laws:

- No request waits for a provider longer than 5 seconds.
- A provider's metadata are trusted for an hour, and only if they name the configured issuer.
- Its keys are fetched again when none of them fits a token, by key id or by signature; at most once a minute.
- No exception's message contains a code or a token.

httpx, authlib and joserfc are imported at the first sign-in, so that servers without providers save their 20 MB.
"""

import asyncio
import time
from typing import Any, NamedTuple

import msgspec

WAIT = 5.0  # seconds for all calls to a provider within one request
FRESH = 3600.0  # seconds for which its metadata and keys are trusted
PAUSE = 60.0  # seconds between two fetches of keys because a token did not fit


class ProviderUnreachable(Exception):
    """The provider gives no answer in time, or an invalid one."""


class ProviderRefused(Exception):
    """The provider refuses this sign-in, or its answer fails our checks."""


class SignedIn(NamedTuple):
    """The user who has signed in."""

    issuer: str
    sub: str  # the user's permanent id at this issuer
    email: str  # "" unless the provider says that it is verified


class Metadata(msgspec.Struct):
    """The part of a provider's published metadata that we use (Discovery 1.0, §3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    token_endpoint_auth_methods_supported: list[str] | None = None
    authorization_response_iss_parameter_supported: bool | None = None


class Provider:
    """One provider. `id` names it in routes, `name` for users. `secret` is "" for a public client.

    `redirect` is our URL that the provider sends browsers back to.
    """

    def __init__(self, id: str, name: str, issuer: str, client_id: str, secret: str, redirect: str):
        self.id = id
        self.name = name
        self.issuer = issuer
        self._client_id = client_id
        self._secret = secret
        self._redirect = redirect
        self._metadata: Metadata | None = None
        self._keys: Any = None
        self._until = 0.0  # monotonic seconds
        self._next_look = 0.0  # monotonic seconds: no fetch of keys because of a token before that
        self._lock = asyncio.Lock()  # one request fetches the metadata, the others wait

    async def begin(self, state: str, nonce: str, verifier: str) -> str:
        """The URL where the user signs in. Raises ProviderUnreachable."""
        try:
            async with asyncio.timeout(WAIT):
                metadata = await self._discover()
                async with self._session() as client:
                    url, _ = client.create_authorization_url(
                        metadata.authorization_endpoint, state=state, code_verifier=verifier, nonce=nonce
                    )
                return str(url)
        except (TimeoutError, ConnectionError) as error:
            raise ProviderUnreachable(str(error) or "no answer in time") from None

    async def redeem(self, code: str, issuer: str, verifier: str, nonce: str) -> SignedIn:
        """The user who came back with this code. `issuer` is the one that the answer names, or "".

        Raises ProviderUnreachable, ProviderRefused.
        """
        try:
            async with asyncio.timeout(WAIT):
                metadata = await self._discover()
                if issuer != self.issuer and (issuer or metadata.authorization_response_iss_parameter_supported):
                    raise ProviderRefused("the answer is another issuer's")
                return await self._exchange(metadata, code, verifier, nonce)
        except (TimeoutError, ConnectionError) as error:
            raise ProviderUnreachable(str(error) or "no answer in time") from None

    def _session(self) -> Any:
        from backlore.clients.oidc.fetch import session

        offered = (self._metadata and self._metadata.token_endpoint_auth_methods_supported) or ["client_secret_basic"]
        posts = "client_secret_basic" not in offered and "client_secret_post" in offered
        method = ("client_secret_post" if posts else "client_secret_basic") if self._secret else "none"
        return session(self._client_id, self._secret, method, self._redirect)

    async def _discover(self) -> Metadata:
        async with self._lock:
            if self._metadata is None or time.monotonic() > self._until:
                await asyncio.to_thread(_load)
                from backlore.clients.oidc.fetch import get_json

                async with self._session() as client:
                    found = await get_json(client, f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
                self._metadata = self._check(found)
                self._keys = None
                self._until = time.monotonic() + FRESH
            return self._metadata

    def _check(self, document: Any) -> Metadata:
        """The metadata. Raises ConnectionError unless they are this issuer's (Discovery 1.0, §4.3) and use TLS.

        For an http issuer, a configured loopback, http URLs are allowed too.
        """
        try:
            metadata = msgspec.convert(document, Metadata)
        except msgspec.ValidationError as error:
            raise ConnectionError(f"the provider's metadata: {error}") from None
        if metadata.issuer != self.issuer:
            raise ConnectionError("the provider's metadata name another issuer")
        scheme = "http" if self.issuer.startswith("http:") else "https:"  # http: a configured loopback
        places = (metadata.authorization_endpoint, metadata.token_endpoint, metadata.jwks_uri)
        if not all(place.startswith(scheme) for place in (*places, metadata.userinfo_endpoint or scheme)):
            raise ConnectionError("the provider's metadata name a URL without TLS")
        return metadata

    async def _exchange(self, metadata: Metadata, code: str, verifier: str, nonce: str) -> SignedIn:
        from backlore.clients.oidc.fetch import get_json, get_token

        async with self._session() as client:
            try:
                got = await get_token(client, metadata.token_endpoint, code, verifier)
            except ValueError as error:
                raise ProviderRefused(str(error)) from None
            claims = await self._verify(client, metadata, got.get("id_token"), nonce)
            access = got.get("access_token")
            told_all = "email" in claims and "email_verified" in claims
            if not told_all and metadata.userinfo_endpoint and isinstance(access, str):
                # claims that a provider leaves out of the ID token come from here (Core 1.0, §5.4)
                told = await get_json(client, metadata.userinfo_endpoint, access)
                if not isinstance(told, dict) or told.get("sub") != claims["sub"]:
                    raise ProviderRefused("the user info is about another user")
                claims |= told
        return SignedIn(self.issuer, claims["sub"], _verified_email(claims))

    async def _verify(self, client: Any, metadata: Metadata, token: Any, nonce: str) -> dict[str, Any]:
        from backlore.clients.oidc.fetch import get_json
        from backlore.clients.oidc.idtoken import read_keys, verify

        if not isinstance(token, str):
            raise ProviderRefused("the provider gives no ID token")
        while True:
            is_new = self._keys is None
            try:
                self._keys = self._keys or read_keys(await get_json(client, metadata.jwks_uri))
                return verify(token, self._keys, issuer=self.issuer, client_id=self._client_id, nonce=nonce)
            except LookupError as error:
                if is_new or time.monotonic() < self._next_look:
                    raise ProviderRefused(str(error)) from None
                self._keys, self._next_look = None, time.monotonic() + PAUSE
            except ValueError as error:
                raise ProviderRefused(str(error)) from None


def _load() -> None:
    """Import the modules that talk to providers, and load the authorities that they trust.

    It takes half a second: call it from a thread.
    """
    from backlore.clients.oidc import idtoken  # noqa: F401
    from backlore.clients.oidc.fetch import session

    session("", "", "none", "")  # imports more on its first call


def _verified_email(claims: dict[str, Any]) -> str:
    email, verified = claims.get("email"), claims.get("email_verified")
    # some providers send the word "true"; no other truthy value counts
    return email if isinstance(email, str) and (verified is True or verified == "true") else ""
