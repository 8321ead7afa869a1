"""Events, deliveries and attempts are kept for their days; what is still to be delivered is kept with its event."""

from dataclasses import replace
from uuid import UUID

import pytest

from shared import event_log
from shared.event_log import Lost
from tests.scene import Scene
from tests.shared.webhook_rows import Rows
from workers import retention

DAY_S = 86_400


@pytest.fixture
def settings(settings, fresh_database_url):
    return settings.model_copy(update={"database_url": fresh_database_url})


@pytest.fixture
async def rows(scene: Scene) -> Rows:
    made = Rows(scene.rt)
    await made.create_team()
    return made


async def deleted_after(scene: Scene, days: float, **changed: int) -> dict[str, int]:
    """What a round deletes so many days from now."""
    async with scene.later(days * DAY_S) as rt:
        return await retention.rounds(replace(rt, settings=rt.settings.model_copy(update=changed))).run()


async def kept(scene: Scene) -> list[UUID]:
    return [row.id for row in await scene.rows("select id from events order by seq")]


async def test_events_are_kept_for_their_days_and_deleted_after_them(scene: Scene, rows: Rows):
    await rows.record(rows.event(), rows.event())
    assert (await deleted_after(scene, 29.9))["events"] == 0
    assert (await deleted_after(scene, 30.1))["events"] == 2
    assert await kept(scene) == []


async def test_an_event_that_is_still_to_be_delivered_is_kept_and_holds_up_no_other(scene: Scene, rows: Rows):
    endpoint = await rows.endpoint(events=("job.failed",))
    waiting, other = rows.event("job.failed"), rows.event("job.created")
    [delivery] = await rows.record(waiting, other)
    assert (await deleted_after(scene, 31))["events"] == 1
    assert await kept(scene) == [waiting.id]
    assert (await rows.delivery(delivery)).endpoint_id == endpoint
    await rows.change(delivery, state="exhausted")
    assert (await deleted_after(scene, 31))["events"] == 1


async def test_steps_go_on_behind_what_is_kept(scene: Scene, rows: Rows):
    await rows.endpoint(events=("job.failed",))
    await rows.record(*[rows.event("job.failed") for _ in range(3)], rows.event("job.created"))
    async with scene.later(31 * DAY_S) as rt:
        assert (await retention.rounds(rt, events_at_once=2).run())["events"] == 1


async def test_the_first_young_event_ends_the_round(scene: Scene, rows: Rows):
    await rows.record(rows.event())
    async with scene.rt.db.hot_transaction() as tx:
        assert await event_log.delete_old(tx, after=0, days=30, limit=1) == event_log.Deleted(count=0, after=None)


async def test_a_cursor_whose_event_was_deleted_has_expired(scene: Scene, rows: Rows):
    event = rows.event()
    await rows.record(event)
    await deleted_after(scene, 30.1)
    async with scene.later(30.1 * DAY_S) as rt, rt.db.hot_statement() as tx:
        assert await event_log.find(tx, rows.team_id, event.id, days=30) == Lost(expired=True)


async def attempt(scene: Scene, delivery_id: UUID) -> None:
    await scene.rows(
        "insert into delivery_attempts (delivery_id, number) values (:id, 1) returning number", id=delivery_id
    )


async def test_deliveries_and_their_attempts_are_deleted_after_their_own_days(scene: Scene, rows: Rows):
    await rows.endpoint()
    [delivery] = await rows.record(rows.event())
    await attempt(scene, delivery)
    await rows.change(delivery, state="delivered")
    early = await deleted_after(scene, 7.02, delivery_retention_days=7)
    assert (early["delivery_attempts"], early["deliveries"]) == (0, 0)
    found = await deleted_after(scene, 7.1, delivery_retention_days=7)
    assert (found["delivery_attempts"], found["deliveries"], found["events"]) == (1, 1, 0)


async def test_a_delivery_that_is_under_way_keeps_its_attempts(scene: Scene, rows: Rows):
    await rows.endpoint()
    [delivery] = await rows.record(rows.event())
    await attempt(scene, delivery)
    await rows.change(delivery, state="failing")
    found = await deleted_after(scene, 31)
    assert (found["delivery_attempts"], found["deliveries"], found["events"]) == (0, 0, 0)
