"""Deliveries in Postgres: who gets which event, who may send it, and what a late or lost sender can do."""

from dataclasses import replace
from uuid import UUID

import pytest
from psycopg.errors import UniqueViolation
from sqlalchemy import text

from shared import clock, deliveries
from shared.deliveries import Delivery, Result
from shared.runtime import Runtime
from tests.shared.webhook_rows import Rows
from tests.workers import delivering

PAST = text("app_now() - interval '1 minute'")


@pytest.fixture
async def rows(runtime: Runtime) -> Rows:
    rows = Rows(runtime)
    await rows.create_team()
    return rows


async def claim(rows: Rows, *delivery_ids: UUID, worker: str = "w1") -> list[Delivery]:
    """What is due in the queues of these deliveries."""
    queues = {(await rows.delivery(id_)).queue_id for id_ in delivery_ids}
    return list((await delivering.claim(rows.rt, *queues, worker=worker)).deliveries)


async def record(rows: Rows, result: Result) -> bool:
    """Whether the delivery was still this attempt's to record."""
    async with rows.rt.db.statement() as tx:
        return (result.id, result.attempt) in await deliveries.record(tx, [result])


def ended(delivery: Delivery, state: str = "delivered", **fields: object) -> Result:
    base = Result(
        id=delivery.id, attempt=delivery.attempt, state=state, started_at=clock.now(), duration_ms=5, status=200
    )
    return replace(base, **fields)


async def claimed(rows: Rows) -> Delivery:
    await rows.endpoint()
    (delivery,) = await claim(rows, *await rows.record(rows.event()))
    return delivery


@pytest.mark.parametrize(
    ("type_", "events", "sent"),
    [
        ("job.completed", ("job.completed",), True),
        ("job.completed", ("job.failed", "job.completed"), True),
        ("job.completed", ("job.*",), True),
        ("job.completed", ("*",), True),
        ("job.completed", ("job.failed",), False),
        ("job.completed", ("call.*",), False),
        ("job.completed", ("job",), False),
        ("webhook.endpoint.disabled", ("webhook.*",), True),
        ("webhook.endpoint.disabled", ("webhook.endpoint.*",), True),
        ("job.progress", ("job.*", "*"), False),
        ("job.progress", ("job.progress",), True),
    ],
)
async def test_endpoint_gets_what_its_events_name(rows: Rows, type_: str, events: tuple[str, ...], *, sent: bool):
    await rows.endpoint(events=events)

    assert len(await rows.record(rows.event(type_))) == sent


async def test_one_delivery_per_event_and_active_endpoint_of_the_team(rows: Rows, runtime: Runtime):
    other = Rows(runtime)
    await other.create_team()
    await other.endpoint()
    endpoints = {await rows.endpoint(), await rows.endpoint()}
    await rows.endpoint(active=False)
    made = await rows.record(rows.event(), rows.event())

    stored = [await rows.delivery(id_) for id_ in made]
    assert len(stored) == 4
    assert {delivery.endpoint_id for delivery in stored} == endpoints


async def test_an_event_is_recorded_once(rows: Rows):
    await rows.endpoint()
    job = await rows.job("https://cb.example/")
    event = rows.event(job_id=job)

    assert len(await rows.record(event)) == 2
    with pytest.raises(UniqueViolation):
        await rows.record(event)


async def test_nobody_listening_makes_no_row(rows: Rows):
    job = await rows.job()
    event = rows.event("call.completed", job_id=job, call_id=await rows.call(job))

    assert await rows.record(event) == []
    assert await rows.record() == []


async def test_callbacks_of_job_and_call_are_separate_targets(rows: Rows):
    job = await rows.job("https://job.example/", ("job.completed", "call.completed"))
    call = await rows.call(job, "https://call.example/")
    deliveries = await claim(rows, *await rows.record(rows.event("call.completed", job_id=job, call_id=call)))

    assert {delivery.callback: delivery.url for delivery in deliveries} == {
        "job": "https://job.example/",
        "call": "https://call.example/",
    }


@pytest.mark.parametrize("own", [True, False])
async def test_callback_is_signed_with_its_own_secret_or_the_teams(rows: Rows, *, own: bool):
    job = await rows.job("https://job.example/", ("call.completed",), own_secret=own)
    call = await rows.call(job, "https://call.example/", own_secret=own)
    deliveries = await claim(rows, *await rows.record(rows.event("call.completed", job_id=job, call_id=call)))

    for delivery in deliveries:
        owner = {"job": job, "call": call}[delivery.callback] if own else rows.team_id
        opened = rows.rt.sealer.open(delivery.secret_sealed, purpose=delivery.secret_purpose)
        assert opened == rows.secrets[owner]
    assert len(deliveries) == 2


async def test_claim_returns_all_that_an_attempt_needs(rows: Rows):
    endpoint = await rows.endpoint("https://a.example/hook")
    event = rows.event()
    (delivery,) = await claim(rows, *await rows.record(event))

    assert (delivery.event_id, delivery.endpoint_id, delivery.url, delivery.body) == (
        event.id,
        endpoint,
        "https://a.example/hook",
        event.body(),
    )
    assert (delivery.attempt, delivery.attempt_count) == (1, 0)
    assert rows.rt.sealer.open(delivery.secret_sealed, purpose=delivery.secret_purpose) == rows.secrets[endpoint]


async def test_lost_sender_leaves_the_delivery_to_the_next_under_a_new_fence(rows: Rows):
    first = await claimed(rows)
    assert await claim(rows, first.id) == []
    await rows.change(first.id, lease_expires_at=PAST)
    (second,) = await claim(rows, first.id, worker="w2")

    assert (second.attempt, second.event_id) == (2, first.event_id)
    assert not await record(rows, ended(first, "failing", retry_in_s=60.0))
    assert (await rows.delivery(first.id)).state == "pending"
    assert await record(rows, ended(second))
    assert (await rows.delivery(first.id)).state == "delivered"
    assert [attempt.number for attempt in await rows.attempts(first.id)] == [1, 2]


async def test_delivered_is_recorded_once_and_never_claimed_again(rows: Rows):
    delivery = await claimed(rows)
    await record(rows, ended(delivery, response_head="thanks"))
    await record(rows, ended(delivery, "failing", retry_in_s=1.0))

    stored = await rows.delivery(delivery.id)
    assert (stored.state, stored.attempt_count, stored.last_status) == ("delivered", 1, 200)
    assert stored.delivered_at is not None
    assert stored.lease_expires_at is None
    assert (await rows.attempts(delivery.id))[0].response_head == "thanks"
    await rows.change(delivery.id, next_attempt_at=PAST)
    assert await claim(rows, delivery.id) == []


async def test_failing_waits_for_its_time(rows: Rows):
    delivery = await claimed(rows)
    await record(
        rows, ended(delivery, "failing", status=500, error_class="status", error="answered 500", retry_in_s=300.0)
    )

    stored = await rows.delivery(delivery.id)
    assert (stored.state, stored.last_status, stored.last_error) == ("failing", 500, "answered 500")
    assert await claim(rows, delivery.id) == []
    await rows.change(delivery.id, next_attempt_at=PAST)
    (again,) = await claim(rows, delivery.id)
    assert (again.attempt, again.attempt_count) == (2, 1)
