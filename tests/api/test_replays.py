"""Replays: which events they mean, how their deliveries are made, and what an endpoint missed."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from shared import clock, ids, replays, webhook_endpoints
from shared.events import Event
from shared.messages import Deliver
from shared.replays import Filter, Piece
from tests.api.admin import made, refusal
from tests.api.replay_requests import FAST, SINCE_EVER, evt, hook_path, of, read, replay, replayed, states_of
from tests.scene import Scene, Team
from tests.shared.webhook_rows import Rows
from workers.replays import advance


@pytest.fixture
async def team(scene: Scene) -> Team:
    return await scene.team()


@pytest.fixture
def rows(scene: Scene, team: Team) -> Rows:
    return Rows(scene.rt, team.id)


async def test_a_jobs_history_goes_to_a_new_endpoint(scene: Scene, team: Team, rows: Rows):
    job = await rows.job()
    history = [rows.event(type_, job_id=job) for type_ in ("job.created", "job.started", "job.completed")]
    await rows.record(rows.event(), *history, rows.event("job.progress", job_id=job))
    new = await rows.endpoint(events=("job.failed",))

    started = await replay(team, new, job_id=str(job))

    assert (started["matched"], started["state"]) == (3, "running")
    assert await replayed(scene, new) == of(*history)
    assert Deliver(ids=(new,)) in scene.rung
    [first, *_] = made(await team.get(hook_path(new, "deliveries")))["deliveries"]
    assert (first["replay_id"], first["job_id"], first["status"]) == (started["replay_id"], str(job), "pending")
    triggers = await scene.rows("select distinct trigger, queue_id from deliveries where endpoint_id = :id", id=new)
    assert [tuple(row) for row in triggers] == [("replay", new)]


def aged(event: Event, days: int) -> Event:
    return replace(event, at=event.at - timedelta(days=days))


async def log_of(rows: Rows) -> dict[str, Event]:
    """Events of several types and times: what has a delivery to the endpoint is named by its state."""
    times = {"old": 3, "older": 5}
    types = {"call": "call.failed", "older": "job.failed"}
    names = ("older", "old", "delivered", "exhausted", "failing", "call", "unsent")
    return {name: aged(rows.event(types.get(name, "job.completed")), times.get(name, 0)) for name in names}


async def sent_to(rows: Rows, endpoint: UUID, log: dict[str, Event]) -> None:
    made_ = await rows.record(*log.values())
    for (name, _), delivery in zip(log.items(), made_, strict=True):
        if name == "unsent":
            await rows.change(delivery, event_id=ids.new())
        elif name in {"exhausted", "failing"}:
            await rows.change(delivery, state=name, attempt_count=2)
        else:
            await rows.change(delivery, state="delivered")


async def test_a_replay_means_what_its_filter_says(scene: Scene, team: Team, rows: Rows):
    endpoint = await rows.endpoint(events=("job.*", "call.failed"))
    log = await log_of(rows)
    await sent_to(rows, endpoint, log)
    at = {name: clock.iso(event.at) for name, event in log.items()}
    asked: list[tuple[dict[str, Any], Sequence[str]]] = [
        ({"since": SINCE_EVER}, list(log)),
        ({"since": SINCE_EVER, "types": ["call.*"]}, ["call"]),
        ({"since": SINCE_EVER, "types": ["job.failed", "call.failed"]}, ["older", "call"]),
        ({"types": ["*"], "until": at["old"]}, ["older", "old"]),
        ({"types": ["*"], "until": at["old"][:10]}, ["older", "old"]),
        ({"since": at["old"], "until": at["old"]}, ["old"]),
        ({"statuses": ["exhausted"]}, ["exhausted"]),
        ({"statuses": ["undelivered"]}, ["exhausted", "failing"]),
        ({"statuses": ["delivered"], "types": ["job.*"], "since": at["old"]}, ["old", "delivered"]),
        ({"event_ids": [evt(log["unsent"]), evt(log["older"]), evt(log["unsent"])]}, ["older", "unsent"]),
        ({"since": "2100-01-01T00:00:00Z"}, []),
        ({"until": "0001-01-01T00:00:00Z"}, []),
        ({"job_id": str(ids.new())}, []),
    ]

    for fields, names in asked:
        preview = made(await team.post(hook_path(endpoint), {"id_mode": "same", "dry_run": True, **fields}))
        ends = [evt(log[name]) for name in names]
        assert preview == {
            "matched": len(names), "first": ends[0] if ends else None, "last": ends[-1] if ends else None
        }, fields  # fmt: skip
        started = await replay(team, endpoint, **fields)
        assert started["matched"] == len(names), fields
        found = await scene.rows(
            "select event_id from deliveries where replay_id = :id",
            id=ids.parse_prefixed("rpl", started["replay_id"]),
        )
        assert {row.event_id for row in found} == {log[name].id for name in names}, fields
        assert (await read(team, started))["state"] == "finished"
        # The next one is to find the log as it was.
        await scene.rows("delete from deliveries where endpoint_id = :id returning 1", id=endpoint)
        await scene.rows("delete from events where team_id = :id returning 1", id=team.id)
        await sent_to(rows, endpoint, log)


async def test_a_dry_run_sends_nothing(scene: Scene, team: Team, rows: Rows):
    await rows.record(rows.event())
    endpoint = await rows.endpoint()

    made(await team.post(hook_path(endpoint), {"id_mode": "same", "dry_run": True, "since": SINCE_EVER}))

    assert await scene.rows("select id from replays where endpoint_id = :id", id=endpoint) == []
    await advance(scene.rt)
    assert await replayed(scene, endpoint) == []


async def test_what_a_replay_cannot_mean_is_refused(scene: Scene, team: Team, rows: Rows):
    theirs = Rows(scene.rt)
    await theirs.create_team()
    event = theirs.event()
    await theirs.record(event)
    endpoint = await rows.endpoint()

    async def asked(**fields: Any) -> tuple[int, Any]:
        status, detail = refusal(await team.post(hook_path(endpoint), fields))
        return status, detail if isinstance(detail, str) else (detail[0]["loc"], detail[0]["msg"])

    assert await asked(since=SINCE_EVER) == (422, (["body", "id_mode"], "field required"))
    assert await asked(id_mode="new", since=SINCE_EVER) == (422, (["body", "id_mode"], "not supported yet"))
    either = "give event_ids or one of since, until, types, job_id, statuses"
    assert await asked(id_mode="same") == (422, (["body"], either))
    alone = {"id_mode": "same", "event_ids": [evt(event)], "since": SINCE_EVER}
    no_others = "leave out since: event_ids cannot be combined with other filters"
    assert await asked(**alone) == (422, (["body", "since"], no_others))
    assert await asked(id_mode="same", event_ids=[evt(event)]) == (400, f"Unknown event: {evt(event)}")
    malformed = "Input should be an event's id, evt_ and 32 hex digits"
    assert await asked(id_mode="same", event_ids=["evt_1"]) == (422, (["body", "event_ids", 0], malformed))
    assert await asked(id_mode="same", job_id="1") == (422, (["body", "job_id"], "Input should be a valid UUID"))
    no_time = "must be a day or a time in ISO 8601, as in 2026-01-15T12:00:00Z"
    assert await asked(id_mode="same", until="zzz") == (422, (["body", "until"], no_time))
    assert await asked(id_mode="same", since=1768478723) == (422, (["body", "since"], no_time))
    assert await asked(id_mode="same", types=["zzz"]) == (400, "Unknown event type: zzz")
    assert (await asked(id_mode="same", statuses=["lost"]))[0] == 400


async def test_deliveries_are_made_at_the_rate_asked_for(scene: Scene, team: Team, rows: Rows):
    events = [rows.event() for _ in range(4)]
    await rows.record(*events)
    endpoint = await rows.endpoint()
    started = await replay(team, endpoint, since=SINCE_EVER, rate_per_s=0.1)
    counts = [len(await replayed(scene, endpoint))]

    for seconds in (5, 11, 1000, 1015, 1030):
        async with scene.later(seconds) as rt:
            await advance(rt)
            await advance(rt)
        counts.append(len(await replayed(scene, endpoint)))

    # A quarter of an hour without a timer is not made up for.
    assert counts == [1, 1, 2, 3, 4, 4]
    assert await replayed(scene, endpoint) == of(*events)
    assert (await read(team, started))["state"] == "finished"


async def test_two_timers_make_each_delivery_once(scene: Scene, team: Team, rows: Rows):
    events = [rows.event() for _ in range(20)]
    await rows.record(*events)
    endpoint = await rows.endpoint()
    answer = await team.post(hook_path(endpoint), {**FAST, "since": SINCE_EVER})

    assert sum(await asyncio.gather(*(advance(scene.rt) for _ in range(4)))) == 20
    # As after a step whose timer died before it could say so.
    await scene.rows(
        "update replays set state = 'running', next_seq = 0, made = 0 where endpoint_id = :id returning 1", id=endpoint
    )
    await advance(scene.rt)
    assert await replayed(scene, endpoint) == of(*events)
    assert (await read(team, answer.json()))["matched"] == 20


async def test_a_long_log_is_looked_at_piece_by_piece(scene: Scene, team: Team, rows: Rows):
    events = [rows.event("job.failed" if n % 5 == 4 else "job.created") for n in range(20)]
    await rows.record(*events)
    endpoint = await rows.endpoint()
    wanted = Filter(types=["job.failed"])
    steps = []

    async with scene.rt.db.transaction() as tx:
        found = await webhook_endpoints.get(tx, endpoint)
        assert found is not None
        piece = Piece(next_seq=1, until_seq=await replays.log_end(tx, team.id))
        matched = await replays.matched(tx, found, wanted, piece, at_once=3)
        started = await replays.create(tx, found, wanted, piece, matched=matched.count, rate_per_s=1000)
        while (held := await replays.hold(tx, started.id)) is not None:
            steps.append(await replays.make(tx, held, at_once=3))

    assert (matched.count, matched.first, matched.last) == (4, events[4].id, events[19].id)
    assert await replayed(scene, endpoint) == of(*events[4::5])
    assert steps == [0, 1, 0, 1, 1, 0, 1]


async def test_a_replay_waits_for_an_endpoint_that_does_not_keep_up(scene: Scene, team: Team, rows: Rows):
    endpoint = await rows.endpoint(events=("job.completed",))
    await rows.record(rows.event("job.failed"))
    waiting = await rows.record(*(rows.event() for _ in range(replays.LEAST_WAITING)))

    started = await replay(team, endpoint, types=["job.failed"], rate_per_s=10)
    assert await replayed(scene, endpoint) == []

    # What waits for a later attempt is not due, and not in the way.
    await rows.change(waiting[0], state="failing", next_attempt_at=text("app_now() + interval '1 hour'"))
    await advance(scene.rt)
    assert len(await replayed(scene, endpoint)) == 1
    assert (await read(team, started))["state"] == "finished"


async def test_a_replay_waits_for_a_full_queue(scene: Scene, team: Team, rows: Rows):
    await rows.record(rows.event())
    endpoint = await rows.endpoint()
    queue = """insert into delivery_queues (id, team_id, endpoint_id, is_full) values (:id, 't', :id, true)
                   on conflict (id) do update set is_full = true returning 1"""
    await scene.rows(queue, id=endpoint)

    await replay(team, endpoint, since=SINCE_EVER)
    assert await replayed(scene, endpoint) == []

    await scene.rows("update delivery_queues set is_full = false where id = :id returning 1", id=endpoint)
    await advance(scene.rt)
    assert len(await replayed(scene, endpoint)) == 1


async def test_what_still_waits_is_replaced_by_the_replay(scene: Scene, team: Team, rows: Rows):
    endpoint = await rows.endpoint()
    failing, sending, taken = rows.event(), rows.event(), rows.event()
    deliveries = await rows.record(failing, sending, taken)
    await rows.change(deliveries[0], state="failing", attempt_count=3)
    await rows.change(deliveries[1], lease_expires_at=text("app_now() + interval '1 minute'"))
    await rows.change(deliveries[2], state="delivered")

    started = await replay(team, endpoint, since=SINCE_EVER)

    replaced = ("discarded", f"replaced by replay {started['replay_id']}")
    assert await states_of(scene, failing) == [replaced, ("pending", None)]
    assert await states_of(scene, sending) == [("pending", None), ("pending", None)]
    assert await states_of(scene, taken) == [("delivered", None), ("pending", None)]


async def test_a_replay_tells_what_became_of_its_deliveries(scene: Scene, team: Team, rows: Rows):
    await rows.record(*(rows.event() for _ in range(6)))
    endpoint = await rows.endpoint()
    started = await replay(team, endpoint, since=SINCE_EVER)
    found = await scene.rows("select id from deliveries where endpoint_id = :id", id=endpoint)
    for row, state in zip(found, ("delivered", "failing", "exhausted"), strict=False):
        await rows.change(row.id, state=state, attempt_count=1)
    await rows.change(found[3].id, state="discarded")

    shown = await read(team, started)

    assert (shown["matched"], shown["sent"], shown["delivered"], shown["failing"]) == (6, 3, 1, 2)
    assert (shown["waiting"], shown["discarded"]) == (2, 1)
    assert (shown["state"], shown["webhook_id"], shown["rate_per_s"]) == (
        "finished",
        ids.prefixed("whe", endpoint),
        1000,
    )
    assert shown["finished_at"] >= shown["created_at"]


OPEN = """
insert into delivery_queues (id, team_id, endpoint_id, open_s, open_until)
values (:id, :team, :id, 900, now() + interval '900 s') returning id
"""


async def test_recover_sends_what_was_not_delivered(scene: Scene, team: Team, rows: Rows):
    endpoint = await rows.endpoint(events=("job.*", "call.failed"))
    log = await log_of(rows)
    await sent_to(rows, endpoint, log)
    unwanted = rows.event("call.completed")
    await rows.record(unwanted)

    await scene.rows(OPEN, id=endpoint, team=team.id)
    body = {"since": SINCE_EVER, "rate_per_s": 1000}
    answer = await team.post(hook_path(endpoint, "recover"), body)
    again = await team.post(hook_path(endpoint, "recover"), body)
    waiting = (await read(team, answer.json()))["waiting"]
    await advance(scene.rt)

    assert answer.status_code == 202
    assert (answer.json()["matched"], waiting) == (3, 3)
    assert again.json() == answer.json(), "who asks twice is not sent everything twice"
    assert (await scene.row("select open_s from delivery_queues where id = :id", id=endpoint)).open_s == 0
    assert await replayed(scene, endpoint) == of(log["exhausted"], log["failing"], log["unsent"])


async def test_recover_goes_back_as_far_as_deliveries_are_kept(scene: Scene, team: Team, rows: Rows):
    days = scene.rt.settings.delivery_retention_days
    kept, gone = (aged(rows.event(), age) for age in (days - 1, days + 1))
    await rows.record(gone, kept)
    endpoint = await rows.endpoint()

    await team.post(hook_path(endpoint, "recover"), {"since": SINCE_EVER, "rate_per_s": 1000})
    await advance(scene.rt)

    assert await replayed(scene, endpoint) == of(kept)


async def test_an_endpoint_that_is_not_active_gets_no_replay(scene: Scene, team: Team, rows: Rows):
    await rows.record(rows.event())
    endpoint = await rows.endpoint()
    answer = await team.post(hook_path(endpoint), {**FAST, "since": SINCE_EVER})
    await scene.rows("update webhook_endpoints set status = 'disabled' where id = :id returning 1", id=endpoint)

    for deed, body in (("replay", {**FAST, "since": SINCE_EVER}), ("recover", {"since": SINCE_EVER})):
        refused = refusal(await team.post(hook_path(endpoint, deed), body))
        assert refused == (409, "Webhook is not active. Enable it first")
    await advance(scene.rt)

    assert await replayed(scene, endpoint) == []
    assert (await read(team, answer.json()))["state"] == "cancelled"


async def test_a_cancelled_replay_makes_no_more(scene: Scene, team: Team, rows: Rows):
    await rows.record(rows.event(), rows.event())
    endpoint = await rows.endpoint()
    started = await replay(team, endpoint, since=SINCE_EVER, rate_per_s=0.1)
    path = f"/webhooks/replays/{started['replay_id']}/cancel"

    cancelled = made(await team.post(path))
    async with scene.later(60) as rt:
        await advance(rt)

    assert (cancelled["state"], cancelled["finished_at"] is not None) == ("cancelled", True)
    assert len(await replayed(scene, endpoint)) == 1
    assert refusal(await team.post(path)) == (409, "Replay is not running")


async def test_an_endpoint_has_few_replays_at_a_time(team: Team, rows: Rows):
    endpoint = await rows.endpoint()
    body = {**FAST, "since": SINCE_EVER}
    answers = [await team.post(hook_path(endpoint), body) for _ in range(6)]

    assert [answer.status_code for answer in answers] == [202] * 5 + [409]
    started = [answer.json()["replay_id"] for answer in answers[:5]]
    page = await team.get(hook_path(endpoint, "replays?limit=2&offset=1"))
    assert [row["replay_id"] for row in made(page)["replays"]] == started[::-1][1:3]
    assert (page.json()["total"], 'rel="next"' in page.headers["Link"]) == (5, True)


async def test_a_replay_asked_for_again_with_its_key_is_one(scene: Scene, team: Team, rows: Rows):
    endpoint = await rows.endpoint()
    body = {**FAST, "since": SINCE_EVER}
    first, again = [await team.post(hook_path(endpoint), body, Idempotency_Key="k") for _ in range(2)]

    assert (again.status_code, again.json()) == (202, first.json())
    assert len(await scene.rows("select id from replays where endpoint_id = :id", id=endpoint)) == 1


async def test_a_replay_is_its_teams_own(scene: Scene, team: Team, rows: Rows):
    endpoint = await rows.endpoint()
    answer = await team.post(hook_path(endpoint), {**FAST, "since": SINCE_EVER})
    other = await scene.team()

    path = f"/webhooks/replays/{answer.json()['replay_id']}"
    for method, path_ in (("GET", path), ("POST", f"{path}/cancel")):
        assert refusal(await other.send(method, path_)) == (403, "Replay does not belong to your team")
    assert refusal(await team.get("/webhooks/replays/rpl_1")) == (404, "Replay not found")
    theirs = refusal(await other.get(hook_path(endpoint, "replays")))
    assert theirs == (403, "Webhook does not belong to your team")
    for deed in ("replay", "recover"):
        refused = refusal(await other.post(hook_path(endpoint, deed), {**FAST, "since": SINCE_EVER}))
        assert refused == (403, "Webhook does not belong to your team")
