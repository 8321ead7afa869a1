"""Fixtures over real servers; for an empty database override `database_url`
with `fresh_database_url`, for one of a module with `module_database_url`."""

import asyncio
import base64
import os
import sys
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import asynccontextmanager

import pytest
import redis
import structlog
from pydantic import SecretStr
from redis.asyncio import Redis

from shared.db import Database
from shared.messages import Message
from shared.prices import PriceMap
from shared.runtime import Runtime, redis_client
from shared.sealer import Sealer
from shared.settings import Settings
from tests import scene as scenes
from tests.scene import Scene
from tests.servers import Servers, running_servers
from tests.stack import FreshStacks, Stack, running_stack

SERVER_PROGRAMS = ("WAYBILL_POSTGRES_BIN", "WAYBILL_REDIS_SERVER")
PROVIDER_KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY")
LONG = ("crash", "flows", "cli", "contract", "deploy")
"""Folders whose tests start programs."""
RUNNER = "_call_in_runner_task"
"""The task of anyio's that waits for a fixture or a test."""
ADMIN_KEY = "test-admin-key-of-at-least-32-characters"
SECRET_KEY = "test-secret-key-of-at-least-32-characters"
ENCRYPTION_KEY = base64.b64encode(b"e" * 32).decode()


def pytest_configure() -> None:
    """Settings come from each test, never from the shell that runs them; no test may reach a real provider."""
    # What is compiled is kept, or every process of a run and every program it starts would compile it all again.
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
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
def shared_database_url(servers: Servers) -> str:
    return servers.create_database()


@pytest.fixture(scope="session")
def database_url(shared_database_url: str) -> str:
    """A migrated database shared by the tests of this process: make your own team, count only your own rows."""
    return shared_database_url


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


@pytest.fixture(scope="session")
def _flusher(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture(autouse=True)
def _empty_redis(request: pytest.FixtureRequest) -> None:
    if "redis_url" in request.fixturenames:
        request.getfixturevalue("_flusher").flushall()


@pytest.fixture(scope="session")
def _development() -> Settings:
    return Settings(
        admin_key=SecretStr(ADMIN_KEY), secret_key=SecretStr(SECRET_KEY), encryption_key=SecretStr(ENCRYPTION_KEY)
    )


@pytest.fixture
def settings(_development: Settings, database_url: str, redis_url: str) -> Settings:
    """Development settings on both servers; `settings.model_copy(update={...})` changes some."""
    return _development.model_copy(update={"database_url": database_url, "redis_url": redis_url})


@pytest.fixture(scope="session")
def prices() -> PriceMap:
    return PriceMap.load()


@pytest.fixture
def rung() -> list[Message]:
    """The messages that `runtime` was asked to ring, in order; none is sent."""
    return []


@pytest.fixture(scope="session")
async def _shared_database(shared_database_url: str, _development: Settings) -> AsyncIterator[Database]:
    async with _connected(shared_database_url, _development) as db:
        yield db


@pytest.fixture(scope="session")
async def _redis(redis_url: str) -> AsyncIterator[Redis]:
    client = redis_client(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
async def _database(
    settings: Settings, shared_database_url: str, _shared_database: Database
) -> AsyncIterator[Database]:
    """Connections to the shared database stay open from test to test: to open them took longer than most tests."""
    if settings.database_url == shared_database_url:
        yield _shared_database
    else:
        async with _connected(settings.database_url, settings) as db:
            yield db


@asynccontextmanager
async def _connected(url: str, settings: Settings) -> AsyncIterator[Database]:
    db = Database(url, pool=settings.database_pool, name="waybill-test")
    yield db
    await db.close()


@pytest.fixture
async def runtime(
    settings: Settings, prices: PriceMap, rung: list[Message], _database: Database, _redis: Redis
) -> AsyncIterator[Runtime]:
    """What a test leaves running ends with it, as with a process."""
    sealer = Sealer(settings.encryption_key.get_secret_value())
    before = asyncio.all_tasks()
    yield Runtime(settings=settings, db=_database, redis=_redis, ring=rung.append, sealer=sealer, prices=prices)
    left = [task for task in asyncio.all_tasks() - before if RUNNER not in repr(task)]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


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
