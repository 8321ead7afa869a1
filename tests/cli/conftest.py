"""`waybill up` for one test, and servers it can be given by URL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.ups import Up
from tests.servers import Servers


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    up = Up(tmp_path / "home")
    yield up
    up.kill()


@pytest.fixture(scope="session")
def elsewhere(servers: Servers) -> dict[str, str]:
    """The settings that name both test servers; the database has no tables."""
    return {
        "WAYBILL_DATABASE_URL": servers.postgres.create_database("elsewhere"),
        "WAYBILL_REDIS_URL": servers.valkey.url(),
    }
