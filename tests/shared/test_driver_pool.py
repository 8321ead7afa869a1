"""The driver's connections: shared, bounded, and new ones after the database went away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import psycopg
import pytest

from shared.db import Database, hot


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url, pool=2, name="waybill-pool-test")
    yield opened
    await opened.close()


async def pid(db: Database) -> int:
    async with db.hot_statement() as tx:
        return int((await hot(tx, "select pg_backend_pid() as pid"))[0].pid)


async def test_a_connection_is_used_again(db: Database):
    assert len({await pid(db) for _ in range(5)}) == 1


async def test_there_are_never_more_than_the_limit_and_who_waits_too_long_is_told(db: Database):
    async with db.hot_statement(), db.hot_statement():
        with pytest.raises(TimeoutError):
            await pid(db)
    assert await pid(db)


async def test_who_gives_up_waiting_takes_no_room(db: Database):
    async with db.hot_statement(), db.hot_statement():
        waiting = asyncio.create_task(pid(db))
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert await asyncio.gather(pid(db), pid(db))


async def test_a_transaction_is_committed_or_rolled_back_and_its_connection_stays(db: Database):
    first = await pid(db)
    async with db.hot_transaction() as tx:
        await hot(tx, "create table pool_test (n int)")
    with suppress(ZeroDivisionError):
        async with db.hot_transaction() as tx:
            await hot(tx, "insert into pool_test values (1)")
            raise ZeroDivisionError
    async with db.hot_statement() as tx:
        assert await hot(tx, "select n from pool_test") == []
        await hot(tx, "drop table pool_test")
    assert await pid(db) == first


async def test_when_one_connection_broke_the_idle_ones_are_not_trusted(db: Database):
    async with db.hot_statement() as one, db.hot_statement() as two:
        pids = [(await hot(tx, "select pg_backend_pid() as pid"))[0].pid for tx in (one, two)]
    async with db.statement() as killer:
        await hot(killer, "select pg_terminate_backend(n) from unnest(%s::int[]) n", (pids,))
    with pytest.raises(psycopg.OperationalError):
        await pid(db)
    assert await pid(db) not in pids


async def test_a_connection_left_in_the_middle_of_something_is_not_given_to_others(db: Database):
    async with db.hot_statement() as tx:
        [left] = await hot(tx, "select pg_backend_pid() as pid")
        await hot(tx, "begin")
    assert await pid(db) != left.pid


async def test_json_and_times_are_read_as_by_the_other_connections(db: Database):
    query = (
        """select '{"a": [1]}'::jsonb as j, now() as t, array['x'] as a, gen_random_uuid() as u, 1.5::numeric as n"""
    )
    async with db.hot_statement() as raw, db.statement() as core:
        [one], [two] = await hot(raw, query), await hot(core, query)
    assert [(type(value), value if name == "j" else None) for name, value in one._asdict().items()] == [
        (type(value), value if name == "j" else None) for name, value in two._asdict().items()
    ]
    assert one.t.utcoffset() == two.t.utcoffset()
