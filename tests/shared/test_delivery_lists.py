"""Summaries of deliveries: what they count and what not."""

from datetime import timedelta

import pytest
from sqlalchemy import insert, text

from shared import delivery_lists, ids, tables
from shared.delivery_lists import Summary
from shared.runtime import Runtime
from tests.shared.webhook_rows import Rows


@pytest.fixture
async def rows(runtime: Runtime) -> Rows:
    rows = Rows(runtime)
    await rows.create_team()
    return rows


async def summary(rows: Rows, team_id: str | None) -> Summary:
    async with rows.rt.db.statement() as tx:
        return await delivery_lists.summary(tx, team_id)


async def test_a_summary_tells_of_the_teams_last_day(rows: Rows):
    await rows.endpoint()
    outcomes = ("delivered", "delivered", "delivered", "failing", "exhausted", "pending")
    made = await rows.record(*(rows.event() for _ in range(9)))
    for id_, state in zip(made, outcomes, strict=False):
        await rows.change(id_, state=state, created_at=text("app_now() - interval '1 hour'"))
    old, test, replayed = made[6:]
    two_days = text("app_now() - interval '2 days'")
    await rows.change(
        old,
        state="failing",
        created_at=two_days,
        id=ids.earliest((await rows.delivery(old)).created_at - timedelta(days=2)),
    )
    await rows.change(test, state="delivered", trigger="test")
    await rows.change(replayed, state="delivered", replay_id=ids.new())
    waits = zip((*made[:3], test, replayed), (100, 200, 1000, 9000, 9000), strict=True)
    started = {id_: (await rows.delivery(id_)).created_at + timedelta(milliseconds=ms) for id_, ms in waits}
    async with rows.rt.db.transaction() as tx:
        for id_, at in started.items():
            await tx.execute(insert(tables.delivery_attempts).values(delivery_id=id_, number=1, started_at=at))
            await tx.execute(insert(tables.delivery_attempts).values(delivery_id=id_, number=2))

    found = await summary(rows, rows.team_id)

    assert {state: n for state, n in found.outcomes.items() if n} == {
        "delivered": 4, "failing": 1, "exhausted": 1, "pending": 1
    }  # fmt: skip
    assert found.oldest_undelivered_age_s == pytest.approx(2 * 86_400, abs=60)
    assert found.first_attempt_p50_ms == pytest.approx(200)
    assert found.first_attempt_p95_ms == pytest.approx(920)


async def test_a_summary_counts_what_stands_still(rows: Rows):
    before = await summary(rows, None)
    endpoints = [await rows.endpoint(active=n > 0) for n in range(3)]
    async with rows.rt.db.transaction() as tx:
        for open_s, id_ in ((60, endpoints[1]), (0, endpoints[2])):
            queue = {"id": id_, "team_id": rows.team_id, "open_s": open_s}
            await tx.execute(insert(tables.delivery_queues).values(queue))

    found, of_all = await summary(rows, rows.team_id), await summary(rows, None)

    assert (found.open_circuits, found.disabled_endpoints) == (1, 1)
    assert (of_all.open_circuits - before.open_circuits, of_all.disabled_endpoints - before.disabled_endpoints) == (
        1,
        1,
    )


async def test_a_summary_of_nothing_knows_no_times(rows: Rows):
    found = await summary(rows, rows.team_id)

    assert set(found.outcomes.values()) == {0}
    assert (found.oldest_undelivered_age_s, found.first_attempt_p50_ms, found.first_attempt_p95_ms) == (None,) * 3


async def test_the_oldest_undelivered_is_found_among_all_teams(rows: Rows, runtime: Runtime):
    other = Rows(runtime)
    await other.create_team()
    for of in (rows, other):
        await of.endpoint()
        await of.record(of.event())
    [made] = await other.record(other.event())
    await other.change(made, id=ids.earliest((await other.delivery(made)).created_at - timedelta(days=900)),
                       created_at=text("app_now() - interval '900 days'"))  # fmt: skip

    assert (await summary(rows, None)).oldest_undelivered_age_s == pytest.approx(900 * 86_400, abs=60)
    assert (await summary(rows, rows.team_id)).oldest_undelivered_age_s == pytest.approx(0, abs=60)
