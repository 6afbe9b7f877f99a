"""Makes clients from the settings: redis, mail, the bucket, file servers, providers; and the limits of requests."""

import math
import ssl
from typing import TYPE_CHECKING, Any

from backlore.clients.oidc.provider import Provider
from backlore.clients.redis.client import Redis
from backlore.clients.s3 import S3
from backlore.clients.smtp import Outbox, Smtp
from backlore.core.config import Settings
from backlore.core.notify import Notify
from backlore.web.limits import Limits, Patience

if TYPE_CHECKING:
    from backlore.services.storage.remote import RemoteStore


def connect(settings: Settings, notify: Notify | None = None) -> Redis:
    """The client of the application's redis: the configured server, or the embedded one by its unix socket."""
    limits: dict[str, Any] = {"timeout": settings.config.redis_timeout, "notify": notify}
    known = settings.config.own_redis
    if known is None:
        return Redis(unix_socket_path=str(settings.engine_socket), **limits)
    login: dict[str, Any] = {"username": known.username, "password": settings.secret.redis_password, "db": known.db}
    if known.path:
        return Redis(unix_socket_path=known.path, **login, **limits)
    if known.tls:
        login |= {"ssl": True, "ssl_ca_certs": known.ca, "ssl_min_version": ssl.TLSVersion.TLSv1_2}
    return Redis(host=known.host, port=known.port, **login, **limits)


def postman(settings: Settings) -> Smtp | Outbox:
    """The client that sends mails: through the configured SMTP server, or without one into the outbox folder."""
    known = settings.config.mail
    if known is None:
        return Outbox(settings.outbox)
    password = settings.secret.smtp_password
    return Smtp(known.host, known.port, username=known.username, password=password, tls=known.tls)


def bucket(settings: Settings) -> S3 | None:
    """The client of the configured bucket; None without one."""
    known, secret = settings.config.bucket, settings.secret
    if known is None:
        return None
    return S3(
        known.name,
        region=known.region,
        endpoint=known.endpoint,
        path_style=known.path_style,
        access_key=secret.s3_key,
        secret_key=secret.s3_secret,
        prefix=known.prefix,
    )


def file_servers(settings: Settings, behind: S3 | None, notify: Notify) -> "RemoteStore | None":
    """The clients of the configured file servers, with the bucket behind them; None without servers or a token."""
    known, token = settings.config.files, settings.secret.files_token
    if not known.servers or not token:
        return None
    from backlore.clients.fileserver import FileServer  # loads aiohttp, which a local disk doesn't need
    from backlore.services.storage.remote import RemoteStore

    return RemoteStore([FileServer(url, token, notify) for url in known.servers], behind, notify, known.copies)


def providers(settings: Settings, back: str) -> list[Provider]:
    """The providers that users may sign in with. They send browsers back to the route `back`/ID.

    That URL begins with the configured address, never with a host that a request names.
    """
    back, secrets = f"{settings.address}{back}", settings.secret.providers
    return [
        Provider(id, each.name, each.issuer, each.client_id, secrets.get(id, ""), f"{back}/{id}")
        for id, each in settings.config.providers.items()
    ]


def limits(settings: Settings) -> Limits:
    """The limits on what clients may send."""
    known = settings.config
    return Limits(
        folder=settings.temporary,
        patience=Patience(known.body_timeout),
        body=known.body_limit,
        upload=known.upload_limit,
        stretch=math.ceil(known.upload_rate * known.body_timeout),
        longest=known.upload_timeout,
        parts=known.upload_parts,
        free=known.files.free,
    )
