"""A real SMTP server, which is down, refuses, or stops answering; and letters that are brought to it."""

import asyncio
import ssl
from email import message_from_bytes, policy

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from backlore.clients.smtp import Smtp
from backlore.services.mail.mail import ATTEMPTS, DUE, LETTERS, Mail
from tests.kit.engines import free_port

LONG = 20.0  # seconds in which anything here must have happened
LINK = "https://shoebox.example/verify?token=aB3&x=" + "y" * 60
LOGIN = {"username": "shoebox", "password": "open sesame"}


class Postmaster:
    """An SMTP server that asks for STARTTLS and a login. `answers` are given before it accepts again."""

    def __init__(self, folder):
        self.port = free_port()
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        self.arrived = []
        self.answers = []
        self.delay = 0.0
        self.controller = None

    def start(self, **options):
        options = {
            "tls_context": self.context,
            "require_starttls": True,
            "authenticator": self.authenticate,
            "auth_required": True,
            "enable_SMTPUTF8": True,
        } | options
        self.controller = Controller(self, "127.0.0.1", self.port, **options)
        self.controller.start()

    def stop(self):
        if self.controller:
            self.controller.stop()
            self.controller = None

    def authenticate(self, server, session, envelope, mechanism, login):
        known = login.login == b"shoebox" and login.password == b"open sesame"
        return AuthResult(success=known, handled=False)

    async def handle_DATA(self, server, session, envelope):
        if self.answers:
            return self.answers.pop(0)
        message = message_from_bytes(envelope.content, policy=policy.default)
        self.arrived.append((envelope.rcpt_tos, message))
        await asyncio.sleep(self.delay)
        return "250 OK"

    def smtp(self, **options):
        return Smtp("127.0.0.1", self.port, **LOGIN | {"tls": "starttls", "timeout": 5.0} | options)


def make_mail(redis, notify, post, **options):
    known = {"application": "Shoebox", "address": "https://shoebox.example", "sender": "Shöbox <hello@shoebox.example>"}
    return Mail(redis, notify, post, **known | options)


async def until(condition):
    """Wait until it holds."""
    async with asyncio.timeout(LONG):
        while not condition():
            await asyncio.sleep(0.01)


async def deliver_until(mail, condition):
    async with asyncio.timeout(LONG):
        while not condition():
            await mail.deliver()
            await asyncio.sleep(0.01)


async def is_empty(mail):
    return not await mail._redis.exists(DUE, LETTERS, ATTEMPTS)


def events(told):
    return [(record["level"], record["event"]) for record in told]
