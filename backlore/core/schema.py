"""What an application's `config.py` and `secret.py` may say: every key with its type and its default."""

from typing import Annotated, Literal

import msgspec

from backlore.core.payload import Payload, between, length, matching

Port = Annotated[int, between(1, 65535)]
Seconds = Annotated[float, between(0.01, 10 * 365 * 86400)]
# Without TLS a provider is believed on this machine alone.
ISSUER = r"https://[^\s?#@]+|http://(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?(/[^\s?#@]*)?"
Name = Annotated[str, matching("[a-z][a-z0-9_-]{0,30}", "lower-case letters, digits, - and _")]
Filled = Annotated[str, matching(r"[^\0]*\S[^\0]*", "a text that is not empty")]
Size = Annotated[int, between(1, 1 << 40)]  # bytes
Server = Annotated[str, matching(r"https?://[^/\s@]+", "like http://10.0.0.5:8001")]


class RedisConfig(Payload):
    """A redis or valkey that we don't start ourselves. Its password is `redis_password` in `secret.py`."""

    embedded: Annotated[str, matching("/.+", "like /usr/bin/valkey-server")] | None = (
        None  # a program that we do start, instead of our own; stands alone
    )
    host: Filled = "127.0.0.1"
    port: Port = 6379
    path: Filled | None = None  # of a unix socket; wins over host and port
    username: str | None = None
    tls: bool = False
    ca: Filled | None = None  # file with the certificate authority to trust, else the system's
    db: Annotated[int, between(0, 15)] = 0


class MailConfig(Payload):
    """An SMTP server to send by, Amazon SES's for one. Its password is `smtp_password` in `secret.py`."""

    host: Filled
    sender: Annotated[str, length(3, 254)]  # what mails come from: "Shoebox <hello@shoebox.example>"
    port: Port = 587
    username: str | None = None
    tls: Literal["starttls", "tls", "none"] = "starttls"


class ProviderConfig(Payload):
    """A provider of OpenID Connect that users sign in by. Its client secret stands in `providers` of `secret.py`."""

    issuer: Annotated[str, matching(ISSUER, "like https://accounts.example.com")]  # to the letter as it names itself
    client_id: Annotated[str, length(1, 500)]
    name: Annotated[str, length(1, 50)]  # for users


class BucketConfig(Payload):
    """A bucket of S3, Amazon's or another's. Its keys are `s3_key` and `s3_secret` in `secret.py`."""

    name: Annotated[str, matching(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "3 to 63 lower-case letters, digits, . and -")]
    region: Annotated[str, length(1, 50)] = "us-east-1"
    endpoint: Annotated[str, matching(r"https?://[^/\s]+", "like https://s3.example.com")] | None = (
        None  # None: Amazon's
    )
    path_style: bool = True  # the bucket's name in the path; else in the host's name
    prefix: Annotated[str, matching("[A-Za-z0-9/_-]{0,200}", "letters, digits, /, - and _")] = ""  # before all names


class FilesConfig(Payload):
    """What users may keep, and how safely."""

    quota: Size = 10 << 30  # of a user, with the trash
    entries: Annotated[int, between(1, 1 << 30)] = 100_000  # files of a user, with the trash
    total: Size | None = None  # of all users together; None: as much as the disk takes
    free: Annotated[int, between(0, 1 << 40)] = 1 << 30  # bytes of the disk that no upload may take
    trash: Seconds = 30 * 86400.0  # how long what was deleted or overwritten can be had back
    unfinished: Seconds = 86400.0  # how long a resumable upload waits for its next bytes
    durable: Literal["disk", "s3"] = "disk"  # where a file must be before it is acknowledged
    servers: list[Server] = []  # that keep the contents, by their URLs; none: the disk of this machine does
    copies: Annotated[int, between(1, 5)] = 2  # of a content, on so many of the servers
    # nginx's internal location for the contents of the data folder; requests that come through `proxies` are
    # answered by it (X-Accel-Redirect)
    accel: Annotated[str, matching("/[a-z0-9_-]{1,50}/", "like /contents/")] | None = None


class Config(Payload):
    """All keys of `CONFIG` in `config.py`, with their defaults."""

    name: Name  # of the application
    host: Filled = "127.0.0.1"
    port: Port = 8000
    address: Annotated[str, matching(r"https?://[^/\s]+", "like https://app.example")] | None = (
        None  # as users see it; https: Secure cookies
    )
    cookie: Annotated[str, matching("[A-Za-z0-9_-]{1,50}", "letters, digits, - and _")] | None = (
        None  # its name; by default that of the app
    )
    environments: list[Name] = []  # that there are beside dev and prod
    data: Filled = ".data"  # folder of all state on this machine
    workers: Annotated[int, between(0, 512)] = 0  # 0: one per CPU
    redis: RedisConfig | None = None  # None: embedded, in the data folder
    redis_timeout: Seconds = 0.8  # how long a command may wait; then 503
    durability: Literal["everysec", "always"] = "everysec"  # of the embedded engine: when the AOF is fsynced
    proxies: list[str] = []  # addresses or networks whose X-Forwarded-For is believed
    session_idle: Seconds = 14 * 86400  # a session ends after so long without use
    session_limit: Seconds = 90 * 86400  # and after so long in any case
    # for so many seconds a worker remembers a session that it has read; None: 5 where all workers share this machine,
    # as they do with the embedded engine, else 0, for the end of a session is not seen by other machines
    session_memory: Annotated[float, between(0, 60)] | None = None
    mail: MailConfig | None = None  # None: into the folder outbox of the data folder
    verify_email: bool | None = None  # whether an account begins with a verified address; None: in prod
    bucket: BucketConfig | None = None  # None: files are on the disk alone
    files: FilesConfig = msgspec.field(default_factory=FilesConfig)
    rates: dict[str, tuple[int, float]] = {}  # limits by kind, over the defaults: count, seconds
    whitelist: list[str] | None = None  # addresses that may sign up; None: everybody
    admins: list[str] = []  # addresses
    providers: dict[Name, ProviderConfig] = {}  # of OpenID Connect, by an id of your choice
    body_limit: Size = 1 << 20  # JSON and forms without files; of identity's routes 64 KiB at most
    upload_limit: Size = 100 << 20  # a form with files, all parts together; a resumable upload
    upload_parts: Annotated[int, between(1, 10_000)] = 100
    header_timeout: Seconds = 10.0  # a client that takes longer for its headers is cut
    body_timeout: Seconds = 30.0  # for a whole body within body_limit
    upload_rate: Size = 1024  # bytes a second that an upload brings at least, in each body_timeout
    upload_timeout: Seconds = 3 * 3600.0  # for a whole upload
    drain: Seconds = 10.0  # how long requests under way may take when a worker ends

    @property
    def own_redis(self) -> RedisConfig | None:
        """The redis that we don't start; None when ours is embedded."""
        return None if self.redis is None or self.redis.embedded else self.redis

    @property
    def secure(self) -> bool:
        """Whether users reach us by HTTPS."""
        return bool(self.address and self.address.startswith("https:"))


class Secret(Payload):
    """All keys of `SECRET` in `secret.py`."""

    cookie: Annotated[str, length(32, 1000)]  # signs sessions and what is bound to them
    redis_password: str | None = None
    smtp_password: str | None = None
    s3_key: str | None = None
    s3_secret: str | None = None
    files_token: Annotated[str, length(16, 1000)] | None = None  # opens the file servers
    providers: dict[str, str] = {}  # client secrets by the id of the provider
