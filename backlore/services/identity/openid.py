"""Signing in by a provider of OpenID Connect: the flow, and the account that a provider's user gets.

    linked:{x0z}HASH   string  of an issuer and its user → the id of our user; for ever
    links:{k3f}…       hash    of a user: id of a provider → JSON (issuer, sub, created); for ever

Laws: (issuer, sub) identifies a provider's user for ever. An e-mail address leads to an account only at the first
sign-in, and only if the provider has verified it. A link is valid if both of its sides agree. The user's side is
decisive: it is written and removed in the step that compares the user's version, so that neither an interruption nor a
race leaves a way in. The browser that returns must be the one that left (its cookie and the token `state` belong
together), and must return from the provider it was sent to (each has its own address to return to, and names itself:
RFC 9207). We redirect browsers only to places of our own page.
"""

import hashlib
import time
from typing import Annotated

import msgspec

from backlore.clients.oidc.provider import Provider, ProviderRefused, ProviderUnreachable, SignedIn
from backlore.clients.redis.script import Script
from backlore.core.addresses import Email, normalize
from backlore.core.crypto import random_text
from backlore.core.kept import read_all
from backlore.core.keys import key
from backlore.core.payload import Malformed, Payload, length, parse_urlencoded
from backlore.services.identity.accounts import Accounts
from backlore.services.identity.login import Given, Login
from backlore.services.identity.shared import Shared
from backlore.services.identity.users import Account
from backlore.services.identity.whitelist import Whitelist
from backlore.services.identity.words import now
from backlore.web.cookie import SignedCookie
from backlore.web.reply import Reply, reply
from backlore.web.request import Request
from backlore.web.routes import Route
from backlore.web.stages import auth, private, public

BACK = "/auth/openid/back"
UNDER_WAY = 600  # seconds that the user may take at the provider
# Deletes a provider's side of a link. KEYS: linked. ARGV: the user it leads to.
CLOSE = Script("return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0")
AWAY = ("server_error", "temporarily_unavailable")  # errors of providers that can't answer now (RFC 6749, §4.1.2.1)


def linked_key(issuer: str, sub: str) -> str:
    """The key of the link from a provider's user to ours."""
    return key("linked", hashlib.blake2b(f"{issuer}\0{sub}".encode(), digest_size=16).hexdigest())


def links_key(user: str) -> str:
    """The key of a user's links."""
    return key("links", user)


class BeginOpenID(Payload):
    provider: Annotated[str, length(1, 50)]


class RemoveLink(Payload):
    provider: Annotated[str, length(1, 50)]
    password: Given


class SignIn(msgspec.Struct):
    """A sign-in in flight, which a `state` opens."""

    provider: str
    nonce: str
    verifier: str  # of PKCE
    browser: str  # hash of the cookie's value


class LinkedProvider(msgspec.Struct):
    """A provider's user who is linked to one of ours."""

    issuer: str
    sub: str
    created: int  # seconds

    def is_of(self, proof: SignedIn) -> bool:
        """Whether it is the provider's user of this proof."""
        return (self.issuer, self.sub) == (proof.issuer, proof.sub)


