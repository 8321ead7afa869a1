"""Claims of queues: concurrency over all senders, rate, and what is never sent."""

import asyncio
from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy import select, text, update

from shared import delivery_queues, redis_keys, tables
from shared.db import hot
from shared.messages import Deliver, Message
from shared.runtime import Runtime
from tests.shared.webhook_rows import Rows
from tests.waiting import until
from tests.workers.delivering import claim
from tests.workers.moved_clock import later
from tests.workers.queues import busy, due, end, ended, set_endpoint
from workers.delivery_records import Records
from workers.sweeper import Sweep

PAST = text("app_now() - interval '1 second'")


@pytest.fixture
async def rows(runtime: Runtime) -> Rows:
    rows = Rows(runtime)
    await rows.create_team()
    return rows


async def test_no_more_than_its_concurrency_is_under_way_whoever_claims(rows: Rows):
    queue = await busy(rows, 12, max_concurrency=5)
    await claim(rows.rt, queue, most=0)
    first, *others = await asyncio.gather(*(claim(rows.rt, queue, most=4, worker=f"w{n}") for n in range(4)))
    won = [d for some in (first, *others, await claim(rows.rt, queue)) for d in some.deliveries]
    assert len({d.id for d in won}) == len(won) == 5

    full = await claim(rows.rt, queue)
    assert (list(full.deliveries), full.again) == ([], {queue: None})
    await end(rows.rt, won[:2])
    assert len((await claim(rows.rt, queue)).deliveries) == 2


async def test_what_a_dead_sender_held_counts_no_more_once_its_lease_is_over_and_is_sent_again(rows: Rows):
    queue = await busy(rows, 2, max_concurrency=1)
    (lost,) = (await claim(rows.rt, queue)).deliveries
    assert not (await claim(rows.rt, queue)).deliveries
    await rows.change(lost.id, lease_expires_at=PAST)
    (again,) = (await claim(rows.rt, queue)).deliveries

    assert (again.id, again.event_id, again.attempt) == (lost.id, lost.event_id, 2)


async def test_a_lease_outlives_the_longest_attempt(rows: Rows):
    queue = await busy(rows, 1, timeout_s=30.0)
    (delivery,) = (await claim(rows.rt, queue)).deliveries

    async with rows.rt.db.statement() as tx:
        left = await tx.scalar(
            text("select extract(epoch from lease_expires_at - app_now()) from deliveries where id = :id"),
            {"id": delivery.id},
        )
    assert 37 < float(left or 0) <= 38


async def test_a_claim_takes_turns_and_says_that_there_is_more(rows: Rows):
    one, other = await busy(rows, 3), await rows.endpoint()
    got = await claim(rows.rt, one, other, most=2)

    assert ([d.queue_id for d in got.deliveries], got.again) == ([one, one], {one: 0.0})


async def test_a_queue_that_another_sender_has_in_hand_is_left_to_it(rows: Rows):
    queue = await busy(rows, 1)
    await claim(rows.rt, queue, most=0)
    async with rows.rt.db.transaction() as tx:
        await delivery_queues.lock(tx, [queue])
        got = await claim(rows.rt, queue)

    assert (list(got.deliveries), got.again[queue]) == ([], 0.05)


async def test_rate_lets_a_second_full_through_and_then_says_how_long_to_wait(rows: Rows):
    queue = await busy(rows, 10, max_rate_per_s=2.0, max_concurrency=50)
    first = await claim(rows.rt, queue)
    assert len(first.deliveries) == 2
    wait_s = first.again[queue]
    assert wait_s is not None
    assert 0.4 < wait_s <= 0.5

    async with later(rows.rt, 1.6) as rt:
        assert len((await claim(rt, queue)).deliveries) == 2, "three in 1.6 s, but never more than one second's"
        assert not (await claim(rt, queue)).deliveries


async def test_what_waits_for_a_disabled_endpoint_is_discarded(rows: Rows):
    queue = await busy(rows, 3)
    (under_way,) = (await claim(rows.rt, queue, most=1)).deliveries
    await set_endpoint(rows, queue, status="disabled", disabled_reason="manual")

    assert not (await claim(rows.rt, queue)).deliveries
    async with rows.rt.db.statement() as tx:
        table = tables.deliveries
        found = {row.id: row for row in await tx.execute(select(table).where(table.c.queue_id == queue))}
    assert found[under_way.id].state == "pending"
    others = {(row.state, row.last_error) for id_, row in found.items() if id_ != under_way.id}
    assert others == {("discarded", "the endpoint is disabled")}


async def test_what_waits_for_an_endpoint_to_be_verified_goes_on_waiting(rows: Rows):
    queue = await busy(rows, 1)
    await set_endpoint(rows, queue, status="pending_verification")

    assert (list((await claim(rows.rt, queue)).deliveries), queue in await due(rows.rt)) == ([], False)
    await set_endpoint(rows, queue, status="active")
    assert len((await claim(rows.rt, queue)).deliveries) == 1


async def test_a_full_queue_takes_no_more_and_the_event_is_kept(rows: Rows):
    queue = await busy(rows, 1)
    await claim(rows.rt, queue, most=0)
    async with rows.rt.db.transaction() as tx:
        await tx.execute(
            update(tables.delivery_queues).where(tables.delivery_queues.c.id == queue).values(is_full=True)
        )
    (over,) = await rows.record(rows.event())

    stored = await rows.delivery(over)
    assert (stored.state, stored.last_error) == ("discarded", "queue_full")
    assert len((await claim(rows.rt, queue)).deliveries) == 1


