"""Deliveries as their team sees them: lists, one with its attempts, and sending or dropping one by hand."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert, text, update

from shared import clock, ids, tables
from shared.clock import iso
from shared.messages import Deliver
from tests.api.admin import made, refusal, wrong_place
from tests.api.people import person
from tests.scene import Scene, Team
from tests.shared.webhook_rows import Rows

SOON = text("app_now() + interval '1 minute'")
AGO = text("app_now() - interval '1 minute'")
DISABLED = {"status": "disabled", "disabled_reason": "manual"}
IN_FLIGHT = "Delivery is being sent right now. Try again when this attempt has ended"
STATES = ("pending", "failing", "delivered", "exhausted", "aborted", "discarded")


@pytest.fixture
def rows(scene: Scene, team: Team) -> Rows:
    return Rows(scene.rt, team.id)


def webhook(endpoint: UUID) -> str:
    return ids.prefixed("whe", endpoint)


def path_of(delivery: UUID, deed: str = "") -> str:
    return f"/webhooks/deliveries/{ids.prefixed('dlv', delivery)}{deed}"


async def delivered(rows: Rows, state: str = "pending", **values: Any) -> UUID:
    """The delivery of a new event, in this state."""
    [made_] = await rows.record(rows.event())
    await rows.change(made_, state=state, **values)
    return made_


async def change_endpoint(rows: Rows, endpoint: UUID, **values: Any) -> None:
    table = tables.webhook_endpoints
    async with rows.rt.db.transaction() as tx:
        await tx.execute(update(table).where(table.c.id == endpoint).values(**values))


async def attempt(rows: Rows, delivery: UUID, number: int, **values: Any) -> None:
    async with rows.rt.db.transaction() as tx:
        await tx.execute(insert(tables.delivery_attempts).values(delivery_id=delivery, number=number, **values))


async def listed(team: Team, path: str) -> list[str]:
    page = made(await team.get(path))
    return [delivery["delivery_id"] for delivery in page["deliveries"]]


async def test_a_delivery_is_listed_with_how_it_stands(team: Team, rows: Rows):
    endpoint = await rows.endpoint("https://a.example/hook")
    job = await rows.job()
    event = rows.event(job_id=job)
    [made_] = await rows.record(event)
    await rows.change(made_, state="failing", attempt_count=2, last_status=500, last_error="server error")

    [shown] = made(await team.get("/webhooks/deliveries"))["deliveries"]

    stored = await rows.delivery(made_)
    assert shown.pop("created_at") == clock.iso(stored.created_at)
    assert shown.pop("next_attempt_at") == clock.iso(stored.next_attempt_at)
    assert shown == {
        "delivery_id": ids.prefixed("dlv", made_),
        "event_id": ids.prefixed("evt", event.id),
        "event_type": "job.completed",
        "webhook_id": webhook(endpoint),
        "url": "https://a.example/hook",
        "job_id": str(job),
        "status": "failing",
        "trigger": "scheduled",
        "attempt_count": 2,
        "last_status": 500,
        "last_error": "server error",
        "delivered_at": None,
        "replay_id": None,
    }


async def test_deliveries_of_callbacks_are_listed_with_the_url_they_go_to(team: Team, rows: Rows):
    job = await rows.job("https://job.example/", ("call.completed",))
    call = await rows.call(job, "https://call.example/")
    await rows.record(rows.event("call.completed", job_id=job, call_id=call))

    found = made(await team.get(f"/webhooks/deliveries?job_id={job}"))["deliveries"]

    assert {(delivery["webhook_id"], delivery["url"]) for delivery in found} == {
        (None, "https://job.example/"),
        (None, "https://call.example/"),
    }


async def test_a_list_is_newest_first_page_by_page_with_its_true_total(team: Team, rows: Rows):
    endpoint = await rows.endpoint()
    newest_first = sorted([await delivered(rows) for _ in range(5)], reverse=True)

    first = await team.get(f"/webhooks/{webhook(endpoint)}/deliveries?limit=2")
    last = made(await team.get(f"/webhooks/{webhook(endpoint)}/deliveries?limit=2&offset=4"))

    assert [row["delivery_id"] for row in first.json()["deliveries"]] == [
        ids.prefixed("dlv", id_) for id_ in newest_first[:2]
    ]
    assert first.json()["total"] == last["total"] == 5
    assert 'rel="next"' in first.headers["Link"]
    assert len(last["deliveries"]) == 1


EARLY, LATE = "2026-01-15T12:00:00.250Z", "2100-01-01T00:00:00.000Z"
QUERIES: list[tuple[str, set[str]]] = [
    ("status=failing", {"failing"}),
    ("status=pending,EXHAUSTED", {"pending", "exhausted"}),
    ("status=pending&status=aborted", {"pending", "aborted"}),
    ("status=undelivered", set(STATES) - {"delivered"}),
    ("event_type=job.failed", {"aborted"}),
    ("event_type=job.*", {"aborted", "pending"}),
    ("event_type=*", set(STATES)),
    ("event_type=job.completed,webhook.*", {"pending", "discarded"}),
    ("event_id={event}", {"pending"}),
    ("job_id={job}", {"exhausted"}),
    ("types=job.failed", {"aborted"}),
    ("since={late}", {"delivered"}),
    ("until={early}", {"failing"}),
    ("since={early}&until={early}", {"failing"}),
    ("since=0001-01-01T00:00:00Z&until=9999-12-31T23:59:59Z", set(STATES)),
    ("status=undelivered&event_type=job.*", {"aborted", "pending"}),
]


async def one_in_each_state(rows: Rows, job: UUID) -> UUID:
    """Deliveries of events of several types; the failing one is old, the delivered one of the future. The job's is
    exhausted; returned is the event of the pending one."""
    types = {"pending": "job.completed", "aborted": "job.failed", "discarded": "webhook.endpoint.failing"}
    events = {state: rows.event(types.get(state, "call.failed")) for state in STATES}
    events["exhausted"] = rows.event("call.failed", job_id=job)
    times = {
        "failing": datetime.fromisoformat(EARLY) + timedelta(microseconds=400),
        "delivered": datetime.fromisoformat(LATE),
    }
    for state, made_ in zip(events, await rows.record(*events.values()), strict=True):
        old = {"created_at": times[state], "id": ids.earliest(times[state])} if state in times else {}
        await rows.change(made_, state=state, **old)
    return events["pending"].id


async def test_a_list_has_what_was_asked_for(team: Team, rows: Rows):
    endpoint = await rows.endpoint(events=("*", "webhook.endpoint.failing"))
    job = await rows.job()
    event = await one_in_each_state(rows, job)

    for query, states in QUERIES:
        asked = query.format(event=ids.prefixed("evt", event), job=job, early=EARLY, late=LATE)
        for path in (f"/webhooks/{webhook(endpoint)}/deliveries", "/webhooks/deliveries"):
            page = made(await team.get(f"{path}?{asked}"))
            assert {delivery["status"] for delivery in page["deliveries"]} == states, query
            assert page["total"] == len(states), query


async def test_an_unknown_word_in_a_list_is_refused(team: Team):
    words = "pending, delivered, failing, exhausted, aborted, discarded, undelivered"
    refused = refusal(await team.get("/webhooks/deliveries?status=lost"))
    assert refused == (400, f"Invalid status: lost. Must be one of: {words}")
    assert refusal(await team.get("/webhooks/deliveries?event_type=zzz")) == (400, "Unknown event type: zzz")
    refused = 400, "Invalid until format: zzz. Use ISO format (YYYY-MM-DD)"
    assert refusal(await team.get("/webhooks/deliveries?until=zzz")) == refused


@pytest.mark.parametrize("query", ["job_id=nonsense", "event_id=evt_nonsense", "trigger=manual"])
async def test_what_no_delivery_can_have_is_refused(team: Team, query: str):
    assert wrong_place(await team.get(f"/webhooks/deliveries?{query}")) == ["query", query.split("=", maxsplit=1)[0]]


async def test_examples_are_listed_only_when_asked_for(team: Team, rows: Rows):
    await rows.endpoint(events=("*",))
    dead = await delivered(rows, "exhausted")
    of_job = await delivered(rows, "exhausted", trigger="test")
    example = await delivered(rows, "exhausted", trigger="test", event_type="webhook.test")
    event = (await rows.delivery(example)).event_id
    asked = {
        "": {dead},
        "status=exhausted": {dead},
        "event_type=*": {dead},
        "trigger=test": {of_job, example},
        "status=exhausted&trigger=test": {of_job, example},
        "event_type=webhook.test": {example},
        f"event_id={ids.prefixed('evt', event)}": {example},
    }
    for query, found in asked.items():
        page = made(await team.get(f"/webhooks/deliveries?{query}"))
        assert {row["delivery_id"] for row in page["deliveries"]} == {ids.prefixed("dlv", id_) for id_ in found}, query
        assert page["total"] == len(found)
        assert {row["trigger"] for row in page["deliveries"]} == {"scheduled" if found == {dead} else "test"}


async def test_an_admin_names_the_team_of_a_list(scene: Scene, team: Team, rows: Rows):
    await rows.endpoint()
    await delivered(rows)
    admin = await person(scene, "user")

    async def asked(query: str) -> Any:
        own = {"Authorization": f"Bearer {admin.token}"}
        return await scene.client.get(f"/api/webhooks/deliveries{query}", headers=own)

    assert made(await asked(f"?team_id={team.id}"))["total"] == 1
    assert refusal(await asked("?team_id=nobody")) == (404, "Team 'nobody' not found")
    assert (await asked("")).json()["detail"][0]["loc"] == ["query", "team_id"]


async def test_one_delivery_shows_its_attempts_and_what_was_sent(team: Team, rows: Rows):
    await rows.endpoint()
    event = rows.event()
    [made_] = await rows.record(event)
    await attempt(rows, made_, 2, trigger="manual", status_code=200, duration_ms=7, response_head="thanks",
                  request_headers={"waybill-attempt": "2"})  # fmt: skip
    await attempt(rows, made_, 1, status_code=302, duration_ms=35, dns_ms=1, connect_ms=2, first_byte_ms=30,
                  error_class="http", error="answered 302", request_headers={"waybill-attempt": "1"},
                  response_headers={"location": "/x"}, redirect_target="/x")  # fmt: skip

    shown = made(await team.get(path_of(made_)))

    assert shown["request_body"] == event.body()
    assert shown["request_headers"] == {"waybill-attempt": "2"}
    first, second = shown["attempts"]
    del first["started_at"]
    assert first == {
        "attempt": 1, "trigger": "scheduled", "duration_ms": 35, "dns_ms": 1, "connect_ms": 2, "first_byte_ms": 30,
        "status_code": 302, "error_class": "http", "error": "answered 302", "response_headers": {"location": "/x"},
        "response_head": None, "redirect_target": "/x",
    }  # fmt: skip
    assert (second["attempt"], second["trigger"], second["response_head"]) == (2, "manual", "thanks")


async def test_one_delivery_shows_the_body_of_its_own(team: Team, rows: Rows):
    await rows.endpoint()
    shown = made(await team.get(path_of(await delivered(rows, body='{"in":"full"}'))))

    assert (shown["request_body"], shown["attempts"], shown["request_headers"]) == ('{"in":"full"}', [], None)


async def test_a_delivery_is_its_teams_own(scene: Scene, team: Team, rows: Rows):
    await rows.endpoint()
    made_ = await delivered(rows)
    other = await scene.team()

    for method, deed in (("GET", ""), ("POST", "/retry"), ("POST", "/cancel")):
        theirs = await other.send(method, path_of(made_, deed))
        assert refusal(theirs) == (403, "Delivery does not belong to your team")
        for unknown in (path_of(ids.new(), deed), f"/webhooks/deliveries/dlv_1{deed}"):
            assert refusal(await team.send(method, unknown)) == (404, "Delivery not found")
    assert (await rows.delivery(made_)).state == "pending"


async def test_a_retry_is_due_at_once_and_begins_the_schedule_again(scene: Scene, team: Team, rows: Rows):
    endpoint = await rows.endpoint()
    old = {"attempt_count": 3, "next_attempt_at": SOON, "delivered_at": AGO, "lease_expires_at": AGO}

    for state in STATES:
        made_ = await delivered(rows, state, **old)
        answer = await team.post(path_of(made_, "/retry"))

        goes_on_as = "pending" if state == "delivered" else "failing"
        assert answer.status_code == 202
        assert (answer.json()["status"], answer.json()["delivered_at"]) == (goes_on_as, None)
        row = await rows.delivery(made_)
        assert (row.state, row.trigger, row.schedule_from, row.attempt_count) == (goes_on_as, "manual", 3, 3)
        assert row.next_attempt_at <= (await scene.row("select app_now() as now")).now
        assert scene.rung[-1] == Deliver(ids=(endpoint,))


async def test_an_open_circuit_shows_when_it_is_tried_next_and_a_retry_closes_it(scene: Scene, team: Team, rows: Rows):
    endpoint = await rows.endpoint()
    waits = await delivered(rows, "failing", attempt_count=1, attempt=1)
    opened = await scene.row(
        """insert into delivery_queues (id, team_id, endpoint_id, open_s, open_until)
           values (:id, :team, :id, 900, now() + interval '900 s') returning open_until""",
        id=endpoint, team=team.id,
    )  # fmt: skip
    seen = (await team.get(f"/webhooks/{webhook(endpoint)}")).json()
    assert (seen["circuit"], seen["circuit_until"]) == ("open", iso(opened.open_until))
    (listed_,) = (await team.get(f"/webhooks/{webhook(endpoint)}/deliveries")).json()["deliveries"]
    assert [listed_["next_attempt_at"], (await team.get(path_of(waits))).json()["next_attempt_at"]] == [
        iso(opened.open_until)
    ] * 2

    assert (await team.post(path_of(waits, "/retry"))).status_code == 202
    seen = (await team.get(f"/webhooks/{webhook(endpoint)}")).json()
    assert (seen["circuit"], seen["circuit_until"]) == ("closed", None)


async def test_a_retry_of_what_was_never_tried_is_pending(team: Team, rows: Rows):
    await rows.endpoint()
    made_ = await delivered(rows, "discarded", last_error="the endpoint is disabled")

    assert (await team.post(path_of(made_, "/retry"))).json()["status"] == "pending"


async def test_a_callbacks_delivery_is_retried_in_its_queue(scene: Scene, team: Team, rows: Rows):
    job = await rows.job("https://job.example/")
    [made_] = await rows.record(rows.event(job_id=job))
    await rows.change(made_, state="exhausted", attempt_count=10)

    assert (await team.post(path_of(made_, "/retry"))).status_code == 202
    assert scene.rung[-1] == Deliver(ids=((await rows.delivery(made_)).queue_id,))


REFUSALS: list[tuple[Mapping[str, Any], Mapping[str, Any], str]] = [
    ({}, DISABLED, "The delivery's webhook is not active. Enable it first"),
    ({}, {**DISABLED, "deleted_at": AGO}, "The delivery's webhook was deleted"),
    ({"lease_expires_at": SOON}, {}, IN_FLIGHT),
    ({"trigger": "test", "body": "{}"}, {}, "A test is not sent again. Send a new one"),
    ({"event_id": ids.new()}, {}, "The delivery's event is no longer kept"),
]


async def test_a_retry_that_cannot_be_sent_says_why(scene: Scene, team: Team, rows: Rows):
    for delivery, endpoint, said in REFUSALS:
        hook = await rows.endpoint(events=("job.completed",))
        made_ = await delivered(rows, "failing", **delivery)
        await change_endpoint(rows, hook, **(endpoint or {"description": "as it was"}))
        before = await rows.delivery(made_)

        assert refusal(await team.post(path_of(made_, "/retry"))) == (409, said)
        assert await rows.delivery(made_) == before
        await change_endpoint(rows, hook, **DISABLED)
    assert not scene.rung


async def test_a_retry_that_is_asked_again_with_its_key_is_one(scene: Scene, team: Team, rows: Rows):
    await rows.endpoint()
    made_ = await delivered(rows, "exhausted")

    first = await team.post(path_of(made_, "/retry"), Idempotency_Key="k")
    await rows.change(made_, state="delivered")
    again = await team.post(path_of(made_, "/retry"), Idempotency_Key="k")

    assert again.json() == first.json()
    assert (await rows.delivery(made_)).state == "delivered"
    assert len(scene.rung) == 1


async def test_a_cancelled_delivery_is_discarded(team: Team, rows: Rows):
    await rows.endpoint()
    for state in ("pending", "failing"):
        made_ = await delivered(rows, state)
        shown = made(await team.post(path_of(made_, "/cancel")))

        assert (shown["status"], shown["last_error"], shown["next_attempt_at"]) == ("discarded", "cancelled", None)
        assert (await rows.delivery(made_)).state == "discarded"


async def test_what_is_under_way_or_has_ended_is_not_cancelled(team: Team, rows: Rows):
    await rows.endpoint()
    ended = [(state, None, f"Delivery has ended: it is {state}") for state in STATES[2:]]
    for state, lease, said in [("failing", SOON, IN_FLIGHT), *ended]:
        made_ = await delivered(rows, state, lease_expires_at=lease)

        assert refusal(await team.post(path_of(made_, "/cancel"))) == (409, said)
        assert (await rows.delivery(made_)).state == state


async def test_deliveries_of_a_deleted_endpoint_stay_in_the_teams_list(team: Team, rows: Rows):
    endpoint = await rows.endpoint()
    made_ = await delivered(rows)
    await change_endpoint(rows, endpoint, **DISABLED, deleted_at=AGO)

    assert await listed(team, "/webhooks/deliveries") == [ids.prefixed("dlv", made_)]
    assert refusal(await team.get(f"/webhooks/{webhook(endpoint)}/deliveries")) == (404, "Webhook not found")
