"""An endpoint is disabled by time and not by count; its team hears of it before and after."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from shared import clock, endpoint_health, ids, outbox
from shared.events import Event
from shared.runtime import Runtime
from shared.webhook_facts import Attempted
from tests.scene import Scene
from tests.shared.webhook_rows import Rows

HOUR = 3600.0
RECOVERED = "webhook.delivery.recovered"


@pytest.fixture
async def rows(scene: Scene) -> Rows:
    made = Rows(scene.rt)
    await made.create_team()
    return made


def outcome(rows: Rows, endpoint: UUID | None, state: str = "failing", **fields: Any) -> Attempted:
    """An attempt that was answered with 500 unless it was taken."""
    taken = state == "delivered"
    said = {
        "status": 200 if taken else 500,
        "error_class": None if taken else "status",
        "error": None if taken else "500",
    }
    made = {
        "delivery_id": ids.new(), "event_id": ids.new(), "event_type": "job.completed", "was_failing": False,
        "trigger": "scheduled", "attempt_count": 1, "gone": False, "url": "https://a.example/", **said, **fields,
    }  # fmt: skip
    return Attempted(team_id=rows.team_id, endpoint_id=endpoint, state=state, **made)


async def count(rt: Runtime, *outcomes: Attempted) -> list[Event]:
    """The events of these attempts, recorded with them."""
    async with rt.db.hot_transaction() as tx:
        events = await endpoint_health.count(
            tx, outcomes, now=clock.now(), disable_after_s=rt.settings.webhook_disable_after_s
        )
        await outbox.record(tx, events)
    return events


async def notices(rt: Runtime, rows: Rows) -> list[Event]:
    async with rt.db.hot_transaction() as tx:
        found = await endpoint_health.notices(
            tx, now=clock.now(), disable_after_s=rt.settings.webhook_disable_after_s, limit=1000
        )
    return [event for event in found if event.team_id == rows.team_id]


async def failing(rows: Rows, tries: int = 10) -> UUID:
    """An endpoint that failed so often just now."""
    endpoint = await rows.endpoint()
    await count(rows.rt, *(outcome(rows, endpoint) for _ in range(tries)))
    return endpoint


def kinds(events: Sequence[Event]) -> list[str]:
    return [event.type for event in events]


async def test_an_endpoint_that_only_fails_is_disabled_after_120_hours(rows: Rows, scene: Scene):
    endpoint, other = await failing(rows), await rows.endpoint(events=("webhook.*",))
    began = (await rows.stored_endpoint(endpoint)).failing_since
    await rows.record(rows.event())
    async with scene.later(119 * HOUR) as rt:
        assert await count(rt, outcome(rows, endpoint)) == []
    async with scene.later(120 * HOUR + 1) as rt:
        [told] = await count(rt, outcome(rows, endpoint))
        assert await count(rt, outcome(rows, endpoint)) == [], "told once"
    row = await rows.stored_endpoint(endpoint)
    assert (row.status, row.disabled_reason, row.failed_attempts) == ("disabled", "failing", 13)
    assert row.disabled_at - began >= timedelta(hours=120)
    assert told.type == "webhook.endpoint.disabled"
    assert told.data == {
        "id": ids.prefixed("whe", endpoint), "endpoint_id": ids.prefixed("whe", endpoint), "url": row.url,
        "reason": "failing", "disabled_at": clock.iso(row.disabled_at), "first_failure_at": clock.iso(began),
        "failed_attempts": 12, "last_status": 500, "undelivered_events": 1,
    }  # fmt: skip
    assert await heard(rows, told) == [other], "the disabled one itself is not told"


async def heard(rows: Rows, event: Event) -> list[UUID]:
    async with rows.rt.db.statement() as tx:
        found = await tx.exec_driver_sql("select endpoint_id from deliveries where event_id = %s", (event.id,))
        return [row.endpoint_id for row in found]


async def test_few_failures_disable_nothing_however_long_ago_they_began(rows: Rows, scene: Scene):
    endpoint = await failing(rows, tries=8)
    async with scene.later(200 * HOUR) as rt:
        assert await count(rt, outcome(rows, endpoint)) == []
        assert kinds(await count(rt, outcome(rows, endpoint))) == ["webhook.endpoint.disabled"]


async def test_one_2xx_ends_the_run(rows: Rows, scene: Scene):
    endpoint = await failing(rows)
    async with scene.later(100 * HOUR) as rt:
        assert len(await notices(rt, rows)) == 1
        await count(rt, outcome(rows, endpoint, "delivered"))
        row = await rows.stored_endpoint(endpoint)
        assert (row.failing_since, row.failed_attempts, row.noticed_percent) == (None, 0, 0)
    async with scene.later(150 * HOUR) as rt:
        await count(rt, *(outcome(rows, endpoint) for _ in range(12)))
        row = await rows.stored_endpoint(endpoint)
        assert (row.status, row.failed_attempts) == ("active", 12)


async def test_attempts_of_one_group_count_in_the_order_they_ended(rows: Rows):
    endpoint = await failing(rows)
    refused = outcome(rows, endpoint, status=None, error_class="url_refused")
    await count(rows.rt, outcome(rows, endpoint), outcome(rows, endpoint, "delivered"), refused, refused)
    row = await rows.stored_endpoint(endpoint)
    assert (row.failed_attempts, row.refused_in_a_row, row.status) == (2, 2, "active")
    await count(rows.rt, refused, outcome(rows, endpoint, "delivered"))
    row = await rows.stored_endpoint(endpoint)
    assert (row.failed_attempts, row.refused_in_a_row, row.failing_since) == (0, 0, None)


async def test_410_disables_at_once(rows: Rows):
    endpoint = await rows.endpoint()
    [event] = await count(rows.rt, outcome(rows, endpoint, "discarded", status=410, gone=True))
    assert (event.data["reason"], event.data["last_status"], event.data["undelivered_events"]) == ("gone", 410, 1)
    assert event.data["first_failure_at"] is not None
    assert clock.iso(event.at) == event.data["disabled_at"] >= event.data["first_failure_at"]
    row = await rows.stored_endpoint(endpoint)
    assert (row.status, row.disabled_reason) == ("disabled", "gone")


async def test_ten_refused_addresses_in_a_row_disable(rows: Rows):
    endpoint = await rows.endpoint()
    refused = outcome(rows, endpoint, status=None, error_class="url_refused")
    assert await count(rows.rt, *[refused] * 9) == []
    assert await count(rows.rt, outcome(rows, endpoint)) == [], "nine, and then none: not in a row"
    assert await count(rows.rt, *[refused] * 9) == []
    [event] = await count(rows.rt, refused)
    assert event.data["reason"] == "url_refused"


async def test_what_says_nothing_about_the_receiver_is_not_counted(rows: Rows, scene: Scene):
    endpoint = await failing(rows)
    async with scene.later(121 * HOUR) as rt:
        ours = outcome(rows, endpoint, status=None, error_class="secret")
        test = outcome(rows, endpoint, "exhausted", trigger="test", event_type="webhook.test")
        stop = outcome(rows, endpoint, "aborted", status=422)
        assert await count(rt, ours, test, stop) == []
    row = await rows.stored_endpoint(endpoint)
    assert (row.status, row.failed_attempts, row.last_status) == ("active", 10, 422)


async def test_a_test_that_was_taken_does_not_end_the_run(rows: Rows):
    endpoint = await failing(rows)
    await count(rows.rt, outcome(rows, endpoint, "delivered", trigger="test", event_type="webhook.test"))
    assert (await rows.stored_endpoint(endpoint)).failed_attempts == 10


async def test_a_healthy_endpoint_is_written_once_a_second(rows: Rows, scene: Scene):
    endpoint = await rows.endpoint()
    await count(rows.rt, outcome(rows, endpoint, "delivered"))
    before = (await rows.stored_endpoint(endpoint)).last_triggered_at
    await count(rows.rt, outcome(rows, endpoint, "delivered"))
    assert (await rows.stored_endpoint(endpoint)).last_triggered_at == before
    async with scene.later(2) as rt:
        await count(rt, outcome(rows, endpoint, "delivered"))
    assert (await rows.stored_endpoint(endpoint)).last_triggered_at > before


async def test_an_endpoint_becomes_active_when_its_ping_is_taken(rows: Rows):
    endpoint = await rows.endpoint()
    await set_endpoint(rows, endpoint, "status = 'pending_verification', active_since = app_now() - interval '1 hour'")
    before = (await rows.stored_endpoint(endpoint)).active_since
    ping = {"trigger": "test", "event_type": "webhook.test"}
    await count(rows.rt, outcome(rows, endpoint, "exhausted", **ping))
    await count(rows.rt, outcome(rows, endpoint, "delivered", trigger="test"))
    assert (await rows.stored_endpoint(endpoint)).status == "pending_verification"
    await count(rows.rt, outcome(rows, endpoint, "delivered", **ping))
    row = await rows.stored_endpoint(endpoint)
    assert row.status == "active"
    assert row.active_since > before


async def set_endpoint(rows: Rows, endpoint: UUID, what: str) -> None:
    async with rows.rt.db.statement() as tx:
        await tx.exec_driver_sql(f"update webhook_endpoints set {what} where id = %s", (endpoint,))


async def test_a_disabled_endpoint_stays_disabled_when_a_late_answer_is_good(rows: Rows):
    endpoint = await rows.endpoint(active=False)
    await count(rows.rt, outcome(rows, endpoint, "delivered"), outcome(rows, endpoint, gone=True))
    row = await rows.stored_endpoint(endpoint)
    assert (row.status, row.disabled_reason) == ("disabled", "manual")


async def test_notices_come_at_50_70_and_90_percent_once_each(rows: Rows, scene: Scene):
    endpoint = await failing(rows)
    seen = []
    for hours in (59, 61, 83, 85, 107, 109, 119):
        async with scene.later(hours * HOUR) as rt:
            for event in [*await notices(rt, rows), *await notices(rt, rows)]:
                assert event.type == "webhook.endpoint.failing"
                seen.append((hours, event.data["percent"]))
    assert seen == [(61, 50), (85, 70), (109, 90)]
    since = (await rows.stored_endpoint(endpoint)).failing_since
    assert event.data["disables_at"] == clock.iso(since + timedelta(hours=120))
    assert event.data["failed_attempts"] == 10


async def test_a_notice_that_was_missed_is_not_made_up_for(rows: Rows, scene: Scene):
    await failing(rows)
    async with scene.later(90 * HOUR) as rt:
        assert [event.data["percent"] for event in await notices(rt, rows)] == [70]
        assert await notices(rt, rows) == []


async def test_two_timers_tell_once(rows: Rows, scene: Scene):
    await failing(rows)
    async with scene.later(61 * HOUR) as rt:
        told = await asyncio.gather(*(notices(rt, rows) for _ in range(4)))
    assert sum(len(events) for events in told) == 1


async def test_units_that_count_at_once_lose_no_failure(rows: Rows):
    endpoint = await rows.endpoint()
    await asyncio.gather(*(count(rows.rt, outcome(rows, endpoint), outcome(rows, endpoint)) for _ in range(8)))
    assert (await rows.stored_endpoint(endpoint)).failed_attempts == 16


async def recorded(rows: Rows, event: Event) -> UUID:
    """The delivery that this event makes."""
    await rows.record(event)
    async with rows.rt.db.statement() as tx:
        found = await tx.exec_driver_sql("select id from deliveries where event_id = %s", (event.id,))
        return UUID(str(found.one().id))


async def test_an_exhausted_delivery_is_announced(rows: Rows):
    endpoint = await rows.endpoint("https://a.example/x", events=("job.completed",))
    event = rows.event()
    delivery = await recorded(rows, event)
    ended = outcome(rows, endpoint, "exhausted", delivery_id=delivery, event_id=event.id, attempt_count=10)
    with capture_logs() as lines:
        [told] = await count(rows.rt, ended)
        endpoint_health.log_events([told])
    assert told.type == "webhook.delivery.exhausted"
    assert told.data == {
        "id": ids.prefixed("dlv", delivery), "delivery_id": ids.prefixed("dlv", delivery),
        "event_id": ids.prefixed("evt", event.id), "event_type": "job.completed",
        "webhook_id": ids.prefixed("whe", endpoint), "url": "https://a.example/x", "attempt_count": 10,
        "last_status": 500, "last_error": "500",
    }  # fmt: skip
    [line] = lines
    assert (line["event"], line["delivery_id"]) == ("delivery_exhausted", told.data["id"])


async def test_an_exhausted_callback_names_its_url(rows: Rows):
    job = await rows.job("https://b.example/job")
    call = await rows.call(await rows.job(), "https://b.example/call")
    of_job = await recorded(rows, rows.event(job_id=job))
    of_call = await recorded(rows, rows.event("call.completed", call_id=call))
    told = await count(rows.rt, *(outcome(rows, None, "exhausted", delivery_id=id_) for id_ in (of_job, of_call)))
    assert [event.data["url"] for event in told] == ["https://b.example/job", "https://b.example/call"]
    assert {event.data["webhook_id"] for event in told} == {None}


async def test_a_recovered_delivery_is_told_to_who_asked_for_it(rows: Rows):
    endpoint = await rows.endpoint(events=("*",))
    taken = outcome(rows, endpoint, "delivered", was_failing=True)
    assert await count(rows.rt, taken) == [], "no glob means it"
    await rows.endpoint(events=(RECOVERED,))
    assert kinds(await count(rows.rt, taken)) == [RECOVERED]
    assert await count(rows.rt, outcome(rows, endpoint, "delivered")) == [], "it had not failed"


async def test_no_operational_event_is_about_an_operational_event(rows: Rows):
    endpoint = await rows.endpoint(events=(RECOVERED,))
    ours = {"event_type": "webhook.endpoint.disabled"}
    taken = outcome(rows, endpoint, "delivered", was_failing=True, **ours)
    assert await count(rows.rt, outcome(rows, endpoint, "exhausted", **ours), taken) == []
