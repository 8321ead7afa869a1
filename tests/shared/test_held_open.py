"""A job that is held open for a cancel which never comes to its end is ended by its calls, only a little later."""

import pytest

from shared import ending, jobs
from tests.scene import Scene, Team, agrees, refused
from workers.sweeper import Sweep

ONE = [{"messages": [{"role": "user", "content": "x"}]}]


@pytest.fixture
async def team(scene: Scene) -> Team:
    return await scene.team()


async def held(scene: Scene, team: Team) -> tuple[str, str]:
    """A job that completes by itself, as the first step of its cancel leaves it."""
    job = await team.job(calls=ONE)
    async with scene.rt.db.hot_transaction() as tx:
        locked = await jobs.lock(tx, [job["job_id"]])
        await jobs.hold_open(tx, *locked, ending.HELD_OPEN_S)
    return job["job_id"], job["calls"][0]["call_id"]


@pytest.mark.parametrize(("completes", "status"), [(True, "completed"), (False, "failed")])
async def test_it_ends_as_its_calls_did_once_it_was_held_for_too_long(
    scene: Scene, team: Team, completes: bool, status: str
):
    job_id, call_id = await held(scene, team)
    scene.provider.steps = [] if completes else [refused("provider_bad_request", again="never")]
    await scene.work_on(call_id)
    await Sweep(rt=scene.rt).jobs_held_open()
    open_ = await team.read(job_id)
    assert (open_["status"], open_["auto_complete"], open_["credits_held"]) == ("in_progress", True, 1)

    async with scene.later(ending.HELD_OPEN_S + 1) as rt:
        assert await Sweep(rt=rt).jobs_held_open() == 1
        assert await Sweep(rt=rt).jobs_held_open() == 0

    ended = await team.read(job_id)
    assert (ended["status"], ended["credits_held"], ended["credits_charged"]) == (status, 0, int(completes))
    assert (await scene.events(job_id))[-1] == f"job.{status}"
    await agrees(scene, team)


async def test_the_end_of_its_last_call_ends_it_again_once_the_time_has_passed(scene: Scene, team: Team):
    job_id, call_id = await held(scene, team)
    async with scene.later(ending.HELD_OPEN_S + 1) as rt:
        assert await Sweep(rt=rt).jobs_held_open() == 1
    assert (await team.read(job_id))["status"] == "in_progress"
    await scene.work_on(call_id)
    assert (await team.read(job_id))["status"] == "completed"
