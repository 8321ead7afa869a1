"""The fixtures themselves: databases are migrated and apart, Redis is empty, nothing is rung for real."""

from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import text

from shared.messages import RunCalls
from shared.runtime import Runtime
from shared.schema import is_current


async def test_runtime_reaches_a_migrated_database_and_redis(runtime: Runtime):
    async with runtime.db.statement() as tx:
        assert await is_current(tx)
    assert await runtime.redis.ping()


def test_fresh_database_is_migrated_and_not_the_shared_one(database_url: str, fresh_database_url: str):
    with psycopg.connect(fresh_database_url, autocommit=True) as connection:
        assert connection.execute("select count(*) from alembic_version").fetchone() == (1,)
        connection.execute("create table only_here ()")
    with psycopg.connect(database_url) as connection, pytest.raises(psycopg.errors.UndefinedTable):
        connection.execute("select * from only_here")


@pytest.mark.parametrize("time", ["first", "second"])
async def test_redis_is_empty_before_each_test(runtime: Runtime, time: str):
    assert await runtime.redis.dbsize() == 0
    await runtime.redis.set(time, "left behind")


async def test_rung_lists_what_was_rung(runtime: Runtime, rung: list):
    message = RunCalls(ids=(uuid4(),))
    runtime.ring(message)

    assert rung == [message]


async def test_database_clock_can_be_moved(runtime: Runtime):
    async with runtime.db.transaction() as tx:
        await tx.execute(text("set local app.now = '2026-01-15T12:00:00Z'"))
        assert str(await tx.scalar(text("select app_now()"))).startswith("2026-01-15 12:00:00")
