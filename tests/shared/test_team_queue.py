"""How many calls of a team may wait: exact for small limits whoever submits, refused whole, counted cheaply else."""

import asyncio

import pytest

from shared import intake, team_queue
from shared.errors import TooManyRequests
from shared.intake import Accepted, Submission
from shared.messages import RunCalls
from shared.team_queue import Depths
from tests.scene import Scene, Team
from tests.shared.test_intake import new_call, new_job


def submission(team: Team, *, calls: int = 1, most: int | None = None, parallel: int | None = None) -> Submission:
    """A new job with calls, of a team with these limits."""
    job = new_job(team)
    return Submission(
        job_id=job.id,
        team_id=team.id,
        new_job=job,
        calls=[new_call(team, job.id) for _ in range(calls)],
        max_queued_calls=most,
        max_parallel_calls=parallel,
    )


@pytest.fixture
def database_url(fresh_database_url: str) -> str:
    """One of this test's own: the dispatcher and the queue are everybody's."""
    return fresh_database_url


async def limited_team(scene: Scene, **limits: int) -> Team:
    team = await scene.team()
    for name, value in limits.items():
        await scene.rows(f"update teams set {name} = :value where id = :id returning id", value=value, id=team.id)
    return team


async def waiting(scene: Scene, team: Team) -> int:
    found = await scene.row("select count(*) as n from calls where team_id = :id and state = 'pending'", id=team.id)
    calls: int = found.n
    return calls


async def test_submissions_at_once_never_queue_more_than_the_limit(scene: Scene):
    """Each in a transaction of its own, as from several processes."""
    team = await limited_team(scene, max_queued_calls=10)
    gate = asyncio.Semaphore(8)

    async def one() -> Accepted | Exception:
        async with gate:
            return (await intake.accept(scene.rt, [submission(team, calls=3, most=10)]))[0]

    results = await asyncio.gather(*(one() for _ in range(20)))

    refused = [result for result in results if isinstance(result, TooManyRequests)]
    assert sum(isinstance(result, Accepted) for result in results) == 3
    assert len(refused) == 17
    assert {error.detail for error in refused} == {"Queue limit exceeded"}
    assert all(int(error.headers["Retry-After"]) >= 1 for error in refused)
    assert await waiting(scene, team) == 9


async def test_a_group_is_counted_one_submission_after_the_other(scene: Scene):
    team = await limited_team(scene, max_queued_calls=5)
    sizes = (4, 2, 1, 1)
    results = await intake.accept(scene.rt, [submission(team, calls=calls, most=5) for calls in sizes])

    assert [type(result) for result in results] == [Accepted, TooManyRequests, Accepted, TooManyRequests]


async def test_calls_that_run_make_room(scene: Scene):
    team = await limited_team(scene, max_queued_calls=1)
    first = submission(team, most=1)
    await intake.accept(scene.rt, [first])
    assert isinstance((await intake.accept(scene.rt, [submission(team, most=1)]))[0], TooManyRequests)

    await scene.work_on(str(first.calls[0].id))
    assert isinstance((await intake.accept(scene.rt, [submission(team, most=1)]))[0], Accepted)


async def test_a_limit_of_none_lets_nothing_wait_but_jobs_without_calls(scene: Scene):
    team = await limited_team(scene, max_queued_calls=0)
    results = await intake.accept(scene.rt, [submission(team, most=0), submission(team, calls=0, most=0)])

    assert [type(result) for result in results] == [TooManyRequests, Accepted]


async def test_one_teams_full_queue_refuses_no_other_team(scene: Scene):
    full, other = await limited_team(scene, max_queued_calls=1), await scene.team()
    results = await intake.accept(scene.rt, [submission(full, calls=2, most=1), submission(other)])

    assert [type(result) for result in results] == [TooManyRequests, Accepted]


async def test_a_large_limit_holds_too(scene: Scene):
    team, most, depths = await scene.team(), team_queue.COUNTED_EXACTLY + 1, Depths()
    results = [
        (await intake.accept(scene.rt, [submission(team, calls=calls, most=most)], depths))[0]
        for calls in (1000, 1, 1, 1)
    ]

    assert [type(result) for result in results] == [Accepted, Accepted, TooManyRequests, TooManyRequests]
    assert await waiting(scene, team) == most


async def test_a_deep_queue_that_was_just_counted_is_not_counted_again(scene: Scene):
    team, depths = await scene.team(), Depths()
    await intake.accept(scene.rt, [submission(team, calls=100)], depths)
    async with scene.rt.db.transaction() as tx:
        assert (await team_queue.look(tx, [submission(team)], depths)).teams[team.id].waiting == 100
    await intake.accept(scene.rt, [submission(team, calls=10)])
    async with scene.rt.db.transaction() as tx:
        assert (await team_queue.look(tx, [submission(team)], depths)).teams[team.id].waiting == 100
        assert (await team_queue.look(tx, [submission(team)], Depths())).teams[team.id].waiting == 110


async def test_only_as_many_are_rung_at_once_as_the_team_may_run(scene: Scene):
    team = await scene.team()
    wanted = submission(team, calls=5, parallel=2)
    await intake.accept(scene.rt, [wanted])
    await intake.accept(scene.rt, [submission(team, parallel=2)])

    rung = [id_ for message in scene.rung if isinstance(message, RunCalls) for id_ in message.ids]
    assert rung == [call.id for call in wanted.calls][:2]
