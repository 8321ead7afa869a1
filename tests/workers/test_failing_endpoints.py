"""What the timer does about receivers that fail: it tells of them, empties their queues and limits all queues."""

from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from shared.messages import Deliver
from shared.runtime import Runtime
from tests.scene import Scene
from tests.shared.webhook_rows import Rows
from workers import failing_endpoints

HOUR = 3600.0


@pytest.fixture
async def rows(scene: Scene) -> Rows:
    made = Rows(scene.rt)
    await made.create_team()
    return made


async def change(rows: Rows, endpoint: UUID, what: str) -> None:
    async with rows.rt.db.statement() as tx:
        await tx.exec_driver_sql(f"update webhook_endpoints set {what} where id = %s", (endpoint,))


async def deliveries(rows: Rows, endpoint: UUID) -> list[Any]:
    async with rows.rt.db.statement() as tx:
        statement = "select * from deliveries where endpoint_id = %s order by id"
        return list(await tx.exec_driver_sql(statement, (endpoint,)))


async def states(rows: Rows, endpoint: UUID) -> list[tuple[str, str | None]]:
    return [(row.state, row.last_error) for row in await deliveries(rows, endpoint)]


def limited(rt: Runtime, deliveries: int) -> Runtime:
    """The same runtime where so many may wait in a queue."""
    settings = rt.settings.model_copy(update={"webhook_queue_limit": deliveries})
    return Runtime(**{**vars(rt), "settings": settings})


async def test_a_notice_goes_to_who_asked_for_it_by_name(scene: Scene, rows: Rows):
    failing, all_, told = await rows.endpoint(), await rows.endpoint(), await rows.endpoint(
        events=("webhook.endpoint.failing",)
    )  # fmt: skip
    await change(rows, failing, "failing_since = app_now(), failed_attempts = 3")
    async with scene.later(61 * HOUR) as rt:
        with capture_logs() as lines:
            await failing_endpoints.warn_failing(rt)
        assert await failing_endpoints.warn_failing(rt) == 0
    [line] = [line for line in lines if line.get("team_id") == rows.team_id]
    assert (line["event"], line["percent"]) == ("endpoint_failing", 50)
    assert [row.event_type for row in await deliveries(rows, told)] == ["webhook.endpoint.failing"]
    assert await deliveries(rows, all_) == []
    assert any(isinstance(message, Deliver) and told in message.ids for message in scene.rung)


async def test_the_limit_is_a_setting(scene: Scene, rows: Rows):
    failing = await rows.endpoint()
    await change(rows, failing, "failing_since = app_now() - interval '31 seconds'")
    settings = scene.rt.settings.model_copy(update={"webhook_disable_after_s": 60})
    await failing_endpoints.warn_failing(Runtime(**{**vars(scene.rt), "settings": settings}))
    assert (await rows.stored_endpoint(failing)).noticed_percent == 50


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("status = 'disabled'", "the endpoint is disabled"),
        ("status = 'disabled', deleted_at = app_now()", "the endpoint is deleted"),
    ],
)
async def test_what_waits_for_an_endpoint_that_takes_no_more_is_discarded(rows: Rows, what: str, reason: str):
    endpoint, healthy = await rows.endpoint(), await rows.endpoint()
    await rows.record(*(rows.event() for _ in range(3)))
    sent, held, _ = [row.id for row in await deliveries(rows, endpoint)]
    await rows.change(sent, state="delivered")
    async with rows.rt.db.statement() as tx:
        lease = "update deliveries set lease_expires_at = app_now() + interval '9 s' where id = %s"
        await tx.exec_driver_sql(lease, (held,))
    await change(rows, endpoint, what)
    await failing_endpoints.discard_of_disabled(rows.rt)
    assert await states(rows, endpoint) == [("delivered", None), ("pending", None), ("discarded", reason)]
    assert {state for state, _ in await states(rows, healthy)} == {"pending"}


async def test_more_than_one_step_is_cleared_in_one_round(rows: Rows):
    endpoint = await rows.endpoint()
    await rows.record(*(rows.event() for _ in range(failing_endpoints.STEP + 1)))
    await change(rows, endpoint, "status = 'disabled'")
    await failing_endpoints.discard_of_disabled(rows.rt)
    assert {state for state, _ in await states(rows, endpoint)} == {"discarded"}


async def queue_of(rows: Rows, endpoint: UUID) -> None:
    async with rows.rt.db.statement() as tx:
        insert = "insert into delivery_queues (id, team_id, endpoint_id) values (%s, %s, %s)"
        await tx.exec_driver_sql(insert, (endpoint, rows.team_id, endpoint))


async def test_a_full_queue_takes_no_more_until_there_is_room(rows: Rows):
    endpoint, other = await rows.endpoint(), await rows.endpoint(events=("job.failed",))
    await queue_of(rows, endpoint)
    await queue_of(rows, other)
    rt = limited(rows.rt, 10)
    await rows.record(*(rows.event() for _ in range(9)))
    await failing_endpoints.mark_full_queues(rt)
    await rows.record(rows.event())
    with capture_logs() as lines:
        await failing_endpoints.mark_full_queues(rt)
    named = [(line["event"], line["endpoint_id"]) for line in lines if line["team_id"] == rows.team_id]
    assert named == [("delivery_queue_full", str(endpoint))]
    await rows.record(rows.event(), rows.event("job.failed"))
    assert (await states(rows, endpoint))[-2:] == [("discarded", "queue_full")] * 2
    assert await states(rows, other) == [("pending", None)]

    first, second, *_ = await deliveries(rows, endpoint)
    await rows.change(first.id, state="delivered")
    await failing_endpoints.mark_full_queues(rt)
    await rows.record(rows.event())
    assert (await states(rows, endpoint))[-1] == ("discarded", "queue_full"), "it does not flap at the edge"
    await rows.change(second.id, state="delivered")
    await failing_endpoints.mark_full_queues(rt)
    await rows.record(rows.event())
    assert (await states(rows, endpoint))[-1] == ("pending", None)
