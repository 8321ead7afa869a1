"""Replays and retries by hand on the wire: the event's own id and bytes again, and retried like any other."""

from dataclasses import replace
from uuid import UUID

import pytest

from shared import delivery_lists, ids, replays, webhook_endpoints
from shared.messages import Deliver, Message
from shared.replays import Filter, Piece, Replay
from shared.runtime import Runtime
from tests.shared.webhook_rows import Rows
from tests.workers.delivering import send
from tests.workers.receiver import receiving, response
from workers.replays import advance
from workers.webhook_http import WebhookSender

SCHEDULE = (5.0, 300.0)


@pytest.fixture(scope="module")
def database_url(module_database_url: str) -> str:
    """Of this module: the step that is tested takes the replays of all teams."""
    return module_database_url


@pytest.fixture
async def rows(runtime: Runtime) -> Rows:
    settings = runtime.settings.model_copy(update={"webhook_retry_schedule_s": SCHEDULE})
    rows = Rows(replace(runtime, settings=settings))
    await rows.create_team()
    return rows


async def start(rows: Rows, endpoint: UUID) -> Replay:
    """A replay of the team's whole log."""
    async with rows.rt.db.transaction() as tx:
        found = await webhook_endpoints.get(tx, endpoint)
        assert found is not None
        piece = Piece(next_seq=1, until_seq=await replays.log_end(tx, rows.team_id))
        return await replays.create(tx, found, Filter(), piece, matched=0, rate_per_s=1000)


async def test_a_replay_is_sent_with_the_events_own_id_and_retried(
    rows: Rows, sender: WebhookSender, rung: list[Message]
):
    event = rows.event()
    await rows.record(event)
    async with receiving(response(500), response(200)) as receiver:
        endpoint = await rows.endpoint(receiver.url())
        started = await start(rows, endpoint)

        assert await advance(rows.rt) == 1
        assert rung == [Deliver(ids=(endpoint,))]
        [first] = await send(rows.rt, sender, endpoint)
        failing = await rows.delivery(first.id)
        await rows.change(first.id, next_attempt_at=failing.created_at)
        await send(rows.rt, sender, endpoint)

    assert failing.state == "failing"
    for number, request in enumerate(receiver.received, 1):
        assert request.body.decode() == event.body()
        assert request.headers["webhook-id"] == ids.prefixed("evt", event.id)
        assert request.headers["waybill-replay"] == ids.prefixed("rpl", started.id)
        assert request.headers["waybill-attempt"] == str(number)
    assert [attempt.trigger for attempt in await rows.attempts(first.id)] == ["replay", "scheduled"]
    async with rows.rt.db.statement() as tx:
        assert await replays.sent(tx, started.id) == replays.Sent(
            sent=1, delivered=1, failing=0, waiting=0, discarded=0
        )


async def test_a_retry_by_hand_begins_the_schedule_again(rows: Rows, sender: WebhookSender):
    async with receiving(response(500)) as receiver:
        endpoint = await rows.endpoint(receiver.url())
        [id_] = await rows.record(rows.event())
        await rows.change(id_, state="exhausted", attempt_count=3, attempt=3)

        async with rows.rt.db.transaction() as tx:
            assert await delivery_lists.retry(tx, id_) == endpoint
        await send(rows.rt, sender, endpoint)

    again = await rows.delivery(id_)
    assert (again.state, again.attempt_count, again.schedule_from) == ("failing", 4, 3)
    assert [attempt.trigger for attempt in await rows.attempts(id_)] == ["manual"]


async def test_what_was_cancelled_is_not_sent(rows: Rows, sender: WebhookSender):
    async with receiving() as receiver:
        endpoint = await rows.endpoint(receiver.url())
        [id_] = await rows.record(rows.event())

        async with rows.rt.db.transaction() as tx:
            assert await delivery_lists.cancel(tx, id_)
        assert await send(rows.rt, sender, endpoint) == []

    assert receiver.received == []
