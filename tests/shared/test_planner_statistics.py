"""Statistics are renewed when a table has outgrown them, and plans with them."""

from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest

from shared import planner_statistics
from shared.db import Database
from tests.servers import Servers

ORGANIZATIONS = (
    "insert into organizations (id, name) select 'o' || n, repeat('x', 200) from generate_series(%s::int, %s::int) n"
)
FIND = "prepare find as select * from organizations where id = any($1::text[])"
FOUND = "explain execute find(array['o1', 'o2'])"
SCANS = "Seq Scan"


@pytest.fixture
def url(servers: Servers) -> Iterator[str]:
    url = servers.create_database()
    yield url
    servers.drop_database(url)


@pytest.fixture
async def db(url: str) -> AsyncIterator[Database]:
    db = Database(url, pool=2)
    yield db
    await db.close()


@pytest.fixture
def session(url: str) -> Iterator[psycopg.Connection]:
    """One that keeps its plans."""
    with psycopg.connect(url, autocommit=True, options="-c plan_cache_mode=force_generic_plan") as session:
        yield session


def fill(session: psycopg.Connection, first: int, last: int) -> None:
    """Rows of which the server's own count learns with their commit, not a second later."""
    session.execute(ORGANIZATIONS, (first, last))
    session.execute("select pg_stat_force_next_flush()")


def plan(session: psycopg.Connection) -> str:
    return "\n".join(line for (line,) in session.execute(FOUND).fetchall())


async def test_a_plan_for_an_empty_table_is_given_up_once_the_table_has_grown(
    db: Database, session: psycopg.Connection
):
    session.execute("analyze organizations")
    session.execute(FIND)
    assert SCANS in plan(session)
    fill(session, 1, 10_000)
    assert SCANS in plan(session)
    assert await planner_statistics.renew_changed(db) == ["organizations"]
    assert SCANS not in plan(session)


async def test_a_table_is_looked_at_again_when_it_has_doubled(db: Database, session: psycopg.Connection):
    fill(session, 1, 10_000)
    assert await planner_statistics.renew_changed(db) == ["organizations"]
    fill(session, 10_001, 15_000)
    assert await planner_statistics.renew_changed(db) == []
    fill(session, 15_001, 30_000)
    assert await planner_statistics.renew_changed(db) == ["organizations"]


async def test_rows_that_are_still_coming_in_are_no_news(db: Database, session: psycopg.Connection):
    with session.transaction():
        fill(session, 1, 10_000)
        assert await planner_statistics.renew_changed(db) == []
    assert await planner_statistics.renew_changed(db) == ["organizations"]


async def test_what_somebody_else_analyses_is_left_to_them(db: Database, url: str, session: psycopg.Connection):
    fill(session, 1, 10_000)
    with psycopg.connect(url) as other:
        other.execute("lock table organizations in share update exclusive mode")
        await planner_statistics.renew_changed(db)
        assert session.execute("select reltuples from pg_class where relname = 'organizations'").fetchone() == (-1,)
