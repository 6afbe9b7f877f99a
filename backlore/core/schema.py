"""The keys of an application's `config.py` and `secret.py`, with their types and defaults."""

from typing import Annotated, Literal

import msgspec

from backlore.core.payload import Payload, between, length, matching

Port = Annotated[int, between(1, 65535)]
Seconds = Annotated[float, between(0.01, 10 * 365 * 86400)]
# A provider without TLS is trusted only on this machine.
ISSUER = r"https://[^\s?#@]+|http://(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?(/[^\s?#@]*)?"
Name = Annotated[str, matching("[a-z][a-z0-9_-]{0,30}", "lower-case letters, digits, - and _")]
Filled = Annotated[str, matching(r"[^\0]*\S[^\0]*", "a text that is not empty")]
Size = Annotated[int, between(1, 1 << 40)]  # bytes
Server = Annotated[str, matching(r"https?://[^/\s@]+", "like http://10.0.0.5:8001")]


class RedisConfig(Payload):
    """A redis or valkey that we don't start ourselves. Its password is `redis_password` in `secret.py`."""

    # the path of a program that we start instead of our own engine; no other key may stand beside it
    embedded: Annotated[str, matching("/.+", "like /usr/bin/valkey-server")] | None = None
    host: Filled = "127.0.0.1"
    port: Port = 6379
    path: Filled | None = None  # of a unix socket; wins over host and port
    username: str | None = None
    tls: bool = False
    ca: Filled | None = None  # file with the certificate authority to trust, else the system's
    db: Annotated[int, between(0, 15)] = 0


class MailConfig(Payload):
    """An SMTP server that sends our mails, such as Amazon SES. Its password is `smtp_password` in `secret.py`."""

    host: Filled
    sender: Annotated[str, length(3, 254)]  # the From of all mails: "Shoebox <hello@shoebox.example>"
    port: Port = 587
    username: str | None = None
    tls: Literal["starttls", "tls", "none"] = "starttls"


class ProviderConfig(Payload):
    """An OpenID Connect provider that users sign in with. Its client secret stands in `providers` of `secret.py`."""

    issuer: Annotated[str, matching(ISSUER, "like https://accounts.example.com")]  # exactly as it names itself
    client_id: Annotated[str, length(1, 500)]
    name: Annotated[str, length(1, 50)]  # shown to users


class BucketConfig(Payload):
    """An S3 bucket, Amazon's or another server's. Its keys are `s3_key` and `s3_secret` in `secret.py`."""

    name: Annotated[str, matching(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", "3 to 63 lower-case letters, digits, . and -")]
    region: Annotated[str, length(1, 50)] = "us-east-1"
    # None: Amazon's
    endpoint: Annotated[str, matching(r"https?://[^/\s]+", "like https://s3.example.com")] | None = None
    path_style: bool = True  # the bucket's name is in the path; else in the host name
    prefix: Annotated[str, matching("[A-Za-z0-9/_-]{0,200}", "letters, digits, /, - and _")] = ""  # of all object names


class FilesConfig(Payload):
    """How much users may keep, and how safely it is kept."""

    quota: Size = 10 << 30  # bytes of one user, including the trash
    entries: Annotated[int, between(1, 1 << 30)] = 100_000  # files of one user, including the trash
    total: Size | None = None  # bytes of all users together; None: as much as the disk takes
    free: Annotated[int, between(0, 1 << 40)] = 1 << 30  # bytes of the disk that uploads must leave free
    trash: Seconds = 30 * 86400.0  # how long a deleted or overwritten file can be restored
    unfinished: Seconds = 86400.0  # how long a resumable upload waits for its next bytes
    durable: Literal["disk", "s3"] = "disk"  # where a file must be before it is acknowledged
    servers: list[Server] = []  # URLs of the file servers that keep the contents; none: this machine's disk does
    copies: Annotated[int, between(1, 5)] = 2  # the number of servers that each content is kept on
    # nginx's internal location for the contents in the data folder: nginx sends them for requests that come through
    # `proxies` (X-Accel-Redirect)
    accel: Annotated[str, matching("/[a-z0-9_-]{1,50}/", "like /contents/")] | None = None


class Config(Payload):
    """All keys of `CONFIG` in `config.py`, with their defaults."""

    name: Name  # of the application
    host: Filled = "127.0.0.1"
    port: Port = 8000
    # the URL that users see; https makes cookies Secure
    address: Annotated[str, matching(r"https?://[^/\s]+", "like https://app.example")] | None = None
    # the session cookie's name; by default the application's
    cookie: Annotated[str, matching("[A-Za-z0-9_-]{1,50}", "letters, digits, - and _")] | None = None
    environments: list[Name] = []  # further ones beside dev and prod
    data: Filled = ".data"  # the folder of all state on this machine
    workers: Annotated[int, between(0, 512)] = 0  # 0: one per CPU
    redis: RedisConfig | None = None  # None: embedded, in the data folder
    redis_timeout: Seconds = 0.8  # how long a command may wait; then the reply is 503
    durability: Literal["everysec", "always"] = "everysec"  # when the embedded engine fsyncs its AOF
    proxies: list[str] = []  # addresses or networks whose X-Forwarded-For is trusted
    session_idle: Seconds = 14 * 86400  # a session ends after this long without use
    session_limit: Seconds = 90 * 86400  # and after this long in any case
    # how many seconds a worker caches a session. None: 5 with the embedded engine, where all workers share this
    # machine; else 0, because workers on other machines don't learn of a session's end
    session_memory: Annotated[float, between(0, 60)] | None = None
    mail: MailConfig | None = None  # None: mails go into the outbox folder of the data folder
    verify_email: bool | None = None  # whether an account begins with a verified address; None: outside of dev only
    bucket: BucketConfig | None = None  # None: files are on the disk only
    files: FilesConfig = msgspec.field(default_factory=FilesConfig)
    rates: dict[str, tuple[int, float]] = {}  # rate limits by kind, replacing the defaults: (count, seconds)
    whitelist: list[str] | None = None  # e-mail addresses that may sign up; None: any
    admins: list[str] = []  # e-mail addresses of the admins
    providers: dict[Name, ProviderConfig] = {}  # OpenID Connect providers, by an id of your choice
    body_limit: Size = 1 << 20  # JSON and forms without files; on identity's routes 64 KiB at most
    upload_limit: Size = 100 << 20  # a form with files, all parts together; a resumable upload
    upload_parts: Annotated[int, between(1, 10_000)] = 100
    header_timeout: Seconds = 10.0  # a client that takes longer for its headers is disconnected
    body_timeout: Seconds = 30.0  # for a whole body within body_limit
    upload_rate: Size = 1024  # bytes a second: the least that an upload must send, measured over body_timeout
    upload_timeout: Seconds = 3 * 3600.0  # for a whole upload
    drain: Seconds = 10.0  # how long requests in flight may take when a worker ends

    @property
    def own_redis(self) -> RedisConfig | None:
        """The redis server that we don't start ourselves; None when the engine is embedded."""
        return None if self.redis is None or self.redis.embedded else self.redis

    @property
    def secure(self) -> bool:
        """Whether users reach the server by HTTPS."""
        return bool(self.address and self.address.startswith("https:"))


class Secret(Payload):
    """All keys of `SECRET` in `secret.py`."""

    cookie: Annotated[str, length(32, 1000)]  # signs sessions and everything bound to them
    redis_password: str | None = None
    smtp_password: str | None = None
    s3_key: str | None = None
    s3_secret: str | None = None
    files_token: Annotated[str, length(16, 1000)] | None = None  # opens the file servers
    providers: dict[str, str] = {}  # client secrets, by the provider's id
