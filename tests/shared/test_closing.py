"""Closing: result, cost, counts and money together, once, and only by the attempt that holds the call."""

import asyncio
from uuid import UUID

import pytest

from shared import attempts, calls, clock, closing, waiting_calls
from shared.attempt_reports import Report
from shared.calls import Claimed
from shared.closing import Aftermath
from tests.scene import COST_NANOUSD, Scene, Team, agrees, answer, refused
from workers import reports


async def claim(scene: Scene, call_id: str) -> Claimed:
    async with scene.rt.db.transaction() as tx:
        claimed = await calls.claim(tx, [UUID(call_id)], lease_s=30, worker="test")
    return claimed[0]


async def close(scene: Scene, *wanted: Report) -> Aftermath:
    async with scene.rt.db.transaction() as tx:
        return await closing.close_attempts(tx, wanted, now=clock.now())


def succeeded(scene: Scene, call: Claimed) -> Report:
    return reports.succeeded(call, answer(), scene.rt.prices, latency_ms=12)


async def expire(scene: Scene, call_id: str) -> None:
    async with scene.rt.db.transaction() as tx:
        connection = await tx.get_raw_connection()
        await connection.driver_connection.execute(
            "update calls set lease_expires_at = app_now() - interval '1 second' where id = %s", (UUID(call_id),)
        )


async def reap(scene: Scene) -> list[UUID]:
    """What the sweeper does with leases that ran out."""
    async with scene.rt.db.transaction() as tx:
        expired = await waiting_calls.expired(tx, limit=1000)
        aftermath = await closing.close_attempts(
            tx, [reports.swept(row, scene.rt.prices, scene.rt.settings) for row in expired], now=clock.now()
        )
    return [call_id for call_id, _ in aftermath.mine]


@pytest.fixture
async def team(scene: Scene) -> Team:
    return await scene.team(cost_markup_percentage=50)


async def test_a_result_is_booked_on_attempt_call_and_job(scene: Scene, team: Team):
    job_id = (await team.job())["job_id"]
    call_id = await team.call(job_id)
    claimed = await claim(scene, call_id)
    aftermath = await close(scene, succeeded(scene, claimed))

    assert aftermath.mine == {claimed.fence}
    assert aftermath.ended == [UUID(call_id)]
    charged = COST_NANOUSD * 3 // 2
    for table, key in (("calls", call_id), ("jobs", job_id)):
        row = await scene.row(f"select * from {table} where id = :id", id=UUID(key))
        assert (row.provider_cost_nanousd, row.client_cost_nanousd) == (COST_NANOUSD, charged)
        assert row.total_tokens == 450
    [attempt] = await scene.attempts(call_id)
    assert (attempt.outcome, attempt.usage_source, attempt.maybe_billed) == ("succeeded", "provider", False)
    assert (attempt.provider_cost_nanousd, attempt.client_cost_nanousd) == (COST_NANOUSD, charged)
    assert (attempt.input_nanousd_per_mtok, attempt.output_nanousd_per_mtok) == (10 * 10**9, 30 * 10**9)
    assert attempt.price_source == "alias"


async def test_a_repeated_report_changes_nothing(scene: Scene, team: Team):
    job_id = (await team.job())["job_id"]
    call_id = await team.call(job_id)
    report = succeeded(scene, await claim(scene, call_id))
    await close(scene, report)
    before = await team.read(job_id)

    again = await close(scene, report)

    assert again.mine == set()
    assert again.ended == []
    assert {**await team.read(job_id), "updated_at": None} == {**before, "updated_at": None}
    assert await scene.events(job_id) == ["job.created", "job.started", "call.completed"]


async def test_two_claims_of_the_same_calls_win_each_call_once(scene: Scene, team: Team):
    job = await team.job(calls=[{"messages": [{"role": "user", "content": "x"}]}] * 8)
    wanted = [UUID(call["call_id"]) for call in job["calls"]]

    async def claim_all(worker: str) -> list[Claimed]:
        async with scene.rt.db.transaction() as tx:
            return await calls.claim(tx, wanted, lease_s=30, worker=worker)

    won = await asyncio.gather(*(claim_all(f"worker-{n}") for n in range(4)))
    assert sorted(call.id for group in won for call in group) == sorted(wanted)
    opened = await scene.rows("select call_id from attempts where call_id = any(:ids)", ids=wanted)
    assert len(opened) == 8


