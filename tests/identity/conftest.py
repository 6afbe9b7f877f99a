"""Who has no session, at the server of a module and at one that is reached by https."""

from collections.abc import Iterator

import pytest

from tests.conftest import SHOEBOX, Server, serving
from tests.kit.strangers import PLENTY, Stranger


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Users reach it by https, and addresses are verified, as in production."""
    settings = PLENTY | {"address": "https://app.example", "verify_email": True, "admins": ["admin@example.com"]}
    with serving(SHOEBOX, tmp_path_factory.mktemp("https"), settings=settings) as made:
        yield made


@pytest.fixture
def stranger(server: Server) -> Iterator[Stranger]:
    with Stranger(server) as client:
        yield client


@pytest.fixture
def visitor(secure: Server) -> Iterator[Stranger]:
    with Stranger(secure) as client:
        yield client
