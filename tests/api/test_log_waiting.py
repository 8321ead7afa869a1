"""The common look at event logs, and the followers it serves."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from api.log_waiting import LogFollower, LogWatch
from shared import event_log
from shared.event_log import START, Filter, Place, Slice
from shared.runtime import Runtime
from tests.shared.webhook_rows import Rows


@pytest.fixture
async def rows(runtime: Runtime) -> Rows:
    made = Rows(runtime)
    await made.create_team()
    return made


@pytest.fixture
async def watch(runtime: Runtime) -> AsyncIterator[LogWatch]:
    """It looks only after `open`."""
    made = LogWatch(runtime.db)
    yield made
    await made.close()


def follower(watch: LogWatch, rows: Rows, wanted: Filter = Filter()) -> LogFollower:  # noqa: B008 - frozen
    async def read(place: Place) -> Slice:
        async with rows.rt.db.hot_statement() as tx:
            return await event_log.page(tx, rows.team_id, place, wanted, 2, delivery_days=30)

    return watch.follow(rows.team_id, wanted, START, read)


async def taken(one: LogFollower, timeout_s: float = 5) -> list[UUID]:
    return [entry.id for entry in await one.take(timeout_s)]


async def recorded(rows: Rows, type_: str = "job.completed") -> UUID:
    event = rows.event(type_)
    await rows.record(event)
    return event.id


async def test_who_has_read_an_event_himself_is_not_given_it_again(rows: Rows, watch: LogWatch):
    early = follower(watch, rows)
    assert await taken(early, 0) == []
    first = await recorded(rows)
    late = follower(watch, rows)
    assert await taken(late, 0) == [first]
    assert not late.is_behind
    await watch.open()
    assert await taken(early) == [first]
    second = await recorded(rows)
    assert await taken(late) == [second]


async def test_who_was_not_level_when_others_were_served_misses_nothing(rows: Rows, watch: LogWatch):
    early = follower(watch, rows)
    await taken(early, 0)
    await watch.open()
    made = [await recorded(rows) for _ in range(5)]
    late = follower(watch, rows)
    found = await taken(late, 0)
    while len(found) < 5:
        found += await taken(late)
    assert found == made
    assert await recorded(rows) in await taken(late)


async def test_an_event_that_is_not_wanted_wakes_nobody(rows: Rows, watch: LogWatch):
    one = follower(watch, rows, Filter(types=["job.failed"]))
    other = follower(watch, rows)
    for each in (one, other):
        await taken(each, 0)
    await watch.open()
    await recorded(rows)
    assert len(await taken(other)) == 1
    assert await taken(one, 0) == []
    assert await recorded(rows, "job.failed") in await taken(one)


async def test_what_is_heard_is_looked_at_at_once(rows: Rows):
    watch = LogWatch(rows.rt.db, look_every_s=60)
    one = follower(watch, rows)
    await taken(one, 0)
    await watch.open()
    first = await recorded(rows)
    watch.look_soon()
    assert await taken(one) == [first]
    second = await recorded(rows)
    watch.look_soon()
    assert await taken(one) == [second]
    await watch.close()
