"""HTTP to an OpenID provider. Replies must be small and uncompressed, and redirects are not followed.

This module loads httpx and authlib, some 20 MB: import it only when a provider is asked.
"""

import base64
import functools
import ssl
import warnings
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote_plus

import authlib.deprecate
import httpx

with warnings.catch_warnings():  # authlib recommends httpx's successor in a warning each time
    warnings.simplefilter("ignore", authlib.deprecate.AuthlibDeprecationWarning)
    from authlib.integrations.httpx_client import AsyncOAuth2Client, OAuthError

LARGEST = 1 << 18  # bytes of a reply: an ID token with many groups has some 50 KB


class Counted(httpx.AsyncByteStream):
    """A reply's body. Raises DecodingError when it is too large."""

    def __init__(self, stream: httpx.AsyncByteStream):
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > LARGEST:
                raise httpx.DecodingError("the reply is too large")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


class Bounded(httpx.AsyncHTTPTransport):
    """Refuses replies that are too large, and compressed ones, whose real size shows too late."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        got = await super().handle_async_request(request)
        assert isinstance(got.stream, httpx.AsyncByteStream)
        if got.headers.get("content-encoding", "identity") != "identity":
            await got.aclose()
            raise httpx.DecodingError("the reply is compressed")
        return httpx.Response(
            got.status_code, headers=got.headers, stream=Counted(got.stream), extensions=got.extensions
        )


@functools.cache
def _trust() -> ssl.SSLContext:
    """A TLS context with certifi's authorities and the system's, where a company's own may be installed."""
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return context


def _basic(client: Any, method: str, uri: str, headers: dict[str, str], body: str) -> tuple[str, dict[str, str], str]:
    """HTTP Basic with id and secret form-encoded first (RFC 6749, §2.3.1), which authlib leaves out."""
    pair = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret)}"
    headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return uri, headers, body


def session(client_id: str, secret: str, method: str, redirect: str) -> Any:
    """An OAuth client for `async with`. It follows no redirects and ignores environment variables."""
    return AsyncOAuth2Client(
        client_id=client_id,
        client_secret=secret or None,
        token_endpoint_auth_method=_basic if method == "client_secret_basic" else method,
        redirect_uri=redirect,
        scope="openid email",
        code_challenge_method="S256",
        transport=Bounded(verify=_trust()),
        headers={"accept-encoding": "identity"},
        trust_env=False,
    )


async def get_json(client: Any, url: str, access_token: str = "") -> Any:
    """GET the JSON at a URL. Raises ConnectionError for any other answer, or none."""
    headers = {"authorization": f"Bearer {access_token}"} if access_token else {}
    try:
        got = await client.request("GET", url, withhold_token=True, headers=headers)
        if got.status_code != 200:
            raise ConnectionError(f"{url} answers {got.status_code}")
        return got.json()
    except httpx.HTTPError as error:
        raise ConnectionError(f"{url}: {error or type(error).__name__}") from None
    except (ValueError, RecursionError):
        raise ConnectionError(f"{url} answers no JSON") from None


async def get_token(client: Any, url: str, code: str, verifier: str) -> dict[str, Any]:
    """Exchange a code for the token response. Raises ConnectionError; ValueError when the provider refuses the code."""
    try:
        got = await client.fetch_token(url, grant_type="authorization_code", code=code, code_verifier=verifier)
    except OAuthError as error:
        # without the description: it may repeat what we sent
        raise ValueError(f"the token endpoint answers {str(error.error)[:50]!r}") from None
    except httpx.HTTPError as error:
        raise ConnectionError(f"{url}: {type(error).__name__}") from None
    except (ValueError, TypeError, RecursionError):
        raise ConnectionError(f"{url} answers no token") from None
    return dict(got)