async def test_a_worker_whose_call_was_reaped_cannot_write_its_result(scene: Scene, team: Team):
    job_id = (await team.job())["job_id"]
    call_id = await team.call(job_id)
    late = await claim(scene, call_id)
    await expire(scene, call_id)
    assert UUID(call_id) in await reap(scene), "beside what other tests left in the same database"
    second = await claim(scene, call_id)
    assert (late.number, second.number) == (1, 2)

    assert (await close(scene, succeeded(scene, late))).mine == set()
    assert (await team.read(job_id, call_id))["status"] == "in_progress"
    assert (await close(scene, succeeded(scene, second))).mine == {second.fence}

    assert [a.outcome for a in await scene.attempts(call_id)] == ["succeeded", "succeeded"]
    call = await scene.row("select * from calls where id = :id", id=UUID(call_id))
    assert call.provider_cost_nanousd == 2 * COST_NANOUSD, "the provider bills us for both"
    assert call.client_cost_nanousd == COST_NANOUSD * 3 // 2, "the team pays for one"
    job = await scene.row("select * from jobs where id = :id", id=UUID(job_id))
    assert (job.provider_cost_nanousd, job.client_cost_nanousd) == (
        call.provider_cost_nanousd,
        call.client_cost_nanousd,
    )
    assert (await team.complete(job_id)).json()["costs"]["credits_charged"] == 1
    await agrees(scene, team)


async def test_what_the_sweeper_guessed_gives_way_to_what_the_late_worker_knows(scene: Scene, team: Team):
    job_id = (await team.job())["job_id"]
    call_id = await team.call(job_id)
    late = await claim(scene, call_id)
    await expire(scene, call_id)
    await reap(scene)
    [guess] = await scene.attempts(call_id)
    assert (guess.outcome, guess.usage_source, guess.maybe_billed) == ("unknown", "estimated", True)
    assert guess.provider_cost_nanousd > COST_NANOUSD

    await close(scene, succeeded(scene, late))

    [known] = await scene.attempts(call_id)
    assert (known.outcome, known.usage_source, known.provider_cost_nanousd) == ("succeeded", "provider", COST_NANOUSD)
    call = await scene.row("select * from calls where id = :id", id=UUID(call_id))
    assert (call.state, call.provider_cost_nanousd, call.client_cost_nanousd) == ("pending", COST_NANOUSD, 0)


CHANGES = (
    "delete from model_aliases where alias = :alias returning 1",
    """update model_aliases set litellm_model = 'openai/other', input_nanousd_per_mtok = 1, output_nanousd_per_mtok = 1
        where alias = :alias returning 1""",
)


@pytest.mark.parametrize("change", CHANGES, ids=["deleted", "another model"])
async def test_an_attempt_nobody_reports_costs_what_its_model_did_when_it_began(scene: Scene, team: Team, change: str):
    died, left = [await team.call((await team.job())["job_id"]) for _ in range(2)]
    for call_id in (died, left):
        await claim(scene, call_id)
    left_job = (await scene.row("select job_id from calls where id = :id", id=UUID(left))).job_id
    await team.post(f"/jobs/{left_job}/cancel")
    await expire(scene, died)
    await scene.rows(change, alias=team.models[0])

    await reap(scene)
    async with scene.later(120) as rt, rt.db.transaction() as tx:
        orphans = [row for row in await attempts.orphaned(tx, grace_s=30, limit=1000) if str(row.call_id) == left]
        await closing.book_abandoned(tx, [reports.abandoned(row, scene.rt.prices) for row in orphans])

    for call_id, answer_is_counted in ((died, True), (left, False)):
        row = await scene.row("select * from calls where id = :id", id=UUID(call_id))
        [attempt] = await scene.attempts(call_id)
        output = row.estimated_output_tokens * answer_is_counted
        assert attempt.price_source == "alias"
        assert attempt.provider_cost_nanousd == row.estimated_prompt_tokens * 10_000 + output * 30_000 > 0


async def test_the_sweeper_cannot_take_a_call_whose_lease_was_renewed_meanwhile(scene: Scene, team: Team):
    call_id = await team.call((await team.job())["job_id"])
    await claim(scene, call_id)
    await expire(scene, call_id)
    async with scene.rt.db.statement() as tx:
        expired = [row for row in await waiting_calls.expired(tx, limit=1000) if row.id == UUID(call_id)]
    async with scene.rt.db.transaction() as tx:
        renewed = await tx.get_raw_connection()
        await renewed.driver_connection.execute(calls.RENEW, {"ids": [UUID(call_id)], "numbers": [1], "lease_s": 30})

    swept = [reports.swept(row, scene.rt.prices, scene.rt.settings) for row in expired]
    assert (await close(scene, *swept)).mine == set()
    [attempt] = await scene.attempts(call_id)
    assert attempt.outcome == "in_progress"


