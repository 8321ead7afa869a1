"""Testing a webhook endpoint and its figures: an example is sent now, verification by it, and how deliveries went."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import orjson
import pytest
from standardwebhooks import Webhook

from shared import clock, event_types, ids
from tests.api.admin import made, refusal, wrong_place
from tests.scene import Scene, Team
from tests.sending import sending
from tests.waiting import until
from tests.workers.receiver import Receiver, receiving, response


@pytest.fixture
async def receiver(scene: Scene) -> AsyncIterator[Receiver]:
    async with receiving() as found, sending(scene):
        yield found


async def register(team: Team, receiver: Receiver | None = None, **fields: Any) -> dict[str, Any]:
    url = "http://127.0.0.1:9009/" if receiver is None else receiver.url()
    return made(await team.post("/webhooks", {"team_id": team.id, "webhook_url": url, **fields}))


async def send_test(team: Team, hook: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return made(await team.post(f"/webhooks/{hook['id']}/test", fields))


async def read(team: Team, hook: dict[str, Any]) -> dict[str, Any]:
    return made(await team.get(f"/webhooks/{hook['id']}"))


async def stats(team: Team, hook: dict[str, Any], query: str = "") -> dict[str, Any]:
    return made(await team.get(f"/webhooks/{hook['id']}/stats{query}"))


async def test_test_sends_a_signed_example_now_and_says_how_it_was_taken(scene: Scene, receiver: Receiver):
    receiver.answers[:] = [response(201, body=b"thank you")]
    team = await scene.team()
    hook = await register(team, receiver)

    told = await send_test(team, hook)

    (request,) = receiver.received
    body = orjson.loads(request.body)
    Webhook(hook["secret"]).verify(request.body, request.headers)
    assert (body["type"], body["team_id"], body["data"]["id"]) == ("webhook.test", team.id, hook["id"])
    assert (request.headers["webhook-id"], request.headers["waybill-delivery-id"]) == (body["id"], told["delivery_id"])
    assert (told["ok"], told["status_code"], told["response_head"], told["error"]) == (True, 201, "thank you", None)
    assert told["latency_ms"] >= 0
    assert await scene.rows("select 1 from events where team_id = :id", id=team.id) == []


async def test_test_sends_the_example_of_any_type(scene: Scene, receiver: Receiver):
    team = await scene.team()
    hook = await register(team, receiver, events=["credits.low"])
    types = ["job.completed", "call.failed", "job.progress", "webhook.delivery.exhausted"]
    for type_ in types:
        assert (await send_test(team, hook, type=type_))["ok"], type_
    assert [orjson.loads(request.body)["type"] for request in receiver.received] == types
    assert set(types) < set(event_types.ALL)


async def test_refused_test_says_so_and_is_not_sent_again(scene: Scene, receiver: Receiver):
    receiver.answers[:] = [response(500, body=b"broken")]
    team = await scene.team()
    hook = await register(team, receiver)

    told = await send_test(team, hook)

    assert (told["ok"], told["status_code"], told["response_head"]) == (False, 500, "broken")
    assert told["error"]
    (row,) = await scene.rows("select state from deliveries where team_id = :id", id=team.id)
    assert row.state == "exhausted"
    shown = await read(team, hook)
    assert (shown["failing_since"], shown["circuit"], shown["status"]) == (None, "closed", "active")


async def test_disabled_endpoint_can_be_tested(scene: Scene, receiver: Receiver):
    team = await scene.team()
    hook = await register(team, receiver, is_active=False)

    assert (await send_test(team, hook))["ok"]
    assert (await read(team, hook))["status"] == "disabled"


async def test_test_that_nobody_sends_ends_with_a_word(scene: Scene):
    team = await scene.team()
    hook = await register(team, timeout_s=1)
    asked = asyncio.create_task(send_test(team, hook))
    found = "select 1 from deliveries where team_id = :id"
    await until(lambda: scene.rows(found, id=team.id), "a test")
    scene.app.state.desk.waiters.is_closed = True

    told = await asked

    assert (told["ok"], told["status_code"], told["latency_ms"]) == (False, None, None)
    assert told["error"] == "nobody has sent it yet; its delivery shows how it ends"
    scene.app.state.desk.waiters.is_closed = False


async def test_type_without_an_example(scene: Scene):
    team = await scene.team()
    hook = await register(team)

    refused = await team.post(f"/webhooks/{hook['id']}/test", {"type": "job.*"})
    assert refusal(refused) == (400, "Unknown event type: job.*")
    assert wrong_place(await team.post(f"/webhooks/{hook['id']}/test", {"type": 5})) == ["body", "type"]


async def test_eleventh_test_of_a_minute_waits(scene: Scene):
    team = await scene.team()
    hook, other = await register(team), await register(team)
    insert = (
        "insert into deliveries (id, event_id, event_type, team_id, queue_id, endpoint_id, trigger, created_at) "
        "select uuid7(), uuid7(), 'webhook.test', :team, :id, :id, 'test', app_now() - make_interval(secs => n) "
        "from generate_series(11, 20) n returning 1"
    )
    await scene.rows(insert, team=team.id, id=ids.parse_prefixed("whe", hook["id"]))

    refused = await team.post(f"/webhooks/{hook['id']}/test")

    assert refusal(refused) == (429, "Too many tests of this webhook")
    assert int(refused.headers["retry-after"]) in {39, 40}
    scene.app.state.desk.waiters.is_closed = True  # nobody waits
    assert (await team.post(f"/webhooks/{other['id']}/test")).status_code == 200
    scene.app.state.desk.waiters.is_closed = False


async def test_test_that_is_asked_for_four_times_at_once_with_one_key_is_one(scene: Scene, receiver: Receiver):
    receiver.answers[:] = [response(201)]
    team = await scene.team()
    hook = await register(team, receiver)
    path = f"/webhooks/{hook['id']}/test"

    first, *others = await asyncio.gather(*(team.post(path, Idempotency_Key="once") for _ in range(4)))
    later = await team.post(path, Idempotency_Key="once")

    assert len(receiver.received) == 1
    assert made(first)["status_code"] == 201
    assert [again.json() for again in (*others, later)] == [first.json()] * 4
    assert later.headers["idempotent-replayed"] == "true"
    assert refusal(await team.post(path, {"type": "job.failed"}, Idempotency_Key="once"))[0] == 422


async def test_endpoint_is_active_once_it_has_taken_a_test(scene: Scene, receiver: Receiver):
    receiver.answers[:] = [response(500), response(204)]
    team = await scene.team()
    hook = await register(team, receiver, verify=True)
    await receiver.arrived.acquire()
    refused = "select 1 from deliveries where team_id = :id and state = 'exhausted'"
    await until(lambda: scene.rows(refused, id=team.id), "a refused test")
    assert (await read(team, hook))["status"] == "pending_verification"

    assert (await send_test(team, hook))["ok"]
    assert (await read(team, hook))["status"] == "active"


async def test_example_of_another_type_verifies_nothing(scene: Scene, receiver: Receiver):
    receiver.answers[:] = [response(500), response(200)]
    team = await scene.team()
    hook = await register(team, receiver, verify=True)
    await receiver.arrived.acquire()

    assert (await send_test(team, hook, type="job.failed"))["ok"]
    assert (await read(team, hook))["status"] == "pending_verification"


async def test_figures_of_an_endpoint_that_was_sent_nothing(scene: Scene):
    team = await scene.team()
    assert await stats(team, await register(team)) == {
        "success_rate": None, "deliveries": 0, "delivered": 0, "failing": 0, "exhausted": 0,
        "oldest_undelivered_age_s": None, "first_attempt_p50_ms": None, "first_attempt_p95_ms": None,
    }  # fmt: skip


async def add(scene: Scene, team: Team, hook: dict[str, Any], state: str, *, ago_s: float, **more: Any) -> None:
    """A delivery in this state, made `ago_s` before now; first tried `waited_ms` after that where it says so."""
    id_, made_id = ids.parse_prefixed("whe", hook["id"]), ids.new()
    values = {"trigger": "scheduled", "replay_id": None, **more}
    await scene.rows(
        "insert into deliveries (id, event_id, event_type, team_id, queue_id, endpoint_id, state, created_at, "
        "trigger, replay_id) values (:made, uuid7(), 'job.failed', :team, :id, :id, :state, "
        "app_now() - make_interval(secs => :ago), :trigger, :replay) returning 1",
        made=made_id, team=team.id, id=id_, state=state, ago=ago_s, trigger=values["trigger"],
        replay=values["replay_id"],
    )  # fmt: skip
    if "waited_ms" in values:
        await scene.rows(
            "insert into delivery_attempts (delivery_id, number, started_at) "
            "select id, 1, created_at + make_interval(secs => :s) from deliveries where id = :id returning 1",
            id=made_id, s=values["waited_ms"] / 1000,
        )  # fmt: skip


async def test_figures_tell_how_deliveries_went(scene: Scene):
    team = await scene.team()
    hook = await register(team)
    for waited_ms in (10, 20, 30):
        await add(scene, team, hook, "delivered", ago_s=10, waited_ms=waited_ms)
    await add(scene, team, hook, "failing", ago_s=60, waited_ms=40)
    await add(scene, team, hook, "exhausted", ago_s=10, waited_ms=50)
    await add(scene, team, hook, "pending", ago_s=20)
    await add(scene, team, hook, "discarded", ago_s=10)

    found = await stats(team, hook)

    assert (found["deliveries"], found["delivered"], found["failing"], found["exhausted"]) == (7, 3, 1, 1)
    assert found["success_rate"] == 0.6
    assert 60 <= found["oldest_undelivered_age_s"] < 70
    assert (found["first_attempt_p50_ms"], found["first_attempt_p95_ms"]) == (30, 48)


async def test_figures_leave_out_tests_and_first_tries_of_replays(scene: Scene):
    team = await scene.team()
    hook = await register(team)
    await add(scene, team, hook, "delivered", ago_s=10, trigger="test", waited_ms=9000)
    await add(scene, team, hook, "pending", ago_s=900, trigger="test")
    await add(scene, team, hook, "delivered", ago_s=10, replay_id=ids.new(), waited_ms=9000)
    await add(scene, team, hook, "delivered", ago_s=10, waited_ms=10)

    found = await stats(team, hook)

    assert (found["deliveries"], found["delivered"], found["oldest_undelivered_age_s"]) == (2, 2, None)
    assert (found["first_attempt_p50_ms"], found["first_attempt_p95_ms"]) == (10, 10)


async def test_figures_are_those_since_a_moment(scene: Scene):
    team = await scene.team()
    hook = await register(team)
    await add(scene, team, hook, "delivered", ago_s=100_000)
    await add(scene, team, hook, "delivered", ago_s=10)

    minute_ago = clock.iso(clock.now() - timedelta(minutes=1))
    assert (await stats(team, hook))["deliveries"] == 1
    assert (await stats(team, hook, "?since=2020-01-01"))["deliveries"] == 2
    assert (await stats(team, hook, f"?since={minute_ago}"))["deliveries"] == 1
    assert (await stats(team, hook, "?since=2999-01-01T00:00:00Z"))["deliveries"] == 0
    refused = refusal(await team.get(f"/webhooks/{hook['id']}/stats?since=yesterday"))
    assert refused == (400, "Invalid since format: yesterday. Use ISO format (YYYY-MM-DD)")
