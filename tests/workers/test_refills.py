"""Automatic refills: each due period once, also after downtime and with several schedulers."""

import asyncio
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from shared import refills
from shared.refilling import MOST_AT_ONCE
from shared.refills import Due, following
from tests.api.admin import made
from tests.scene import Scene
from workers.refills import add_due
from workers.sweeper import Sweep

DAY_S = 86_400


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture
def settings(settings, fresh_database_url):
    """A database without other tests' refills, as time is moved on."""
    return settings.model_copy(update={"database_url": fresh_database_url})


async def refilled_team(scene: Scene, period: str = "daily", amount: int = 50) -> str:
    name: str = (await scene.api.team(credits_allocated=5))["team_id"]
    body = {"enabled": True, "refill_amount": amount, "refill_period": period}
    made(await scene.api.post(f"/credits/teams/{name}/configure-auto-refill", body))
    return name


async def refills_of(scene: Scene, team_id: str) -> list[Any]:
    sql = "select * from credit_entries where team_id = :id and refill_at is not null order by seq"
    return await scene.rows(sql, id=team_id)


@pytest.mark.parametrize(("start", "period", "day", "expected"), [
    ("2026-01-15T12:30:00", "monthly", 15, "2026-02-15T12:30:00"),
    ("2026-01-31T12:30:00", "monthly", 31, "2026-02-28T12:30:00"),
    ("2026-02-28T12:30:00", "monthly", 31, "2026-03-31T12:30:00"),
    ("2028-01-30T00:00:00", "monthly", 30, "2028-02-29T00:00:00"),
    ("2026-12-31T23:59:59", "monthly", 31, "2027-01-31T23:59:59"),
    ("2026-02-26T01:00:00", "weekly", 26, "2026-03-05T01:00:00"),
    ("2026-12-31T01:00:00", "daily", 31, "2027-01-01T01:00:00"),
])  # fmt: skip
def test_the_next_refill_is_one_period_later(start: str, period: str, day: int, expected: str):
    assert following(at(start), period, day) == at(expected)


def test_missed_periods_keep_the_day_of_the_month():
    due = Due(
        team_id="t", amount=1, period="monthly", day=31, at=at("2026-01-31T08:00:00"), now=at("2026-04-30T08:00:00")
    )
    times, after = due.times(limit=10)
    assert [time.strftime("%m-%d") for time in times] == ["01-31", "02-28", "03-31", "04-30"]
    assert after == at("2026-05-31T08:00:00")
    assert due.times(limit=2) == (times[:2], times[2])


async def test_nothing_is_given_before_the_time(scene: Scene):
    team = await refilled_team(scene)
    async with scene.later(DAY_S - 60) as rt:
        assert await add_due(rt) == 0
    assert await refills_of(scene, team) == []


async def test_a_due_refill_is_given_once(scene: Scene):
    team = await refilled_team(scene)
    planned = made(await scene.api.get(f"/credits/teams/{team}/balance"))["next_refill_at"]
    async with scene.later(DAY_S + 60) as rt:
        assert [await add_due(rt) for _ in range(3)] == [1, 0, 0]

    [entry] = made(await scene.api.get(f"/credits/teams/{team}/transactions?limit=1"))["transactions"]
    assert (entry["transaction_type"], entry["reason"]) == ("allocation", "Auto-refill (daily)")
    assert (entry["credits_before"], entry["credits_after"]) == (5, 55)
    account = made(await scene.api.get(f"/credits/teams/{team}/balance"))
    assert (account["credits_allocated"], account["credits_remaining"]) == (55, 55)
    assert planned < account["last_refill_at"] < account["next_refill_at"]
    assert account["next_refill_at"][10:] == planned[10:]


async def test_missed_refills_are_made_up_for_in_order(scene: Scene):
    team = await refilled_team(scene, "weekly", 7)
    async with scene.later(30 * DAY_S) as rt:
        assert await add_due(rt) == 4
        assert await add_due(rt) == 0
    given = await refills_of(scene, team)
    assert [(entry.before, entry.after) for entry in given] == [(5, 12), (12, 19), (19, 26), (26, 33)]
    weeks = {(later.refill_at - earlier.refill_at).days for earlier, later in pairwise(given)}
    assert weeks == {7}


async def test_a_very_long_absence_is_made_up_for_in_steps(scene: Scene):
    team = await refilled_team(scene, "daily", 1)
    days = MOST_AT_ONCE + 3
    async with scene.later(days * DAY_S + 60) as rt:
        assert [await add_due(rt) for _ in range(3)] == [MOST_AT_ONCE, 3, 0]
    assert (await refills_of(scene, team))[-1].after == 5 + days


async def test_two_sweepers_at_once_give_each_refill_once(scene: Scene):
    teams = [await refilled_team(scene, "daily", 10) for _ in range(5)]
    async with scene.later(3 * DAY_S + 60) as rt, scene.later(3 * DAY_S + 60) as other:
        found = await asyncio.gather(*(Sweep(rt=runtime).run() for runtime in (rt, other, rt, other)))
    assert sum(sweep["due_refills"] for sweep in found) == 15
    for team in teams:
        assert [entry.after for entry in await refills_of(scene, team)] == [15, 25, 35]


async def test_an_entry_that_is_there_is_not_written_again(scene: Scene):
    """As after a crash between the entries and the note of them, if they were two transactions."""
    team = await refilled_team(scene)
    async with scene.later(DAY_S + 60) as rt:
        assert await add_due(rt) == 1
        [entry] = await refills_of(scene, team)
        async with rt.db.transaction() as tx:
            await refills.advance(tx, team, entry.refill_at)
        await add_due(rt)
    assert len(await refills_of(scene, team)) == 1
    assert made(await scene.api.get(f"/credits/teams/{team}/balance"))["credits_remaining"] == 55


@pytest.mark.parametrize(("changed", "planned"), [
    ({"enabled": False}, None),
    ({"enabled": True, "refill_amount": 7, "refill_period": "daily"}, "daily"),
    ({"enabled": True, "refill_amount": 7, "refill_period": "monthly"}, "monthly"),
])  # fmt: skip
async def test_what_was_due_before_a_change_is_given_as_it_was_agreed(
    scene: Scene, changed: dict[str, Any], planned: str | None
):
    team = await refilled_team(scene)
    down = "update credit_accounts set next_refill_at = app_now() - interval '25 hours' where team_id = :id returning 1"
    await scene.rows(down, id=team)

    answer = made(await scene.api.post(f"/credits/teams/{team}/configure-auto-refill", changed))

    assert [(entry.before, entry.after) for entry in await refills_of(scene, team)] == [(5, 55), (55, 105)]
    assert answer["last_refill_at"] is not None
    account = made(await scene.api.get(f"/credits/teams/{team}/balance"))
    assert (account["refill_period"] if account["auto_refill"] else None) == planned
    assert await add_due(scene.rt) == 0


async def test_a_stopped_refill_and_a_deleted_team_get_nothing(scene: Scene):
    stopped, deleted = await refilled_team(scene), await refilled_team(scene)
    made(await scene.api.post(f"/credits/teams/{stopped}/configure-auto-refill", {"enabled": False}))
    await scene.rows("update teams set status = 'deleted' where id = :id returning id", id=deleted)
    async with scene.later(2 * DAY_S) as rt:
        assert await add_due(rt) == 0
    assert await refills_of(scene, stopped) == await refills_of(scene, deleted) == []
