"""Fixtures over real servers; for an empty database override `database_url`
with `fresh_database_url`, for one of a module with `module_database_url`."""

import base64
import os
from collections.abc import AsyncIterator, Generator, Iterator

import pytest
import redis
import structlog
from pydantic import SecretStr

from shared.credentials import Sealer
from shared.db import Database
from shared.messages import Message
from shared.prices import PriceMap
from shared.runtime import Runtime, redis_client
from shared.settings import Settings
from tests import scene as scenes
from tests.scene import Scene
from tests.servers import Servers, running_servers
from tests.stack import FreshStacks, Stack, running_stack

SERVER_PROGRAMS = ("WAYBILL_POSTGRES_BIN", "WAYBILL_REDIS_SERVER")
PROVIDER_KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY")
LONG = ("crash", "flows", "cli", "contract", "deploy")
"""Folders whose tests start programs."""
ADMIN_KEY = "test-admin-key-of-at-least-32-characters"
SECRET_KEY = "test-secret-key-of-at-least-32-characters"
ENCRYPTION_KEY = base64.b64encode(b"e" * 32).decode()


def pytest_configure() -> None:
    """Settings come from each test, never from the shell that runs them; no test may reach a real provider."""
    ours = [name for name in os.environ if name.startswith("WAYBILL_") and name not in SERVER_PROGRAMS]
    for name in (*ours, *PROVIDER_KEYS):
        os.environ.pop(name, None)
    # By default each traceback is drawn with all locals: seconds for one of ours.
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], plain])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first, file by file, so that no process waits for another's last file."""
    items.sort(key=lambda item: item.nodeid.split("/")[1] not in LONG)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that failed on a stack shows what its processes logged meanwhile."""
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        for name in ("stack", "fresh_stack"):
            used = item.funcargs.get(name)
            if isinstance(used, Stack | FreshStacks):
                report.sections.append(("logs of the stack", used.logs()))
    return report


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Postgres and Valkey of this pytest process (each xdist worker has its own pair)."""
    with running_servers() as running:
        yield running


@pytest.fixture(scope="session")
def database_url(servers: Servers) -> str:
    """A migrated database shared by the tests of this process: make your own team, count only your own rows."""
    return servers.create_database()


@pytest.fixture(scope="module")
def module_database_url(servers: Servers) -> Iterator[str]:
    """A migrated database for the tests of one module."""
    url = servers.create_database()
    yield url
    servers.drop_database(url)


@pytest.fixture
def fresh_database_url(servers: Servers) -> Iterator[str]:
    """A migrated database for one test."""
    url = servers.create_database()
    yield url
    servers.drop_database(url)


@pytest.fixture(scope="session")
def redis_url(servers: Servers) -> str:
    """Emptied before each test that uses it."""
    return servers.valkey.url()


@pytest.fixture(autouse=True)
def _empty_redis(request: pytest.FixtureRequest) -> None:
    if "redis_url" in request.fixturenames:
        with redis.Redis.from_url(request.getfixturevalue("redis_url")) as client:
            client.flushall()


@pytest.fixture
def settings(database_url: str, redis_url: str) -> Settings:
    """Development settings on both servers; `settings.model_copy(update={...})` changes some."""
    return Settings(
        database_url=database_url,
        redis_url=redis_url,
        admin_key=SecretStr(ADMIN_KEY),
        secret_key=SecretStr(SECRET_KEY),
        encryption_key=SecretStr(ENCRYPTION_KEY),
    )


@pytest.fixture(scope="session")
def prices() -> PriceMap:
    return PriceMap.load()


@pytest.fixture
def rung() -> list[Message]:
    """The messages that `runtime` was asked to ring, in order; none is sent."""
    return []


@pytest.fixture
async def runtime(settings: Settings, prices: PriceMap, rung: list[Message]) -> AsyncIterator[Runtime]:
    db = Database(settings.database_url, pool=settings.database_pool, name="waybill-test")
    client = redis_client(settings.redis_url)
    sealer = Sealer(settings.encryption_key.get_secret_value())
    yield Runtime(settings=settings, db=db, redis=client, ring=rung.append, sealer=sealer, prices=prices)
    await client.aclose()
    await db.close()


@pytest.fixture
async def scene(runtime: Runtime) -> AsyncIterator[Scene]:
    """A whole Waybill in this process; what is rung is heard by nobody until the test says so."""
    async with scenes.opened(runtime) as found:
        yield found


@pytest.fixture(scope="session")
def _running_stack() -> Iterator[Stack]:
    with running_stack() as running:
        yield running


@pytest.fixture
async def stack(_running_stack: Stack) -> AsyncIterator[Stack]:
    """A whole Waybill of real processes, shared by the tests of this pytest process and whole again after each."""
    async with _running_stack.in_test() as ready:
        yield ready


@pytest.fixture
async def fresh_stack() -> AsyncIterator[FreshStacks]:
    """A stack of this test's own, with other settings than the shared one."""
    stacks = FreshStacks()
    yield stacks
    await stacks.aclose()
