"""The circuit of a queue: open after five failures in a row, one probe at a time, closed by a success."""

from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy import text

from shared import deliveries, delivery_queues, ids, tables
from shared.deliveries import Delivery
from shared.runtime import Runtime
from tests.shared.webhook_rows import Rows
from tests.workers.delivering import claim
from tests.workers.moved_clock import later
from tests.workers.queues import busy, circuit, due, end, ended, set_endpoint
from workers.delivery_records import Records, said


@pytest.fixture
async def rows(runtime: Runtime) -> Rows:
    rows = Rows(runtime)
    await rows.create_team()
    return rows


async def test_five_failures_in_a_row_open_the_circuit_and_nothing_is_sent(rows: Rows):
    queue = await busy(rows, 8, max_concurrency=8)
    claimed = list((await claim(rows.rt, queue, most=7)).deliveries)
    await end(rows.rt, claimed[:4], failed=True)
    await end(rows.rt, claimed[4:5])
    await end(rows.rt, claimed[5:6], failed=True)
    assert await circuit(rows.rt, queue) == "closed", "one that was taken breaks the row"
    await end(rows.rt, (await claim(rows.rt, queue, most=4)).deliveries, failed=True)

    assert await circuit(rows.rt, queue) == "open"
    assert queue not in await due(rows.rt)
    shut = await claim(rows.rt, queue)
    assert (list(shut.deliveries), dict(shut.again)) == ([], {})


async def opened(rows: Rows, events: int = 6) -> UUID:
    """A queue whose circuit five failures have opened."""
    queue = await busy(rows, events)
    await end(rows.rt, (await claim(rows.rt, queue, most=5)).deliveries, failed=True)
    return queue


async def test_after_a_minute_one_probe_goes_and_one_that_is_taken_closes_the_circuit(rows: Rows):
    queue = await opened(rows)
    async with later(rows.rt, 61) as rt:
        assert await circuit(rt, queue) == "half_open"
        assert queue in await due(rt)
        (probe,) = (await claim(rt, queue)).deliveries
        assert not (await claim(rt, queue)).deliveries
        await end(rt, [probe])
        assert await circuit(rt, queue) == "closed"
        assert len((await claim(rt, queue)).deliveries) == 5


async def test_each_probe_that_fails_doubles_the_wait_up_to_fifteen_minutes(rows: Rows):
    queue = await opened(rows)
    at = 0.0
    for wait_s in (60, 120, 240, 480, 900, 900):
        async with later(rows.rt, at + wait_s - 1) as rt:
            assert await circuit(rt, queue) == "open", f"{wait_s} s are not over"
        at += wait_s + 1
        async with later(rows.rt, at) as rt:
            (probe,) = (await claim(rt, queue)).deliveries
            await end(rt, [probe], failed=True)


async def test_a_probe_whose_sender_died_is_followed_by_another(rows: Rows):
    queue = await opened(rows)
    async with later(rows.rt, 61) as rt:
        await claim(rt, queue)
    async with later(rows.rt, 80) as rt:
        assert not (await claim(rt, queue)).deliveries
    async with later(rows.rt, 61 + 31) as rt:
        (probe,) = (await claim(rt, queue)).deliveries
        await end(rt, [probe])
        assert await circuit(rt, queue) == "closed"


async def test_waiting_for_a_circuit_counts_as_no_try(rows: Rows):
    queue = await opened(rows)
    async with later(rows.rt, 61) as rt:
        (probe,) = (await claim(rt, queue)).deliveries
        assert probe.attempt_count <= 1


async def test_failures_that_come_late_do_not_open_a_circuit_further(rows: Rows):
    queue = await busy(rows, 10, max_concurrency=10)
    claimed = list((await claim(rows.rt, queue)).deliveries)
    await end(rows.rt, claimed[:5], failed=True)
    await end(rows.rt, claimed[5:], failed=True)
    async with later(rows.rt, 61) as rt:
        assert await circuit(rt, queue) == "half_open"


async def test_a_circuit_is_closed_by_hand(rows: Rows):
    queue = await opened(rows)
    async with rows.rt.db.transaction() as tx:
        await delivery_queues.close(tx, queue)

    assert len((await claim(rows.rt, queue)).deliveries) == 5


async def test_tests_have_a_queue_of_their_own_and_say_nothing_about_the_circuit(rows: Rows):
    endpoint = await opened(rows)
    await set_endpoint(rows, endpoint, status="disabled", disabled_reason="manual")
    async with rows.rt.db.transaction() as tx:
        await tx.execute(
            tables.deliveries.insert().values(
                id=ids.new(), event_id=ids.new(), event_type="webhook.test", team_id=rows.team_id,
                endpoint_id=endpoint, queue_id=delivery_queues.test_queue(endpoint), body="{}", trigger="test",
            )
        )  # fmt: skip
    (example,) = (await claim(rows.rt, delivery_queues.test_queue(endpoint))).deliveries

    assert (example.trigger, example.body, example.url) == ("test", "{}", "https://a.example/")
    assert said([ended(example, failed=True)]) == []


def test_what_attempts_say_about_a_queue_is_told_in_their_order():
    some = Delivery(**dict.fromkeys(deliveries.DELIVERY))
    some = replace(some, id=ids.new(), attempt=1, queue_id=ids.new(), trigger="scheduled")
    group = [ended(some, failed=failed) for failed in (True, False, True, True)]

    (told,) = said(group)
    assert (told.succeeded, told.failures) == (True, 2)
    (told,) = said(group[2:])
    assert (told.succeeded, told.failures) == (False, 2)


async def test_what_was_sent_to_a_url_of_before_says_nothing_of_the_one_of_now(rows: Rows):
    queue = await busy(rows, 7, max_concurrency=7)
    claimed = (await claim(rows.rt, queue)).deliveries
    await set_endpoint(rows, queue, url="https://b.example/")
    gone = ended(claimed[0], failed=True)
    gone = replace(gone, result=replace(gone.result, state="discarded", status=410, retry_in_s=None), gone=True)
    await Records(rows.rt)._commit([gone, *(ended(d, failed=True) for d in claimed[1:])], None)

    endpoint = await rows.stored_endpoint(queue)
    assert (endpoint.status, endpoint.failing_since, endpoint.failed_attempts) == ("active", None, 0)
    assert await circuit(rows.rt, queue) == "closed"
    again = await rows.delivery(claimed[0].id)
    assert (again.state, again.last_status, len(await rows.attempts(again.id))) == ("failing", 410, 1)
    assert len((await claim(rows.rt, queue)).deliveries) == 7


async def test_what_was_claimed_before_an_endpoint_was_enabled_anew_is_of_no_account(rows: Rows):
    queue = await busy(rows, 5)
    claimed = (await claim(rows.rt, queue)).deliveries
    await set_endpoint(rows, queue, active_since=text("app_now()"))
    await end(rows.rt, claimed, failed=True)

    assert (await rows.stored_endpoint(queue)).failed_attempts == 0
    assert await circuit(rows.rt, queue) == "closed"
