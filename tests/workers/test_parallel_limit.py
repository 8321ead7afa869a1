"""max_parallel_calls: never more of a team's calls at once, whoever claims; the others wait and all of them run."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

from shared import waiting_calls
from shared.messages import RunCalls
from shared.states import Outcome
from tests.scene import Scene, Team, refused
from workers.calls import Calls
from workers.dispatcher import Dispatcher


@pytest.fixture
def database_url(fresh_database_url: str) -> str:
    """One of this test's own: the dispatcher and the queue are everybody's."""
    return fresh_database_url


async def limited(scene: Scene, most: int | None) -> Team:
    team = await scene.team()
    await set_limit(scene, team, most)
    return team


async def set_limit(scene: Scene, team: Team, most: int | None) -> None:
    await scene.rows("update teams set max_parallel_calls = :most where id = :id returning id", most=most, id=team.id)


async def made(scene: Scene, team: Team, calls: int, **fields: object) -> list[UUID]:
    """Calls of one new job, oldest first."""
    job = await team.job(calls=[{"messages": [{"role": "user", "content": "Hello"}]}] * calls, **fields)
    return [UUID(call["call_id"]) for call in job["calls"]]


async def states(scene: Scene, team: Team) -> dict[str, int]:
    rows = await scene.rows("select state, count(*) as n from calls where team_id = :id group by state", id=team.id)
    return {row.state: row.n for row in rows}


def rung(scene: Scene) -> list[UUID]:
    return [id_ for message in scene.rung if isinstance(message, RunCalls) for id_ in message.ids]


@asynccontextmanager
async def watched(scene: Scene, team: Team, most: int) -> AsyncIterator[list[int]]:
    """How many of the team's calls were at the provider at each moment one more came."""
    at_once: list[int] = []
    asked = scene.provider.complete
    running: set[UUID] = set()

    async def complete(call, *, timeout_s, sink=None):
        running.add(call.id)
        at_once.append(len(running))
        try:
            await asyncio.sleep(0.01)
            return await asked(call, timeout_s=timeout_s)
        finally:
            running.discard(call.id)

    scene.provider.complete = complete
    yield at_once
    assert max(at_once, default=0) <= most


async def test_two_workers_that_claim_at_once_never_hold_more_than_the_limit(scene: Scene):
    team = await limited(scene, 3)
    calls = await made(scene, team, 12)
    workers = [Calls(scene.rt, scene.provider, f"unit-{n}") for n in range(4)]

    claimed = await asyncio.gather(*(workers[n % 4].claim([call]) for n, call in enumerate(calls)))

    assert sum(len(won) for won in claimed) == 3
    assert await states(scene, team) == {"pending": 9, "in_progress": 3}
    held = await scene.rows(
        "select id from calls where team_id = :id and state = 'pending' and rung_at is null", id=team.id
    )
    assert len(held) == 9, "they wait for their turn, not for a bell that was rung already"


async def test_the_first_and_most_urgent_are_claimed_first(scene: Scene):
    team = await limited(scene, 2)
    low = await made(scene, team, 2)
    high = await made(scene, team, 2, priority=5)

    won = await scene.worker.claim([*low, *high])
    assert {call.id for call in won} == set(high)


async def test_all_calls_of_a_limited_team_finish_and_none_beside_the_limit(scene: Scene):
    scene.live = True
    team = await limited(scene, 2)
    async with watched(scene, team, 2) as at_once:
        job = await team.job(calls=[{"messages": [{"role": "user", "content": "Hello"}]}] * 15)
        done = await team.get(f"/jobs/{job['job_id']}?wait=30")

    assert done.json()["status"] == "completed"
    assert len(at_once) == 15
    assert max(at_once) == 2


async def test_the_next_call_is_rung_when_one_ends_also_when_it_fails(scene: Scene):
    team = await limited(scene, 1)
    first, second, third = await made(scene, team, 3)
    assert rung(scene) == [first]

    await scene.work([first])
    assert rung(scene) == [first, second]
    scene.provider.steps = [refused("provider_auth", again="never", outcome=Outcome.FAILED)]
    await scene.work([second])
    assert rung(scene) == [first, second, third]


async def test_the_dispatcher_rings_for_a_limited_team_only_as_far_as_it_has_room(scene: Scene):
    team = await limited(scene, 5)
    calls = await made(scene, team, 8)
    won = await scene.worker.claim(calls[:2])
    assert len(won) == 2
    await set_limit(scene, team, 7)
    scene.rung.clear()

    await Dispatcher(scene.rt).tick()
    mine = set(rung(scene)) & set(calls)
    assert mine == set(calls[5:7]), "two run, three were rung when they came, two more fit"
    scene.rung.clear()
    await Dispatcher(scene.rt).tick()
    assert set(rung(scene)) & set(calls) == set()


async def test_no_call_runs_while_the_limit_is_zero_and_all_do_once_it_is_gone(scene: Scene):
    team = await limited(scene, 0)
    calls = await made(scene, team, 3)
    assert rung(scene) == []
    assert await scene.worker.claim(calls) == []
    await Dispatcher(scene.rt).tick()
    assert set(rung(scene)) & set(calls) == set()

    await set_limit(scene, team, None)
    await Dispatcher(scene.rt).tick()
    assert set(calls) <= set(rung(scene))
    assert len(await scene.worker.claim(calls)) == 3


async def test_calls_of_others_in_the_same_bell_are_claimed(scene: Scene):
    team, other = await limited(scene, 1), await scene.team()
    held = await made(scene, team, 2)
    free = await made(scene, other, 2)

    won = await scene.worker.claim([*held, *free])
    assert {call.id for call in won} == {held[0], *free}


async def test_a_team_row_that_somebody_keeps_locked_delays_no_other_team(scene: Scene):
    team, other = await limited(scene, 1), await scene.team()
    [held], [free] = await made(scene, team, 1), await made(scene, other, 1)

    async with scene.rt.db.transaction() as tx:
        assert await waiting_calls.lock_limited(tx, [held]) == [team.id]
        waiting = asyncio.create_task(scene.worker.claim([held]))
        won = await scene.worker.claim([free])
        assert [call.id for call in won] == [free]
        assert not waiting.done()
    assert [call.id for call in await waiting] == [held]


async def test_what_is_rung_late_has_lacked_a_worker_only_since_then(scene: Scene):
    team = await limited(scene, 1)
    first, second = await made(scene, team, 2)
    await scene.rows("update calls set run_at = run_at - interval '1 hour' where id = :id returning id", id=second)
    await scene.work([first])

    row = await scene.row(
        "select app_now() - run_at < interval '1 minute' as recent from calls where id = :id", id=second
    )
    assert row.recent
