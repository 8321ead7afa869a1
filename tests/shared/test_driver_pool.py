"""The driver's connections: shared, bounded, and new ones after the database went away."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from types import SimpleNamespace
from typing import cast

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from shared.db import Database, hot
from shared.driver_pool import LATE_S, Connection, DriverPool


@dataclass
class Fake:
    """What the pool looks at of a connection."""

    closed: bool = False
    pgconn: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(transaction_status=TransactionStatus.IDLE))


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


async def test_time_that_passes_while_the_process_stands_still_is_nobodys_wait():
    async def connect() -> Connection:
        return cast("Connection", Fake())

    pool = DriverPool(connect, size=1, wait_s=0.05)

    async def use(seconds: float) -> None:
        async with pool.connection():
            await asyncio.sleep(seconds)
            await asyncio.sleep(0)

    using = [asyncio.create_task(use(seconds)) for seconds in (0.01, 0, 0)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    time.sleep(0.05 + 2 * LATE_S)  # noqa: ASYNC251 - blocks the loop, as a busy machine does
    await asyncio.gather(*using)


async def test_a_limit_for_locks_is_of_one_transaction_and_costs_no_round_trip(db: Database):
    async def limit(lock_s: float | None) -> str:
        async with db.hot_transaction(lock_s=lock_s) as tx:
            return str((await hot(tx, "select current_setting('lock_timeout') as s"))[0].s)

    async def round_trips(lock_s: float | None) -> int:
        async with db.hot_statement() as tx:
            pgconn = cast("Connection", tx).pgconn
        with TemporaryFile() as trace:
            pgconn.trace(trace.fileno())
            await limit(lock_s)
            pgconn.untrace()
            trace.seek(0)
            return trace.read().count(b"\tReadyForQuery")

    assert [await limit(lock_s) for lock_s in (0.2, None, 0.2)] == ["200ms", "3s", "200ms"]
    assert await round_trips(0.2) == await round_trips(None) == 3


async def test_a_limited_transaction_that_fails_is_rolled_back_and_its_connection_stays(db: Database):
    first = await pid(db)
    with suppress(ZeroDivisionError):
        async with db.hot_transaction(lock_s=0.2) as tx:
            await hot(tx, "create table limited_test (n int)")
            raise ZeroDivisionError
    async with db.hot_statement() as tx:
        assert (await hot(tx, "select to_regclass('limited_test') as t"))[0].t is None
    assert await pid(db) == first


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
