"""Events are numbered in the order in which they become readable, team by team."""

import asyncio

import pytest

from shared import outbox, webhook_endpoints
from shared.runtime import Runtime
from tests.shared.webhook_rows import Rows


@pytest.fixture
async def rows(runtime: Runtime) -> Rows:
    made = Rows(runtime)
    await made.create_team()
    return made


async def numbers(rows: Rows) -> dict[str, int]:
    """The place of each of the team's events in the log, by type, as it can be read now."""
    async with rows.rt.db.statement() as tx:
        found = await tx.exec_driver_sql("select type, seq from events where team_id = %s", (rows.team_id,))
        return {row.type: row.seq for row in found}


async def test_a_commit_that_comes_later_is_numbered_later(rows: Rows):
    async with rows.rt.db.hot_transaction() as slow:
        await outbox.record(slow, [rows.event("job.created")])
        quick = asyncio.create_task(rows.record(rows.event("job.started")))
        await asyncio.sleep(0.1)
        assert await numbers(rows) == {}, "what was numbered first is not to be read last"
    await quick
    there = await numbers(rows)
    assert there["job.created"] < there["job.started"]


async def test_teams_do_not_wait_for_each_other(rows: Rows, runtime: Runtime):
    other = Rows(runtime)
    await other.create_team()
    async with rows.rt.db.hot_transaction() as slow:
        await outbox.record(slow, [rows.event("job.created")])
        async with asyncio.timeout(2):
            await other.record(other.event("job.created"))
    assert list(await numbers(other)) == ["job.created"]


async def test_who_subscribes_while_others_are_written_gets_all_that_is_numbered_later(rows: Rows):
    endpoint = await rows.endpoint(active=False)
    async with rows.rt.db.hot_transaction() as busy:
        await outbox.hold(busy, [rows.team_id])
        waits = asyncio.create_task(rows.record(rows.event("job.started")))
        await asyncio.sleep(0.1)
        async with rows.rt.db.transaction() as tx:
            await webhook_endpoints.change(tx, endpoint, webhook_endpoints.as_status("active"))
    (made,) = await waits
    assert (await rows.delivery(made)).endpoint_id == endpoint