async def test_a_close_and_a_reap_at_once_leave_one_owner(scene: Scene, team: Team):
    for _ in range(5):
        job_id = (await team.job())["job_id"]
        call_id = await team.call(job_id)
        claimed = await claim(scene, call_id)
        await expire(scene, call_id)
        closed, reaped = await asyncio.gather(close(scene, succeeded(scene, claimed)), reap(scene))

        assert bool(closed.mine) != (UUID(call_id) in reaped)
        shown = await team.read(job_id, call_id)
        assert shown["status"] == ("completed" if closed.mine else "pending")
        row = await scene.row("select * from calls where id = :id", id=UUID(call_id))
        assert row.provider_cost_nanousd == COST_NANOUSD


async def test_a_job_completed_twenty_times_at_once_is_charged_once(scene: Scene, team: Team):
    job_id = (await team.job())["job_id"]
    await scene.work_on(await team.call(job_id))

    answers = await asyncio.gather(*(team.complete(job_id) for _ in range(20)))

    assert {a.status_code for a in answers} == {200}
    assert len({a.text for a in answers}) == 1
    assert answers[0].json()["costs"]["credit_applied"] is True
    assert await team.deductions() == [-1]
    assert await scene.events(job_id) == ["job.created", "job.started", "call.completed", "job.completed"]
    await agrees(scene, team)


async def test_complete_fail_and_cancel_at_once_end_a_job_once(scene: Scene, team: Team):
    for _ in range(5):
        job_id = (await team.job())["job_id"]
        await scene.work_on(await team.call(job_id))
        answers = await asyncio.gather(
            team.complete(job_id), team.complete(job_id, "failed"), team.post(f"/jobs/{job_id}/cancel")
        )

        assert sorted(a.status_code for a in answers) == [200, 409, 409]
        ended = [word for word in await scene.events(job_id) if word.startswith("job.")][2:]
        assert ended == [f"job.{(await team.read(job_id))['status']}"]
        await agrees(scene, team)


async def test_cancel_and_finish_at_once_end_a_call_once(scene: Scene, team: Team):
    for _ in range(5):
        job_id = (await team.job())["job_id"]
        call_id = await team.call(job_id)
        report = succeeded(scene, await claim(scene, call_id))
        closed, cancelled = await asyncio.gather(
            close(scene, report), team.post(f"/jobs/{job_id}/calls/{call_id}/cancel")
        )

        assert cancelled.status_code == 200
        status = (await team.read(job_id, call_id))["status"]
        assert status == ("completed" if closed.mine else "cancelled")
        counts = (await team.read(job_id))["counts"]
        assert counts == {"total": 1, "pending": 0, "in_progress": 0, "completed": 0, "failed": 0, "cancelled": 0} | {
            status: 1
        }
        row = await scene.row("select provider_cost_nanousd from jobs where id = :id", id=UUID(job_id))
        assert row.provider_cost_nanousd == COST_NANOUSD, "ours either way"


async def test_calls_of_many_jobs_closed_together_are_counted_into_their_own(scene: Scene, team: Team):
    jobs = [(await team.job())["job_id"] for _ in range(3)]
    held = [await claim(scene, await team.call(job_id)) for job_id in jobs for _ in range(2)]
    failed = reports.failed(
        held[0], refused("provider_bad_request", again="never"), scene.rt.prices, scene.rt.settings, left_s=60
    )
    await close(scene, failed, *(succeeded(scene, call) for call in held[1:]))

    shown = [(await team.read(job_id))["counts"] for job_id in jobs]
    assert [(counts["completed"], counts["failed"]) for counts in shown] == [(1, 1), (2, 0), (2, 0)]


@pytest.mark.parametrize(
    ("outcomes", "status", "reason"),
    [
        ("ccc", "completed", None),
        ("cff", "completed", None),
        ("fff", "failed", "all_calls_failed"),
        ("xxx", "failed", "all_calls_failed"),
        ("cxf", "completed", None),
        ("fxx", "failed", "all_calls_failed"),
    ],
)
async def test_the_last_call_of_any_mix_ends_an_auto_completed_job_once(
    scene: Scene, team: Team, outcomes: str, status: str, reason: str | None
):
    job = await team.job(calls=[{"messages": [{"role": "user", "content": "x"}]}] * 3)
    job_id = job["job_id"]
    for letter, call in zip(outcomes, job["calls"], strict=True):
        if letter == "x":
            await team.post(f"/jobs/{job_id}/calls/{call['call_id']}/cancel")
            continue
        scene.provider.steps = [] if letter == "c" else [refused("provider_bad_request", again="never")]
        await scene.work_on(call["call_id"])

    shown = await team.read(job_id)
    assert (shown["status"], shown["failure_reason"]) == (status, reason)
    told = shown["error_message"]
    assert told is None if reason is None else told.startswith("No call of the job completed (")
    assert [word for word in await scene.events(job_id) if word.startswith("job.")][2:] == [f"job.{status}"]
    charged = 1 if outcomes == "ccc" else 0
    assert shown["credits_charged"] == charged
    await agrees(scene, team)
