"""Claiming on a unit: nobody in a bell waits for another's team, and what is cancelled meanwhile never starts."""

import asyncio
from uuid import UUID

import pytest

from shared import waiting_calls
from shared.calls import Claimed
from tests import scene as scenes
from tests.scene import Scene, Team
from tests.waiting import until
from workers.pool import LoopLag, Pool


@pytest.fixture
async def team(scene: Scene) -> Team:
    return await scene.team()


async def made(scene: Scene, team: Team, *, limit: int | None = None) -> UUID:
    """A waiting call of a team that may run so many at once."""
    await scene.rows("update teams set max_parallel_calls = :most where id = :id returning id", most=limit, id=team.id)
    return UUID(await team.call((await team.job())["job_id"]))


async def test_no_call_of_a_bell_waits_for_the_row_of_anothers_team(scene: Scene, team: Team):
    held, free = await made(scene, team, limit=1), await made(scene, await scene.team())
    limited = await made(scene, await scene.team(), limit=1)
    ran: list[UUID] = []

    async def run(call: Claimed) -> None:
        ran.append(call.id)

    async def others_ran() -> bool:
        return {*ran} == {free, limited}

    pool = Pool(limit=9, lag=LoopLag(), claim=scene.worker.claim, run=run)
    assert pool.reserve(3)
    async with scene.rt.db.transaction() as tx:
        assert await waiting_calls.lock_limited(tx, [held]) == [team.id]
        taking = asyncio.create_task(pool.take([held, free, limited]))
        await until(others_ran, "the others of the bell run", timeout_s=2.5)
        assert not taking.done()
    await taking
    await pool.drain(10, lambda _: None)
    assert ran[2:] == [held]


async def test_a_cancel_that_comes_before_the_claim_is_known_stops_the_call(scene: Scene, team: Team):
    call_id = await made(scene, team)
    claiming = asyncio.create_task(scene.worker.claim([call_id]))
    await asyncio.sleep(0)
    scene.worker.cancel([call_id])
    [call] = await claiming
    await scene.worker.run(call)
    assert scene.provider.asked == []


async def test_a_worker_that_stood_still_for_longer_than_the_lease_asks_nothing(runtime):
    async with scenes.opened(runtime, lease_s=0) as scene:
        call_id = await made(scene, await scene.team())
        await scene.work([call_id])
        assert scene.provider.asked == []
        assert scene.worker.held == set()
