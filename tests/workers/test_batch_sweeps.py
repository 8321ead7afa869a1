"""What the clock does to batches: lines that ran out of time, batches nobody calls idle, texts kept for their files."""

import pytest

from shared import calls
from shared.messages import Stop, TendBatches
from tests.accepted_batches import DAY_S, numbers, row, running
from tests.money import claim, close, in_order, used
from tests.scene import COST_NANOUSD, Scene, Team
from workers import retention
from workers.sweeper import Sweep


@pytest.fixture(scope="module")
def database_url(module_database_url: str) -> str:
    return module_database_url


@pytest.fixture
async def team(scene: Scene) -> Team:
    return await scene.team()


async def test_a_batch_whose_window_passed_fails_what_is_left_and_pays_for_what_succeeded(scene: Scene, team: Team):
    batch = await running(scene, team, 5, window_s=900)
    await scene.work(batch.lines[:1])
    runs = await claim(scene, batch.names[1])
    async with scene.later(901) as rt:
        sweep = Sweep(rt=rt)
        assert await sweep.overdue_calls() == 0, "one by one would take its time"
        scene.rung.clear()
        assert await sweep.overdue_jobs() == 1

    job = await row(scene, batch)
    assert (job.status, job.failure_reason, job.batch) == ("failed", "deadline_exceeded", "finalizing")
    assert (job.calls_completed, job.calls_failed, job.calls_expired, job.credits_charged) == (1, 4, 4, 1)
    assert sorted(n for n in await numbers(scene, batch) if n) == [1, 2, 3, 4, 5]
    assert [message.ids for message in scene.rung if isinstance(message, Stop)] == [(runs.id,)]
    assert [message.ids for message in scene.rung if isinstance(message, TendBatches)] == [(batch.id,)]
    codes = await scene.rows("select distinct error_code from calls where job_id = :id", id=batch.id)
    assert {found.error_code for found in codes} == {None, "deadline_exceeded"}
    await close(scene, used(scene, runs, 250))
    late = await row(scene, batch)
    assert (late.calls_completed, late.provider_cost_nanousd) == (1, COST_NANOUSD + 250 * 30_000), "booked late"
    await in_order(scene, team)


async def test_no_line_starts_once_the_window_has_passed(scene: Scene, team: Team):
    batch = await running(scene, team, 1, window_s=900)
    async with scene.later(901) as rt, rt.db.hot_transaction() as tx:
        assert await calls.claim(tx, batch.lines, lease_s=30, worker="late") == []


async def test_a_batch_that_is_still_checked_is_not_idle(scene: Scene, team: Team):
    batch = await running(scene, team, 0)
    async with scene.later(scene.rt.settings.job_idle_timeout_s + 60) as rt:
        await Sweep(rt=rt).idle_jobs()
    assert (await row(scene, batch)).status == "in_progress"


async def test_a_deleted_teams_batch_is_cancelled(scene: Scene, team: Team):
    batch = await running(scene, team)
    await scene.rows("update teams set status = 'deleted' where id = :id returning id", id=team.id)
    await Sweep(rt=scene.rt).jobs_of_deleted_teams()
    job = await row(scene, batch)
    assert (job.status, job.calls_cancelled, job.batch) == ("cancelled", 3, "cancelling")
    await in_order(scene, team)


async def test_texts_of_lines_are_kept_until_their_batch_is_final(scene: Scene, team: Team):
    await scene.rows("update teams set store_payloads = false where id = :id returning id", id=team.id)
    batch = await running(scene, team, 2, window_s=7 * DAY_S)
    await scene.work(batch.lines[:1])
    async with scene.later(6 * DAY_S) as rt:
        await retention.rounds(rt).run()
        assert await texts(scene, team) == 2
    await scene.work(batch.lines[1:])
    final = (
        "update batches set (status, completed_at, output_file_id) = ('completed', app_now() + interval '6 days', id)"
        " where id = :id returning id"
    )
    await scene.rows(final, id=batch.id)
    async with scene.later(6 * DAY_S + 3500) as rt:
        await retention.rounds(rt).run()
        assert await texts(scene, team) == 2
    async with scene.later(6 * DAY_S + 3700) as rt:
        await retention.rounds(rt).run()
    assert await texts(scene, team) == 0


async def test_old_texts_of_a_batch_that_runs_are_kept(scene: Scene, team: Team):
    batch = await running(scene, team, 2, window_s=7 * DAY_S)
    await scene.work(batch.lines[:1])
    days = scene.rt.settings.payload_retention_days
    async with scene.later((days + 1) * DAY_S) as rt:
        await retention.rounds(rt).run()
        assert await texts(scene, team) == 2
    await team.post(f"/jobs/{batch.job_id}/cancel")
    final = "update batches set status = 'cancelled', cancelled_at = app_now(), output_file_id = id where id = :id"
    await scene.rows(f"{final} returning id", id=batch.id)
    async with scene.later((days + 1) * DAY_S) as rt:
        await retention.rounds(rt).run()
    assert await texts(scene, team) == 0


@pytest.mark.parametrize("status", ["cancelled", "expired"])
async def test_texts_of_lines_that_never_ran_go_once_their_batch_is_over(scene: Scene, team: Team, status: str):
    batch, other = await running(scene, team, 4), await running(scene, team, 2)
    await scene.work(batch.lines[1:2])
    await claim(scene, batch.names[2])
    for ended in (batch, other):
        await team.post(f"/jobs/{ended.job_id}/cancel")
    await retention.rounds(scene.rt).run()
    assert await texts(scene, team) == 6, "not before the files are written"
    final = f"update batches set status = '{status}', {status}_at = app_now(), output_file_id = id where id = :id"
    await scene.rows(f"{final} returning id", id=batch.id)

    assert (await retention.rounds(scene.rt).run())["unrun_payloads"] == 2
    assert await texts(scene, team) == 4, "lines that ran, and those of the other batch"
    assert (await retention.rounds(scene.rt).run())["unrun_payloads"] == 0


async def texts(scene: Scene, team: Team) -> int:
    """How many of the team's calls still have their prompt and answer."""
    found = await scene.row(
        "select count(*) as n from call_payloads join calls c on c.id = call_id where c.team_id = :id", id=team.id
    )
    count: int = found.n
    return count
