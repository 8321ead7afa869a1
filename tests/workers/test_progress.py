"""News of a job on its way: the newest counts, for who asked by name, and none once the job has ended."""

import asyncio
from typing import Any
from uuid import UUID

import orjson
import pytest

from shared.messages import Deliver
from tests.scene import HELLO, Scene, Team, refused
from workers.progress import Progress

HOOK = "http://127.0.0.1:8099/progress"
CALLS = [{"messages": HELLO}] * 3


@pytest.fixture
def progress(scene: Scene) -> Progress:
    return Progress(scene.rt)


async def told(scene: Scene, job_id: str) -> list[dict[str, int]]:
    """The counts of the job's news, oldest first."""
    found = await scene.rows(
        "select body from events where job_id = :id and type = 'job.progress' order by seq", id=UUID(job_id)
    )
    return [orjson.loads(row.body)["data"]["counts"] for row in found]


async def waiting(scene: Scene, job_id: str) -> list[tuple[str, str | None]]:
    """States of the deliveries of these news, oldest first, and why they are not sent."""
    found = await scene.rows(
        "select state, last_error from deliveries where job_id = :id and event_type = 'job.progress' order by event_id",
        id=UUID(job_id),
    )
    return [(row.state, row.last_error) for row in found]


async def watched(team: Team, **fields: Any) -> dict[str, Any]:
    """A job whose callback wants its progress."""
    return await team.job(callback_url=HOOK, callback_events=["job.progress", "job.completed"], **fields)


def counts(**some: int) -> dict[str, int]:
    return {"total": 3, "pending": 0, "in_progress": 0, "completed": 0, "failed": 0, "cancelled": 0, **some}


async def test_a_callback_hears_how_far_its_job_is(scene: Scene, progress: Progress):
    team = await scene.team()
    job = await watched(team, calls=CALLS)
    await progress.run()
    first, second = [call["call_id"] for call in job["calls"]][:2]
    claimed = await scene.worker.claim([UUID(first)])
    await progress.run()
    await asyncio.gather(*(scene.worker.run(call) for call in claimed))
    scene.provider.steps = [refused(again="never")]
    await scene.work_on(second)
    await progress.run()
    assert await told(scene, job["job_id"]) == [
        counts(pending=3), counts(pending=2, in_progress=1), counts(pending=1, completed=1, failed=1),
    ]  # fmt: skip
    assert await waiting(scene, job["job_id"]) == [
        ("discarded", "out_of_date"), ("discarded", "out_of_date"), ("pending", None),
    ]  # fmt: skip
    assert isinstance(scene.rung[-1], Deliver)
    await scene.events(job["job_id"])


async def test_a_subscribed_endpoint_hears_of_all_jobs_of_its_team_and_of_no_other(scene: Scene, progress: Progress):
    team, other = await scene.team(), await scene.team()
    hook = {"team_id": team.id, "webhook_url": HOOK, "events": ["job.progress"]}
    assert (await team.post("/webhooks/register", hook)).status_code == 200
    assert (await other.post("/webhooks/register", {**hook, "team_id": other.id, "events": ["*"]})).status_code == 200
    mine, theirs = await team.job(calls=CALLS), await other.job(calls=CALLS)
    await progress.run()
    [claimed] = await scene.worker.claim([UUID(mine["calls"][0]["call_id"])])
    await progress.run()
    assert await told(scene, mine["job_id"]) == [counts(pending=3), counts(pending=2, in_progress=1)]
    assert await told(scene, theirs["job_id"]) == [], "no glob means it"
    await scene.worker.run(claimed)


async def test_what_did_not_change_is_not_told_again(scene: Scene, progress: Progress):
    job = await watched(await scene.team(), calls=CALLS)
    await progress.run()
    await progress.run()
    empty = await watched(await scene.team())
    await progress.run()
    assert await told(scene, job["job_id"]) == [counts(pending=3)]
    assert await told(scene, empty["job_id"]) == []


async def test_nothing_comes_after_the_end_and_what_waits_is_dropped(scene: Scene, progress: Progress):
    team = await scene.team()
    job = await watched(team, calls=CALLS)
    await progress.run()
    assert (await team.post(f"/jobs/{job['job_id']}/cancel")).status_code == 200
    await progress.run()
    assert await told(scene, job["job_id"]) == [counts(pending=3)]
    assert await waiting(scene, job["job_id"]) == [("discarded", "out_of_date")]
    assert (await scene.events(job["job_id"]))[-1] == "job.cancelled"


async def test_a_job_that_ends_while_it_is_looked_at_is_not_told_of(scene: Scene, progress: Progress):
    team = await scene.team()
    job = await watched(team, calls=CALLS)
    await team.post(f"/jobs/{job['job_id']}/cancel")
    assert await progress._tell([UUID(job["job_id"])]) == 0


async def test_news_on_their_way_and_replayed_news_are_not_dropped(scene: Scene, progress: Progress):
    team = await scene.team()
    jobs = [await watched(team, calls=CALLS) for _ in range(3)]
    await progress.run()
    ways = ("lease_expires_at = app_now() + interval '9 s'", "replay_id = uuid7()", "trigger = 'manual'")
    for job, way in zip(jobs, ways, strict=True):
        await scene.rows(f"update deliveries set {way} where job_id = :id returning id", id=UUID(job["job_id"]))
        await team.post(f"/jobs/{job['job_id']}/cancel")
    await progress.run()
    assert [(await waiting(scene, job["job_id"]))[0][0] for job in jobs] == ["pending"] * 3


async def test_news_are_told_beside_a_job_that_ends_meanwhile(scene: Scene, progress: Progress):
    team = await scene.team()
    jobs = [await watched(team, calls=CALLS) for _ in range(4)]
    calls = [call["call_id"] for job in jobs for call in job["calls"]]
    await asyncio.gather(scene.work(calls), *(progress.run() for _ in range(3)))
    for job in jobs:
        await scene.events(job["job_id"])
