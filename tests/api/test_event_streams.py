"""The event log as it comes: what is there, then what happens, for as long as the client listens."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import orjson
import pytest

from api.streams import Pace
from shared import clock, ids, outbox
from shared.db import Database
from shared.events import Event
from shared.runtime import Runtime
from tests import scene as scenes
from tests.api.admin import refusal
from tests.api.batch_requests import batch_of, items, run, tended, uuid_of
from tests.api.listening import Listener, following, listening
from tests.scene import HELLO, Scene, Team

STREAM = "text/event-stream"
JOB = ["job.created", "job.started", "call.completed", "job.completed"]


@pytest.fixture
async def team(scene: Scene) -> Team:
    return await scene.team()


def stream(team: Team, path: str = "/events", **headers: str) -> Any:
    return listening(team.scene, team.key, "GET", path, Accept=STREAM, **headers)


def told(heard: Listener) -> list[dict[str, Any]]:
    return heard.chunks


def types_of(heard: Listener) -> list[str]:
    return [event["type"] for event in told(heard)]


async def ended_job(team: Team) -> str:
    body = {"team_id": team.id, "job_type": "test", "calls": [{"messages": HELLO}], "auto_complete": True}
    ended = await team.post("/jobs/create", body, Prefer="wait=10")
    assert ended.status_code == 200, ended.text
    found: str = ended.json()["job_id"]
    return found


async def events(team: Team, query: str = "") -> list[dict[str, Any]]:
    answer = await team.get(f"/events?limit=1000&{query}")
    found: list[dict[str, Any]] = answer.json()["events"]
    return found


def patient(scene: Scene, **pace: float) -> None:
    """Change how long streams wait."""
    scene.app.state.desk = replace(scene.app.state.desk, pace=Pace(**pace))


async def recorded(scene: Scene, team: Team, count: int, *, size: int = 1) -> list[UUID]:
    """So many events of the team at once, their ids."""
    made = [
        Event(
            id=ids.new(), type="credits.low", team_id=team.id, job_id=None, subject_id=None, sequence=None,
            at=clock.now(), data={"id": team.id, "text": "x" * size},
        )
        for _ in range(count)
    ]  # fmt: skip
    async with scene.rt.db.transaction() as tx:
        await outbox.record(tx, made)
    return [event.id for event in made]


def heard_ids(heard: Listener) -> list[UUID | None]:
    return [ids.parse_prefixed("evt", event["id"]) for event in told(heard)]


async def test_a_stream_tells_what_is_there_and_then_what_comes(team: Team):
    await team.job()
    async with stream(team) as heard:
        await heard.until(1)
        await ended_job(team)
        await heard.until(5)
        assert types_of(heard) == ["job.created", *JOB]
        assert told(heard) == await events(team)
    assert (heard.status, heard.answered["content-type"]) == (200, f"{STREAM}; charset=utf-8")
    assert (heard.answered["cache-control"], heard.answered["x-accel-buffering"]) == ("no-cache", "no")


async def test_every_byte_of_a_frame_is_as_documented(scene: Scene, team: Team):
    await team.job()
    row = await scene.row("select id, body from events where team_id = :id", id=team.id)
    async with stream(team) as heard:
        await heard.until(1)
    assert heard.raw == f"id: {ids.prefixed('evt', row.id)}\nevent: job.created\ndata: {row.body}\n\n".encode()


async def test_a_client_that_comes_again_gets_what_came_after_its_last_event(team: Team):
    await ended_job(team)
    known = await events(team)
    async with stream(team, Last_Event_ID=known[1]["id"]) as heard:
        await heard.until(2)
    assert told(heard) == known[2:]
    async with stream(team, f"/events?after={known[2]['id']}") as heard:
        await heard.until(1)
    assert told(heard) == known[3:]


async def test_a_stream_is_filtered_like_a_page_live_and_from_the_log(team: Team):
    query = "types=call.*"
    await ended_job(team)
    async with stream(team, f"/events?{query}") as heard:
        await heard.until(1)
        await ended_job(team)
        await heard.until(2)
    assert told(heard) == await events(team, query)
    assert types_of(heard) == ["call.completed"] * 2


async def test_what_refuses_a_stream_is_an_ordinary_answer(team: Team):
    for path, expected in (
        ("/events?after=evt_x", (400, "Invalid cursor")),
        ("/events?types=zzz", (400, "Unknown event type: zzz")),
        (f"/jobs/{UUID(int=7)}/events", (404, "Job not found")),
    ):
        assert refusal(await team.get(path, Accept=STREAM)) == expected
    for query in ("delivered=false", "until=2026-01-01"):
        assert (await team.get(f"/events?{query}", Accept=STREAM)).status_code == 422


@pytest.mark.parametrize("accept", ["*/*", "application/json", f"{STREAM};q=0.5, application/json", f"{STREAM};q=0"])
async def test_who_does_not_ask_for_a_stream_gets_a_page(team: Team, accept: str):
    assert (await team.get("/events", Accept=accept)).json()["events"] == []


async def test_a_jobs_stream_ends_with_its_final_event(team: Team):
    job_id = (await team.job())["job_id"]
    async with stream(team, f"/jobs/{job_id}/events") as heard:
        await heard.until(1)
        await team.post(f"/jobs/{job_id}/llm-call", {"messages": HELLO})
        await team.job()
        await team.complete(job_id)
        await heard.finish()
    assert types_of(heard) == JOB
    assert told(heard) == await events(team, f"job_id={job_id}")


async def test_who_has_the_final_event_is_told_not_to_come_again(team: Team):
    job_id = await ended_job(team)
    path = f"/jobs/{job_id}/events"
    known = await events(team)
    again = await team.get(path, Accept=STREAM, Last_Event_ID=known[-1]["id"])
    assert (again.status_code, again.content) == (204, b"")
    async with stream(team, path, Last_Event_ID=known[2]["id"]) as heard:
        await heard.finish()
    assert types_of(heard) == ["job.completed"]


async def test_a_jobs_stream_ends_though_its_final_event_is_not_wanted(team: Team):
    job_id = (await team.job())["job_id"]
    async with stream(team, f"/jobs/{job_id}/events?types=call.*") as heard:
        await team.post(f"/jobs/{job_id}/llm-call", {"messages": HELLO})
        await team.complete(job_id)
        await heard.finish()
    assert types_of(heard) == ["call.completed"]
    call = told(heard)[0]["id"]
    again = await team.get(f"/jobs/{job_id}/events?types=call.*", Accept=STREAM, Last_Event_ID=call)
    assert again.status_code == 204


async def test_a_batchs_stream_ends_with_the_end_of_the_batch_that_comes_after_its_jobs(scene: Scene, team: Team):
    async with tended(scene) as unit:
        batch = await batch_of(team, "a")
        scene.tend = None
        path = f"/jobs/{batch['job_id']}/events"
        async with stream(team, path) as heard, stream(team, f"{path}?types=batch.*") as choosy:
            await run(team, batch)
            await heard.until(3)
            async with stream(team, path, Last_Event_ID=told(heard)[-1]["id"]) as again:
                await following(scene, 3)
                await unit.take([uuid_of(batch)])
                for one in (heard, choosy, again):
                    await one.finish()
    assert types_of(heard) == ["job.created", "job.started", "job.completed", "batch.completed"]
    assert types_of(choosy) == types_of(again) == ["batch.completed"]
    after = await team.get(path, Accept=STREAM, Last_Event_ID=told(heard)[-1]["id"])
    assert (after.status_code, after.content) == (204, b"")


async def test_the_stream_of_a_refused_batch_tells_both_ends(scene: Scene, team: Team):
    async with tended(scene):
        batch = await batch_of(team, requests=[*items(team, "a"), *items(team, "a")])
        async with stream(team, f"/jobs/{batch['job_id']}/events") as heard:
            await heard.finish()
    assert types_of(heard) == ["job.created", "job.failed", "batch.failed"]


async def test_silence_is_filled_with_pings(scene: Scene, team: Team):
    patient(scene, silence_s=0.05)
    async with stream(team) as heard:
        await heard.until(2)
        assert set(heard.frames) == {b": ping"}
        await team.job()
        while not told(heard):
            await heard.until(len(heard.frames) + 1)


async def test_a_client_that_left_is_followed_for_no_more(scene: Scene, team: Team):
    async with stream(team):
        await following(scene, 1)
    await following(scene, 0)


async def test_a_slow_reader_gets_all_in_order_and_holds_up_nobody(scene: Scene, team: Team):
    async with stream(team) as slow, stream(team) as quick:
        await following(scene, 2)
        first = await recorded(scene, team, 1)
        await slow.until(1)
        slow.can_take.clear()
        made = [*first, *await recorded(scene, team, 150), *await recorded(scene, team, 250, size=5000)]
        await quick.until(len(made))
        assert len(slow.frames) == 1
        slow.can_take.set()
        await slow.until(len(made))
    assert heard_ids(quick) == heard_ids(slow) == made


async def test_a_reader_that_takes_nothing_is_dropped(scene: Scene, team: Team):
    patient(scene, send_s=0.05)
    await team.job()
    async with stream(team) as heard:
        heard.can_take.clear()
        await following(scene, 0)
    assert not heard.is_over


@pytest.fixture
async def losing(runtime: Runtime) -> AsyncIterator[Scene]:
    """A scene whose connections may be ended: nobody else has any of that name."""
    db = Database(runtime.settings.database_url, pool=4, name="waybill-losing")
    async with scenes.opened(replace(runtime, db=db)) as scene:
        scene.live = True
        yield scene
    await db.close()


async def test_a_stream_outlives_its_database(losing: Scene):
    patient(losing, silence_s=0.1)
    team = await losing.team()
    async with stream(team) as heard:
        await team.job()
        await heard.until(1)
        for _ in range(3):
            await losing.rows(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = 'waybill-losing' and pid <> pg_backend_pid()"
            )
            await asyncio.sleep(0.02)
        made = await recorded(losing, team, 3)
        while len(told(heard)) < 4:
            await heard.until(len(heard.frames) + 1)
    assert heard_ids(heard)[1:] == made


async def test_a_process_that_closes_says_when_to_come_again(scene: Scene, team: Team):
    async with stream(team) as heard:
        await following(scene, 1)
        await scene.app.state.desk.log.close()
        await heard.finish()
    assert re.fullmatch(rb"retry: [123]\d{3}\n\n", heard.raw)


async def test_many_streams_are_told_by_one_look(scene: Scene, team: Team):
    other = await scene.team()
    open_ = [stream(team if n % 2 else other) for n in range(60)]
    listeners: Sequence[Listener] = [await one.__aenter__() for one in open_]
    await following(scene, 60)
    made = await recorded(scene, team, 2)
    for heard in listeners[1::2]:
        await heard.until(2)
        assert heard_ids(heard) == made
    assert not any(heard.frames for heard in listeners[::2])
    for one in open_:
        await one.__aexit__(None, None, None)


async def test_a_head_request_gets_the_head(team: Team):
    async with listening(team.scene, team.key, "HEAD", "/events", Accept=STREAM) as heard:
        await heard.finish()
    assert (heard.status, heard.raw) == (200, b"")


async def test_push_pull_and_stream_tell_the_same(scene: Scene, team: Team):
    body = {"team_id": team.id, "webhook_url": "http://127.0.0.1:9999/hook", "events": ["job.*"]}
    webhook = (await team.post("/webhooks/register", body)).json()["webhook_id"]
    async with stream(team, "/events?types=job.*") as heard:
        for _ in range(3):
            await ended_job(team)
        await heard.until(9)
    pulled = await events(team, "types=job.*")
    rows = await scene.rows(
        "select e.body from deliveries d join events e on e.id = d.event_id where d.endpoint_id = :id order by e.seq",
        id=ids.parse_prefixed("whe", webhook),
    )
    assert told(heard) == pulled == [orjson.loads(row.body) for row in rows]
