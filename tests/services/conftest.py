"""An office that sends letters through a real redis and a real SMTP server."""

import subprocess

import pytest
import uvloop

from backlore.clients.redis.client import Redis
from backlore.core.notify import Notify
from backlore.services.mail import mail as service
from tests.kit.postmaster import Postmaster, make_mail


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificate")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -keyout key.pem -out cert.pem"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1"], cwd=folder, check=True, capture_output=True
    )
    return folder


@pytest.fixture
def postmaster(certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    postmaster = Postmaster(certificate)
    postmaster.start()
    yield postmaster
    postmaster.stop()


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(service, "BACKOFF", 0.05)
    monkeypatch.setattr(service, "LONGEST_BACKOFF", 0.2)


@pytest.fixture
def told():
    return []


@pytest.fixture
def office(engine, postmaster, told, impatient):
    """Runs an async function with a `Mail` in an empty redis, and gives what it returns."""

    def run(function, post=None, **options):
        async def main():
            notify = Notify(told.append)
            redis = Redis(unix_socket_path=engine.path, timeout=2.0)
            try:
                await redis.flushall()
                return await function(make_mail(redis, notify, post or postmaster.smtp(), **options))
            finally:
                await redis.aclose()
                notify.flush()

        return uvloop.run(main())  # as workers do

    return run
