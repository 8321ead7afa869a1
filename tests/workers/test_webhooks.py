"""Delivering: rows to a real receiver and back, and what follows each kind of answer."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert, text, update
from standardwebhooks import Webhook, WebhookVerificationError

from shared import ids, tables
from shared.runtime import Runtime
from shared.signing import new_private_key, new_webhook_secret
from tests.shared.webhook_rows import Rows
from tests.workers.delivering import claim, send
from tests.workers.receiver import never, receiving, response
from workers import webhooks
from workers.webhook_http import Response, WebhookSender
from workers.webhooks import Deliverer

SCHEDULE = (5.0, 300.0, 1800.0)


@pytest.fixture
async def rows(runtime: Runtime) -> Rows:
    rows = Rows(runtime)
    await rows.create_team()
    return rows


async def deliver(rows: Rows, sender: WebhookSender, *delivery_ids: UUID) -> int:
    """Send what is due in the queues of these deliveries; how many were sent."""
    queues = {(await rows.delivery(id_)).queue_id for id_ in delivery_ids}
    return len(await send(rows.rt, sender, *queues))


async def test_event_reaches_its_endpoint_signed_and_is_delivered(rows: Rows, sender: WebhookSender):
    async with receiving() as receiver:
        endpoint = await rows.endpoint(receiver.url())
        event = rows.event()
        (delivery_id,) = await rows.record(event)
        assert await deliver(rows, sender, delivery_id) == 1

    (request,) = receiver.received
    assert request.body.decode() == event.body()
    assert request.headers["webhook-id"] == ids.prefixed("evt", event.id)
    assert request.headers["waybill-delivery-id"] == ids.prefixed("dlv", delivery_id)
    assert request.headers["waybill-attempt"] == "1"
    Webhook(rows.secrets[endpoint]).verify(request.body, request.headers)
    assert (await rows.delivery(delivery_id)).state == "delivered"


async def test_endpoints_own_headers_and_authorization_are_sent_and_ours_win(rows: Rows, sender: WebhookSender):
    async with receiving() as receiver:
        id_ = ids.new()
        seal, own = rows.rt.sealer.seal, '{"X-Env":"test","Webhook-Id":"forged","user-agent":"forged"}'
        async with rows.rt.db.transaction() as tx:
            await tx.execute(
                insert(tables.webhook_endpoints).values(
                    id=id_, team_id=rows.team_id, url=receiver.url(), events=["*"],
                    secret_sealed=rows.sealed("webhook_endpoints.secret", id_),
                    auth_header_sealed=seal("Bearer abc", purpose=f"webhook_endpoints.auth_header:{id_}"),
                    headers_sealed=seal(own, purpose=f"webhook_endpoints.headers:{id_}"),
                )
            )  # fmt: skip
        event = rows.event()
        await deliver(rows, sender, *await rows.record(event))

    headers = receiver.received[0].headers
    assert (headers["authorization"], headers["x-env"]) == ("Bearer abc", "test")
    assert headers["webhook-id"] == ids.prefixed("evt", event.id)
    assert headers["user-agent"].startswith("Waybill/")


async def test_sender_that_died_before_recording_sends_again_with_the_same_webhook_id(
    rows: Rows, sender: WebhookSender
):
    async with receiving() as receiver:
        endpoint = await rows.endpoint(receiver.url())
        (delivery_id,) = await rows.record(rows.event())
        (lost,) = (await claim(rows.rt, endpoint)).deliveries
        await webhooks._send(Deliverer.of(rows.rt, sender), lost, (lost.body or "").encode())
        await rows.change(delivery_id, lease_expires_at=datetime.now(UTC) - timedelta(seconds=1))
        await deliver(rows, sender, delivery_id)

    first, second = receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert (first.headers["waybill-attempt"], second.headers["waybill-attempt"]) == ("1", "2")


async def set_endpoint(rows: Rows, id_: UUID, **values: Any) -> None:
    async with rows.rt.db.transaction() as tx:
        await tx.execute(update(tables.webhook_endpoints).where(tables.webhook_endpoints.c.id == id_).values(**values))


@pytest.mark.parametrize(
    ("signing", "schemes"), [("v1", ["v1", "v1"]), ("v1a", ["v1a"]), ("both", ["v1", "v1", "v1a"])]
)
async def test_all_keys_of_an_endpoint_sign_until_they_expire(
    rows: Rows, sender: WebhookSender, signing: str, schemes: list[str]
):
    async with receiving() as receiver:
        endpoint = await rows.endpoint(receiver.url())
        await set_endpoint(rows, endpoint, signing=signing)
        older, expired, private = new_webhook_secret(), new_webhook_secret(), new_private_key()
        async with rows.rt.db.transaction() as tx:
            for key, kind, left in ((older, "v1", "1 hour"), (expired, "v1", "-1 s"), (private, "v1a", None)):
                id_ = ids.new()
                values = {"id": id_, "endpoint_id": endpoint, "kind": kind}
                sealed = rows.rt.sealer.seal(key, purpose=f"webhook_keys.key:{id_}")
                expires_at = None if left is None else text(f"app_now() + interval '{left}'")
                await tx.execute(insert(tables.webhook_keys).values(**values, key_sealed=sealed, expires_at=expires_at))
            broken = {"id": ids.new(), "endpoint_id": endpoint, "key_sealed": b"no key of ours opens it"}
            await tx.execute(insert(tables.webhook_keys).values(**broken))
        await rows.record(rows.event())
        await send(rows.rt, sender, endpoint)

    (request,) = receiver.received
    signed = request.headers["webhook-signature"].split(" ")
    assert sorted(one.partition(",")[0] for one in signed) == schemes
    if signing != "v1a":
        for secret in (rows.secrets[endpoint], older):
            Webhook(secret).verify(request.body, request.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(expired).verify(request.body, request.headers)


async def test_a_replay_says_which(rows: Rows, sender: WebhookSender):
    async with receiving() as receiver:
        await rows.endpoint(receiver.url())
        first, second = await rows.record(rows.event(), rows.event())
        replay = ids.new()
        await rows.change(second, replay_id=replay, trigger="replay")
        await deliver(rows, sender, first, second)

    assert {r.headers.get("waybill-replay") for r in receiver.received} == {None, ids.prefixed("rpl", replay)}
    assert (await rows.attempts(second))[0].trigger == "replay"


async def test_the_endpoints_own_schedule_and_timeout_come_before_the_settings(rows: Rows, sender: WebhookSender):
    async with receiving(never) as receiver:
        endpoint = await rows.endpoint(receiver.url())
        await set_endpoint(rows, endpoint, timeout_s=0.05, retry_schedule_s=[1000.0])
        (delivery_id,) = await rows.record(rows.event())
        await send(rows.rt, sender, endpoint)

    stored = await rows.delivery(delivery_id)
    assert (await rows.attempts(delivery_id))[0].error == "no answer within 0.05 s"
    assert 800 <= (stored.next_attempt_at - stored.created_at).total_seconds() <= 1201
    await rows.change(delivery_id, next_attempt_at=datetime.now(UTC) - timedelta(seconds=1))
    await send(rows.rt, sender, endpoint)
    assert (await rows.delivery(delivery_id)).state == "exhausted"


async def test_a_schedule_that_began_anew_is_counted_from_there(rows: Rows, sender: WebhookSender):
    async with receiving(response(500)) as receiver:
        endpoint = await rows.endpoint(receiver.url())
        await set_endpoint(rows, endpoint, retry_schedule_s=[1000.0])
        (delivery_id,) = await rows.record(rows.event())
        await rows.change(delivery_id, attempt=7, attempt_count=7, schedule_from=7, trigger="manual")
        await send(rows.rt, sender, endpoint)

    stored = await rows.delivery(delivery_id)
    assert (stored.state, stored.attempt_count, stored.trigger) == ("failing", 8, "scheduled")
    assert (await rows.attempts(delivery_id))[0].trigger == "manual"


@pytest.mark.parametrize("status", [500, 410])
async def test_a_test_is_sent_once_and_disables_nothing(rows: Rows, sender: WebhookSender, status: int):
    async with receiving(response(status)) as receiver:
        endpoint = await rows.endpoint(receiver.url())
        (delivery_id,) = await rows.record(rows.event())
        await rows.change(delivery_id, trigger="test")
        await send(rows.rt, sender, endpoint)

    assert (await rows.delivery(delivery_id)).state == "exhausted"
    assert (await rows.stored_endpoint(endpoint)).status == "active"


async def test_an_event_that_is_kept_no_more_is_given_up(rows: Rows, sender: WebhookSender):
    async with receiving() as receiver:
        endpoint = await rows.endpoint(receiver.url())
        event = rows.event()
        (delivery_id,) = await rows.record(event)
        async with rows.rt.db.transaction() as tx:
            await tx.execute(tables.events.delete().where(tables.events.c.id == event.id))
        await send(rows.rt, sender, endpoint)

    stored = await rows.delivery(delivery_id)
    assert (stored.state, stored.last_error, receiver.received) == ("discarded", "the event is no longer kept", [])


async def test_what_was_said_is_in_the_log_but_no_secret_of_the_customer(rows: Rows, sender: WebhookSender):
    async with receiving(response(302, location="https://b.example/", x_trace="t1")) as receiver:
        endpoint = await rows.endpoint(receiver.url())
        purpose = f"webhook_endpoints.auth_header:{endpoint}"
        await set_endpoint(
            rows, endpoint,
            auth_header_sealed=rows.rt.sealer.seal("Bearer abc", purpose=purpose),
            headers_sealed=rows.rt.sealer.seal('{"Accept":"x/y"}', purpose=f"webhook_endpoints.headers:{endpoint}"),
        )  # fmt: skip
        (delivery_id,) = await rows.record(rows.event())
        await send(rows.rt, sender, endpoint)

    (attempt,) = await rows.attempts(delivery_id)
    sent = receiver.received[0].headers
    assert attempt.request_headers == {**sent, "authorization": "…", "accept": "…"}
    assert {"host", "user-agent", "content-type", "content-length", "webhook-signature"} < set(sent)
    assert (attempt.response_headers["x-trace"], attempt.redirect_target) == ("t1", "https://b.example/")
    assert None not in (attempt.connect_ms, attempt.first_byte_ms, attempt.duration_ms)


async def test_secret_that_cannot_be_opened_fails_the_try_and_sends_nothing(rows: Rows, sender: WebhookSender):
    async with receiving() as receiver:
        endpoint = await rows.endpoint(receiver.url())
        (delivery_id,) = await rows.record(rows.event())
        (delivery,) = (await claim(rows.rt, endpoint)).deliveries
        await webhooks.deliver(Deliverer.of(rows.rt, sender), replace(delivery, secret_purpose="something else"))

    assert receiver.received == []
    assert (await rows.attempts(delivery_id))[0].error_class == "secret"
    assert (await rows.delivery(delivery_id)).state == "failing"


async def test_refused_address_is_a_failed_try(rows: Rows, sender: WebhookSender):
    await rows.endpoint("http://169.254.169.254/latest")
    (delivery_id,) = await rows.record(rows.event())
    await deliver(rows, sender, delivery_id)

    (attempt,) = await rows.attempts(delivery_id)
    assert (attempt.error_class, attempt.error) == ("url_refused", "metadata address")
    assert (await rows.delivery(delivery_id)).state == "failing"


async def test_gone_disables_the_endpoint(rows: Rows, sender: WebhookSender):
    async with receiving(response(410)) as receiver:
        endpoint = await rows.endpoint(receiver.url())
        made = await rows.record(rows.event(), rows.event())
        await send(rows.rt, sender, endpoint, most=1)

    assert (await rows.stored_endpoint(endpoint)).disabled_reason == "gone"
    assert await deliver(rows, sender, *made) == 0
    assert {(await rows.delivery(id_)).state for id_ in made} == {"discarded"}


async def test_last_try_of_the_schedule_exhausts(runtime: Runtime, rows: Rows, sender: WebhookSender):
    rows.rt = replace(runtime, settings=runtime.settings.model_copy(update={"webhook_retry_schedule_s": (0.0,)}))
    async with receiving(response(500)) as receiver:
        await rows.endpoint(receiver.url())
        (delivery_id,) = await rows.record(rows.event())
        assert [await deliver(rows, sender, delivery_id) for _ in range(3)] == [1, 1, 0]

    assert (await rows.delivery(delivery_id)).state == "exhausted"
    assert len(receiver.received) == 2


def failed(status: int | None = None, error_class: str = "status", **fields: object) -> Response:
    return replace(Response(duration_ms=1, status=status, error_class=error_class), **fields)


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (Response(duration_ms=1, status=204), "delivered"),
        (Response(duration_ms=1, status=200, abort=True), "delivered"),
        (failed(500, abort=True), "aborted"),
        (failed(410), "discarded"),
        (failed(301), "failing"),
        (failed(404), "failing"),
        (failed(error_class="dns"), "failing"),
        (failed(200, error_class="body_too_slow"), "failing"),
    ],
)
def test_state_after_an_answer(answer: Response, state: str):
    assert webhooks.after(answer, tries=1, schedule_s=SCHEDULE).state == state


@pytest.mark.parametrize("tries", [1, 2, 3])
def test_wait_is_the_schedules_spread_by_a_fifth(tries: int):
    planned = SCHEDULE[tries - 1]
    waits = [webhooks.after(failed(500), tries=tries, schedule_s=SCHEDULE).retry_in_s for _ in range(200)]

    assert all(0.8 * planned <= wait <= 1.2 * planned for wait in waits)
    assert len(set(waits)) > 100


def test_after_the_schedules_last_try_nothing_is_left():
    assert webhooks.after(failed(500), tries=4, schedule_s=SCHEDULE).state == "exhausted"


@pytest.mark.parametrize("answer", [failed(429), failed(502), failed(503), failed(504), failed(error_class="timeout")])
def test_busy_receiver_is_left_alone_for_a_minute(answer: Response):
    assert webhooks.after(answer, tries=1, schedule_s=SCHEDULE).retry_in_s == 60
    assert webhooks.after(answer, tries=2, schedule_s=SCHEDULE).retry_in_s >= 240


@pytest.mark.parametrize(
    ("asked", "wait"), [("1", 60), ("90", 90), ("100000", 120), ("soon", 60), ("-5", 60), ("1.5", 60)]
)
def test_retry_after_is_honoured_within_one_to_two_planned_waits(asked: str, wait: float):
    assert webhooks.after(failed(429, retry_after=asked), tries=1, schedule_s=SCHEDULE).retry_in_s == wait


def test_retry_after_may_be_a_date():
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    wait = webhooks.after(failed(503, retry_after=at), tries=1, schedule_s=SCHEDULE).retry_in_s

    assert wait is not None
    assert 60 < wait <= 90


def test_retry_after_of_another_status_is_not_honoured():
    assert webhooks.after(failed(500, retry_after="100"), tries=1, schedule_s=SCHEDULE).retry_in_s <= 6
