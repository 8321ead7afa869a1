"""A job keeps the markup of its first call, in what its calls cost and in what they hold."""

from dataclasses import replace
from decimal import Decimal
from uuid import UUID

import pytest

from shared import intake
from shared.charging import Terms
from shared.intake import Accepted, Submission
from shared.jobs import Job
from tests.api.batch_requests import batch_of, run, tended, uuid_of
from tests.money import claim, close, in_order, new_call, submission, used
from tests.scene import Scene, Team

COST = 34_000_000
"""Of 250 tokens of answer, in nano-dollars; 1000 are estimated."""


async def submitted(scene: Scene, team: Team, markup: int, job: Job | None = None) -> tuple[Job, UUID, int]:
    """A call at a team's markup, of this job or a new one: the job, the call, its estimate in nano-dollars."""
    terms = Terms(cost_markup_percentage=Decimal(markup))
    nanousd = 136_000_000 * (100 + markup) // 100
    wanted = replace(submission(team, estimate_nanousd=nanousd), terms=terms)
    if job is not None:
        call = new_call(team, job.id, estimate_nanousd=nanousd)
        wanted = Submission(job_id=job.id, team_id=team.id, calls=[call], terms=terms)
    [accepted] = await intake.accept(scene.rt, [wanted])
    assert isinstance(accepted, Accepted), accepted
    row = await scene.row("select estimate_nanousd from calls where id = :id", id=accepted.calls[0].id)
    return accepted.job, accepted.calls[0].id, row.estimate_nanousd


async def cost_of(scene: Scene, call_id: UUID) -> int:
    """What its team pays for the call once it is answered, in nano-dollars."""
    await close(scene, used(scene, await claim(scene, str(call_id)), 250))
    row = await scene.row("select client_cost_nanousd as cost from calls where id = :id", id=call_id)
    cost: int = row.cost
    return cost


@pytest.fixture
async def team(scene: Scene) -> Team:
    return await scene.team(alias={"pricing_input": 0, "pricing_output": 136}, cost_markup_percentage=100)


@pytest.mark.parametrize(("began", "later"), [(0, 100), (100, 0)])
async def test_a_job_keeps_its_markup_whatever_the_team_s_becomes(scene: Scene, team: Team, began: int, later: int):
    job, first, _ = await submitted(scene, team, began)
    await scene.rows("update teams set cost_markup_percentage = :n where id = :id returning 1", n=later, id=team.id)
    _, second, estimate = await submitted(scene, team, later, job)

    costs = [await cost_of(scene, call_id) for call_id in (first, second)]

    assert costs == [COST * (100 + began) // 100] * 2
    assert estimate == 136_000_000 * (100 + began) // 100, "never below what the call may cost"
    assert await cost_of(scene, (await submitted(scene, team, later))[1]) == COST * (100 + later) // 100
    await in_order(scene, team)


async def test_a_job_from_before_it_was_kept_goes_by_the_team_s(scene: Scene, team: Team):
    job, call_id, _ = await submitted(scene, team, 0)
    await scene.rows("update jobs set cost_markup_percentage = null where id = :id returning 1", id=job.id)
    assert (await submitted(scene, team, 50, job))[2] == 204_000_000
    assert await cost_of(scene, call_id) == 2 * COST


async def test_calls_and_lines_that_were_accepted_keep_their_markup(scene: Scene, team: Team):
    live = await team.call((await team.job())["job_id"])
    async with tended(scene):
        batch = await batch_of(team, "a")
        await scene.rows("update teams set cost_markup_percentage = 0 where id = :id returning 1", id=team.id)
        await run(team, batch)
    await scene.work_on(live)

    sql = "select provider_cost_nanousd as ours, client_cost_nanousd as theirs from calls where team_id = :id"
    costs = await scene.rows(sql, id=team.id)
    assert [row.theirs for row in costs] == [2 * row.ours for row in costs]
    assert len([row for row in costs if row.ours]) == 2
    kept = await scene.row("select cost_markup_percentage as n from jobs where id = :id", id=uuid_of(batch))
    assert kept.n == 100