class OpenID:
    """The routes for sign-ins by providers. `cookie` binds one to the browser."""

    def __init__(
        self,
        shared: Shared,
        login: Login,
        accounts: Accounts,
        *,
        cookie: SignedCookie,
        providers: list[Provider],
        whitelist: Whitelist,
    ):
        self._redis = shared.redis
        self._notify = shared.notify
        self._users = shared.users
        self._sessions = shared.sessions
        self._tokens = shared.tokens
        self._login = login
        self._accounts = accounts
        self._mail = shared.mail
        self._rates = shared.rates
        self._cookie = cookie
        self._providers = {provider.id: provider for provider in providers}
        self._whitelist = whitelist

    def routes(self) -> list[Route]:
        """For the route table: the clients' routes, and those that providers send the browser back to."""
        return [
            public.get("/auth/providers", self._list_providers),
            auth.post("/auth/openid/begin", self._begin, limit=self._rates.by_origin("openid")),
            auth.get(f"{BACK}/{{provider}}", self._back),
            private.get("/auth/links", self._list),
            private.post("/auth/links/remove", self._remove),
        ]

    # The flow

    async def _list_providers(self, request: Request) -> Reply:
        """The providers that users may sign in by. 200 {"providers": [{"id", "name"}]}."""
        return reply(200, {"providers": [{"id": each.id, "name": each.name} for each in self._providers.values()]})

    async def _begin(self, request: Request, body: BeginOpenID) -> Reply:
        """Begin a sign-in. 200 {"url": str}, the provider's page; 404 `provider`; 429 `rate`; 503 `unavailable`."""
        provider = self._providers.get(body.provider)
        if provider is None:
            return reply(404, error="provider")
        browser = random_text(130)
        begun = SignIn(provider.id, random_text(130), random_text(260), _hash(browser))
        state = await self._tokens.make("openid", begun, UNDER_WAY)
        try:
            url = await provider.begin(state, begun.nonce, begun.verifier)
        except ProviderUnreachable as error:
            self._notify("warning", "openid.unreachable", provider=provider.id, why=str(error))
            return reply(503, error="unavailable", headers=[("retry-after", "10")])
        return reply(200, {"url": url}, headers=[self._cookie.give(browser)])

    async def _back(self, request: Request, provider: str) -> Reply:
        """Where providers send the browser back to, with `?code&state&iss` or `?error&state`; all else is ignored.

        303 to `/` with a session's cookies, to `/#second=TICKET&factors=totp,passkey`, or to `/#openid=WORD`: `auth`,
        `denied`, `email`, `token`, `unavailable` or `whitelist`.
        """
        found = await self._identify(request, provider)
        if isinstance(found, str):
            return self._send_to(f"/#openid={found}")
        admitted = await self._login.admit(request, found)
        if admitted.error == "second":
            second = msgspec.json.decode(admitted.body)
            return self._send_to(f"/#second={second['ticket']}&factors={','.join(second['factors'])}")
        if admitted.status != 200:
            return self._send_to("/#openid=auth")
        cookies = [each for each in admitted.headers if each[0] == b"set-cookie"]
        return self._send_to("/", *((name.decode(), value.decode("latin-1")) for name, value in cookies))

    def _send_to(self, place: str, *cookies: tuple[str, str]) -> Reply:
        """Redirect to a place of our own page, and delete the cookie of the sign-in, which is used up."""
        return reply(303, b"", headers=[("location", place), self._cookie.take(), *cookies])

    async def _identify(self, request: Request, from_provider: str) -> Account | str:
        """The account of the browser that has come back, or the word for why there is none."""
        answer = read_answer(request.query_string)
        browser = self._cookie.read(request.headers.get(b"cookie"))
        if answer is None or not isinstance(browser, str):  # a stranger's visit to the address uses nothing up
            return "token"
        begun = await self._tokens.take("openid", answer.get("state", ""), SignIn)
        provider = self._providers.get(begun.provider) if begun else None
        if begun is None or provider is None or begun.browser != _hash(browser):
            return "token"
        if begun.provider != from_provider or answer.get("iss", provider.issuer) != provider.issuer:
            self._notify("warning", "openid.mixed_up", provider=provider.id, origin=request.origin)
            return "auth"
        if error := answer.get("error"):
            return "unavailable" if error in AWAY else "denied"
        if not answer.get("code"):
            return "token"
        try:
            proof = await provider.redeem(
                answer["code"], answer.get("iss", ""), verifier=begun.verifier, nonce=begun.nonce
            )
        except ProviderUnreachable as failure:
            self._notify("warning", "openid.unreachable", provider=provider.id, why=str(failure))
            return "unavailable"
        except ProviderRefused as failure:
            self._notify("warning", "openid.refused", provider=provider.id, why=str(failure), origin=request.origin)
            return "auth"
        return await self._account_of(request, provider, proof)

    # Whose account

    async def _account_of(self, request: Request, provider: Provider, proof: SignedIn) -> Account | str:
        """Our user for a provider's: by link, by verified address, or new; else the word for why there is none."""
        account = await self._linked(proof)
        if account:
            return "auth" if account.state else account
        email = _valid(proof.email)
        if email is None:
            return "email"
        account = await self._users.find(email)
        is_known = account is not None
        if account is None:
            if not self._whitelist.admits(email):
                return "whitelist"
            await self._users.create(email, "", verified=True)
            account = await self._users.find(email)  # the one just made, or one made concurrently
        if account is None or account.state:
            return "auth"
        account = await self._accounts.claim(account)
        if account is None:
            return "auth"
        linked = await self._link(account, provider, proof)
        if linked is None:
            return "email"
        if is_known:
            await self._tell(account.email, f"you can log in by {provider.name} now.", request)
        return linked

    async def _linked(self, proof: SignedIn) -> Account | None:
        user = await self._redis.get(linked_key(proof.issuer, proof.sub))
        return await self._holder(user, proof) if user else None

    async def _holder(self, user: str, proof: SignedIn) -> Account | None:
        """A user, if linked to the provider's. The user is read first: removing a link changes their version."""
        account, links = await self._users.read(user), await self._of(user)
        return account if any(each.is_of(proof) for each in links.values()) else None

    async def _link(self, account: Account, provider: Provider, proof: SignedIn) -> Account | None:
        """Link an account to a provider's user. Returns the account as it is then.

        None if the account is linked to another user of this provider: if the provider has given an address to a new
        user, it doesn't lead into the account of its former owner.
        """
        kept = await self._redis.hgetall(links_key(account.id))
        old = read_all(kept, LinkedProvider).get(provider.id)
        if old and old.issuer == proof.issuer and old.sub != proof.sub:
            return None
        if not old and provider.id in kept:
            return None  # a link that we can't read
        if not old or not old.is_of(proof):
            link = msgspec.json.encode(LinkedProvider(proof.issuer, proof.sub, int(time.time()))).decode()
            if not await self._users.alter(account, ("HSET", links_key(account.id), provider.id, link)):
                return await self._holder(account.id, proof)  # changed, perhaps by a concurrent sign-in
        if old and not old.is_of(proof):
            await self._close(account.id, old)
        await self._redis.set(linked_key(proof.issuer, proof.sub), account.id)
        linked = await self._holder(account.id, proof)  # a concurrent sign-in may have changed the user
        if linked is None:  # the link was removed, or the user erased, before the provider's side was written
            await self._close(account.id, proof)
        return linked or account

    async def _close(self, user: str, link: LinkedProvider | SignedIn) -> None:
        """Delete the provider's side of a link, if it leads to this user."""
        await CLOSE(self._redis, [linked_key(link.issuer, link.sub)], user)

    async def _of(self, user: str) -> dict[str, LinkedProvider]:
        return read_all(await self._redis.hgetall(links_key(user)), LinkedProvider)

    async def release(self, user: str) -> list[str]:
        """Delete the providers' sides of a user's links. Returns the key of the user's side."""
        for link in (await self._of(user)).values():
            await self._close(user, link)
        return [links_key(user)]

    # The user's own

    async def _list(self, request: Request) -> Reply:
        """The providers that the user may sign in by. 200 {"links": [{"provider", "created"}]}."""
        links = await self._of(request.user.id)
        return reply(200, {"links": [{"provider": each, "created": link.created} for each, link in links.items()]})

    async def _remove(self, request: Request, body: RemoveLink) -> Reply:
        """Remove the link to a provider. 200 {}; 403 `auth`, also if the user has no password; 404 `provider`; 429."""
        proven = await self._login.prove(request, body.password)
        if isinstance(proven, Reply):
            return proven
        links = await self._of(request.user.id)
        link = links.get(body.provider)
        if link is None:
            return reply(404, error="provider")
        if not await self._sessions.alter(request, proven, ("HDEL", links_key(proven.id), body.provider)):
            return reply(403, error="auth")
        await self._close(proven.id, link)
        provider = self._providers.get(body.provider)
        name = provider.name if provider else body.provider
        await self._tell(request.user.email, f"logging in by {name} is no longer possible.", request)
        return reply(200)

    async def _tell(self, email: str, what: str, request: Request) -> None:
        await self._mail.send(email, "changed_factors", {"what": what, "when": now(), "origin": request.origin})


def read_answer(raw: bytes) -> dict[str, str] | None:
    """The parameters of a provider's answer; None if one that counts is given twice, or they are malformed."""
    try:
        pairs = parse_urlencoded(raw.decode("latin-1"))
    except Malformed:
        return None
    found = [(name, value) for name, value in pairs if name in ("code", "state", "iss", "error")]
    return dict(found) if len({name for name, _ in found}) == len(found) else None


def _valid(email: str) -> str | None:
    try:
        return msgspec.convert(normalize(email), Email)
    except msgspec.ValidationError:
        return None


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