async def test_callbacks_of_one_team_and_origin_share_a_queue(rows: Rows):
    jobs = [await rows.job(url) for url in ("https://A.example/x", "https://a.example/y?z", "https://a.example:8443/x")]
    made = [await rows.record(rows.event(job_id=job)) for job in jobs]
    queues = [(await rows.delivery(id_)).queue_id for (id_,) in made]

    assert queues[0] == queues[1] != queues[2]
    assert len((await claim(rows.rt, *set(queues))).deliveries) == 3


async def waiting(rows: Rows, type_: str) -> UUID:
    """An endpoint's queue with one delivery, of an event that the team's other endpoints do not want."""
    endpoint = await rows.endpoint(events=(type_,))
    await rows.record(rows.event(type_))
    return endpoint


async def test_the_timer_rings_queues_in_which_something_is_due_and_free(rows: Rows):
    kinds = ("job.created", "job.started", "job.completed", "job.failed", "job.cancelled")
    fresh, leased, lost, over, failing = [await waiting(rows, kind) for kind in kinds]
    claimed = {d.queue_id: d for d in (await claim(rows.rt, leased, lost, over, failing)).deliveries}
    await rows.change(claimed[lost].id, lease_expires_at=PAST)
    await end(rows.rt, [claimed[over]])
    await end(rows.rt, [claimed[failing]], failed=True)
    await rows.change(claimed[failing].id, next_attempt_at=text("app_now() + interval '1 hour'"))
    rung: list[Message] = []
    await Sweep(rt=replace(rows.rt, ring=rung.append)).due_deliveries()

    (message,) = rung
    assert isinstance(message, Deliver)
    assert set(message.ids) & {fresh, leased, lost, over, failing} == {fresh, lost}


async def test_the_timer_adds_no_bells_to_many_that_wait(rows: Rows):
    await waiting(rows, "job.created")
    key, rung = redis_keys.queue(Deliver.queue), list[Message]()
    await rows.rt.redis.rpush(key, *range(201))
    found = await Sweep(rt=replace(rows.rt, ring=rung.append)).due_deliveries()
    await rows.rt.redis.delete(key)

    assert (found, rung) == (0, [])


async def test_a_full_payload_carries_the_answer_and_is_the_same_in_every_try(rows: Rows):
    endpoint = await rows.endpoint()
    await set_endpoint(rows, endpoint, payload="full")
    job = await rows.job()
    call = await rows.call(job)
    async with rows.rt.db.transaction() as tx:
        answer = {
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "Paris"}, "finish_reason": "stop"}]
        }
        await tx.execute(tables.call_payloads.insert().values(call_id=call, request={}, response=answer))
    event = replace(rows.event("call.completed", job_id=job, call_id=call), data={"id": str(call)})
    (id_,) = await rows.record(event)
    (first,) = (await claim(rows.rt, endpoint)).deliveries
    assert first.body is not None
    assert '"content":"Paris"' in first.body
    async with rows.rt.db.transaction() as tx:
        await tx.execute(tables.call_payloads.delete().where(tables.call_payloads.c.call_id == call))
    await rows.change(id_, lease_expires_at=PAST)

    (second,) = (await claim(rows.rt, endpoint)).deliveries
    assert second.body == first.body


async def test_a_group_writes_attempts_of_many_queues_at_once(rows: Rows):
    queues = [await busy(rows, 1) for _ in range(3)]
    claimed = (await claim(rows.rt, *queues)).deliveries
    await end(rows.rt, claimed)

    assert {(await rows.delivery(d.id)).state for d in claimed} == {"delivered"}
    assert [len(await rows.attempts(d.id)) for d in claimed] == [1] * len(claimed)


async def test_what_a_receiver_said_that_cannot_be_stored_does_not_make_the_delivery_come_for_ever(rows: Rows):
    queue = await busy(rows, 2)
    first, second = (await claim(rows.rt, queue)).deliveries
    poisoned = ended(first, failed=False)
    poisoned = replace(poisoned, result=replace(poisoned.result, response_head="\x00", response_headers={"a": "\x00"}))
    records = Records(rows.rt)

    assert await asyncio.gather(records.add(poisoned), records.add(ended(second, failed=False))) == [True, True]
    assert {(await rows.delivery(d.id)).state for d in (first, second)} == {"delivered"}
    assert (await rows.attempts(first.id))[0].response_head is None


async def test_a_queue_that_another_unit_makes_at_the_same_time_is_known(rows: Rows):
    queue = await busy(rows, 1)
    async with rows.rt.db.hot_transaction() as other:
        assert [known.id for known in await delivery_queues.ensure(other, [queue])] == [queue]

        async def mine() -> list[UUID]:
            async with rows.rt.db.hot_statement() as tx:
                return [known.id for known in await delivery_queues.ensure(tx, [queue])]

        asking = asyncio.create_task(mine())
        await until(lambda: waits_for_the_row(rows), "it waits for the other one")
    assert await asking == [queue]


async def waits_for_the_row(rows: Rows) -> bool:
    sql = "select pid from pg_stat_activity where wait_event_type = 'Lock' and query like %s"
    async with rows.rt.db.hot_statement() as tx:
        return bool(await hot(tx, sql, ("%into delivery_queues%",)))
