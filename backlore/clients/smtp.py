"""Hands a mail to an SMTP server (RFC 5321), or without a server to a folder.

Laws:

- `MailRefused` is the server's final answer for this mail. A failure that may be temporary, or that the operator can
  fix, is `MailNotTaken`.
- Passwords and mails are sent only over a connection as secure as `tls` demands: a server that offers less gets
  nothing.
- Once the server has accepted a mail, no later error makes the send fail.
"""

import asyncio
import contextlib
import os
import secrets
import ssl
import time
from email.message import EmailMessage
from pathlib import Path
from typing import Literal

import aiosmtplib
from aiosmtplib import SMTP, SMTPException

ABOUT_US = frozenset({530, 534, 535, 538})  # errors of authentication (RFC 4954, §6): not about the mail
FAREWELL = 1.0  # seconds that QUIT may take


class MailRefused(Exception):
    """The server will never take this mail: a 5xx reply to recipient or content, or an address that it can't handle."""


class MailNotTaken(Exception):
    """The mail was not taken, but may be later: no connection, no reply in time, a 4xx reply, a failed login."""


class Smtp:
    """An SMTP server, with one connection per mail. For Amazon SES: email-smtp.REGION.amazonaws.com, port 587.

    `tls`: "starttls" (usually port 587), "tls" from the first byte (465), or "none". The certificate is checked against
    the system's authorities. `timeout`: seconds that each step may take.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        username: str | None = None,
        password: str | None = None,
        tls: Literal["starttls", "tls", "none"] = "starttls",
        timeout: float = 10.0,
    ):
        self._host = host
        self._port = port
        self._username = username
        self._password = password
        self._tls = tls
        self._timeout = timeout
        self._context = None if tls == "none" else ssl.create_default_context()

    async def send(self, message: EmailMessage) -> None:
        """Return when the server has accepted the mail. Raises MailRefused or MailNotTaken."""
        client = SMTP(
            hostname=self._host,
            port=self._port,
            username=self._username,
            password=self._password,
            use_tls=self._tls == "tls",
            start_tls=self._tls == "starttls",
            tls_context=self._context,
            timeout=self._timeout,
        )
        try:
            await self._connect(client)
            await self._hand_over(client, message)
            with contextlib.suppress(SMTPException, OSError):
                await client.quit(timeout=FAREWELL)
        finally:
            client.close()

    async def _connect(self, client: SMTP) -> None:
        try:
            await client.connect()
        except (SMTPException, OSError) as error:  # timeouts and certificate errors are OSErrors too
            raise MailNotTaken(f"{self._host}:{self._port}: {error}") from error

    async def _hand_over(self, client: SMTP, message: EmailMessage) -> None:
        (sender,) = message["From"].addresses
        recipients = [address.addr_spec for address in message["To"].addresses]
        try:
            await client.send_message(message, sender=sender.addr_spec, recipients=recipients)
        except aiosmtplib.SMTPNotSupported as error:  # only SMTPUTF8 (RFC 6531) can be missing here
            raise MailRefused(str(error)) from error
        except aiosmtplib.SMTPRecipientsRefused as error:
            raise _judge(error.recipients[0]) from error
        except aiosmtplib.SMTPDataError as error:
            raise _judge(error) from error
        except (SMTPException, OSError) as error:
            raise MailNotTaken(f"{self._host}:{self._port}: {error}") from error


def _judge(error: aiosmtplib.SMTPResponseException) -> MailRefused | MailNotTaken:
    """The exception for an error reply to a recipient or to the content."""
    final = error.code >= 500 and error.code not in ABOUT_US
    return (MailRefused if final else MailNotTaken)(f"{error.code} {error.message}")


class Outbox:
    """A folder that gets each mail as an .eml file, readable by its owner alone. Used without an SMTP server.

    The names sort by time. A file is complete as soon as it appears.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    async def send(self, message: EmailMessage) -> None:
        """Return when the file is there. Raises MailNotTaken when it can't be written."""
        try:
            await asyncio.to_thread(self._write, message.as_bytes())
        except OSError as error:
            raise MailNotTaken(f"{self._folder}: {error}") from error

    def _write(self, content: bytes) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        seconds, rest = divmod(time.time_ns(), 10**9)
        clock = time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds))
        name = f"{clock}.{rest:09}Z-{secrets.token_hex(3)}.eml"
        draft = self._folder / f".{name}"
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                out.write(content)
            draft.rename(self._folder / name)
        finally:
            draft.unlink(missing_ok=True)
