"""The sweeps: what died, was lost or came too late is found by the database's clock and put right, once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy import text

from shared import redis_keys
from shared.db import Database
from shared.messages import Message, RunCalls, Stop, TendBatches
from shared.runtime import Runtime
from tests.scene import HELLO, Scene, Team, agrees
from tests.workers.line_rows import accepted
from tests.workers.line_rows import bells as line_bells
from workers.dispatcher import Dispatcher
from workers.sweeper import Sweep
from workers.timer import steps

DAY_S = 86_400


@pytest.fixture
def database_url(fresh_database_url: str) -> str:
    """A sweep looks at every row there is."""
    return fresh_database_url


@pytest.fixture
async def team(scene: Scene) -> Team:
    return await scene.team(models=2)


async def sweep(scene: Scene, later_s: float = 0) -> dict[str, int]:
    """What a sweep found that many seconds from now; its bells are in `scene.rung`."""
    scene.rung.clear()
    async with scene.later(later_s) as rt:
        found = await Sweep(rt=rt).run()
    return {step: count for step, count in found.items() if count}


async def claimed(scene: Scene, team: Team, **fields: object) -> tuple[str, str]:
    """A job and its call that a worker has taken and will never report on."""
    job_id = (await team.job())["job_id"]
    call_id = await team.call(job_id, **fields)
    await scene.worker.claim([UUID(call_id)])
    return job_id, call_id


def bells(rung: list[Message]) -> list[str]:
    return [str(id_) for message in rung if isinstance(message, RunCalls) for id_ in message.ids]


async def test_a_healthy_system_has_nothing_to_sweep(scene: Scene, team: Team):
    await sweep(scene)
    job_id, _ = await claimed(scene, team)
    assert await sweep(scene) == {}
    assert (await team.read(job_id))["status"] == "in_progress"


async def test_a_call_whose_lease_ran_out_goes_back_and_is_rung(scene: Scene, team: Team):
    _, call_id = await claimed(scene, team)
    assert await sweep(scene, later_s=29) == {}

    assert (await sweep(scene, later_s=31))["expired_leases"] == 1

    assert call_id in bells(scene.rung)
    [attempt] = await scene.attempts(call_id)
    assert (attempt.outcome, attempt.maybe_billed, attempt.usage_source) == ("unknown", True, "estimated")
    row = await scene.row("select * from calls where id = :id", id=UUID(call_id))
    assert (row.state, row.deaths, row.failures, row.maybe_billed) == ("pending", 1, 0, True)
    assert row.provider_cost_nanousd == attempt.provider_cost_nanousd > 0


@asynccontextmanager
async def read_only(rt: Runtime) -> AsyncIterator[Runtime]:
    """The same runtime on a database that takes no writes."""
    async with rt.db.statement() as tx:
        now = (await tx.execute(text("select app_now()"))).scalar_one()
    session = {"app.now": now.isoformat(), "default_transaction_read_only": "on"}
    db = Database(rt.settings.database_url, pool=2, name="waybill-read-only", session=session)
    yield replace(rt, db=db)
    await db.close()


async def test_after_a_time_without_writes_workers_have_half_a_lease_to_renew(scene: Scene, team: Team):
    _, call_id = await claimed(scene, team)
    async with scene.later(31) as rt, read_only(rt) as unwritten:
        sweep = Sweep(rt=unwritten)
        assert "expired_leases" not in await sweep.run()
        sweep.rt = rt
        assert (await sweep.run())["expired_leases"] == 0
    for later_s, swept in ((45, 0), (47, 1)):
        async with scene.later(later_s) as sweep.rt:
            assert (await sweep.run())["expired_leases"] == swept
    [attempt] = await scene.attempts(call_id)
    assert attempt.outcome == "unknown"


async def test_a_new_leader_gives_workers_half_a_lease_to_renew(scene: Scene, team: Team):
    await claimed(scene, team)
    async with scene.later(31) as rt:
        [work] = [step.work for step in steps(rt) if step.name == "sweep"]
        await work()
    assert "expired_leases" not in await sweep(scene, later_s=45)
    assert (await sweep(scene, later_s=47))["expired_leases"] == 1


async def test_three_worker_deaths_end_a_call(scene: Scene, team: Team):
    job_id, call_id = await claimed(scene, team)
    for death in (1, 2, 3):
        async with scene.later(death * 100) as rt:
            await Sweep(rt=rt).run()
            if death < 3:
                async with rt.db.transaction() as tx:
                    from shared import calls

                    assert await calls.claim(tx, [UUID(call_id)], lease_s=30, worker="w")

    shown = await team.read(job_id, call_id)
    assert (shown["status"], shown["error"]["code"], shown["attempt_count"]) == ("failed", "worker_crashed", 3)
    assert [attempt.outcome for attempt in await scene.attempts(call_id)] == ["unknown"] * 3
    assert (await team.complete(job_id)).json()["costs"]["credits_charged"] == 0
    await agrees(scene, team)


async def test_after_a_death_an_alias_may_forbid_another_try(scene: Scene):
    team = await scene.team(alias={"on_unknown": "fail"})
    job_id, call_id = await claimed(scene, team)
    await sweep(scene, later_s=31)
    assert (await team.read(job_id, call_id))["error"]["code"] == "attempts_exhausted"


async def test_a_dead_workers_call_past_its_deadline_fails(scene: Scene, team: Team):
    job_id, call_id = await claimed(scene, team, deadline_s=20)
    await sweep(scene, later_s=31)
    assert (await team.read(job_id, call_id))["error"]["code"] == "deadline_exceeded"


async def test_a_pending_call_past_its_deadline_fails_without_an_attempt(scene: Scene, team: Team):
    job_id = (await team.job())["job_id"]
    call_id = await team.call(job_id, deadline_s=5)
    assert (await sweep(scene, later_s=6))["overdue_calls"] == 1

    shown = await team.read(job_id, call_id)
    assert (shown["error"]["code"], shown["error"]["http_status"], shown["attempt_count"]) == (
        "deadline_exceeded",
        504,
        0,
    )
    assert (await team.read(job_id))["counts"]["failed"] == 1
    await scene.work_on(call_id)
    assert scene.provider.asked == []


async def test_a_job_past_its_deadline_fails_with_all_its_calls(scene: Scene, team: Team):
    job = await team.job(calls=[{"messages": HELLO}] * 3, deadline_s=10, auto_complete=False)
    await scene.worker.claim([UUID(job["calls"][0]["call_id"])])
    found = await sweep(scene, later_s=11)

    assert found["overdue_jobs"] == 1
    shown = await team.read(job["job_id"])
    assert (shown["status"], shown["failure_reason"]) == ("failed", "deadline_exceeded")
    assert shown["error_message"] == "The job's deadline passed before it had ended"
    assert (shown["counts"]["failed"], shown["credits_held"], shown["credits_charged"]) == (3, 0, 0)
    assert any(isinstance(message, Stop) for message in scene.rung)
    assert (await scene.events(job["job_id"]))[-1] == "job.failed"
    await agrees(scene, team)


async def test_a_job_nobody_touches_for_a_day_fails_and_frees_its_hold(scene: Scene, team: Team):
    job_id = (await team.job())["job_id"]
    await scene.work_on(await team.call(job_id))
    empty = (await team.job())["job_id"]
    assert "idle_jobs" not in await sweep(scene, later_s=DAY_S - 60)

    assert (await sweep(scene, later_s=DAY_S + 60))["idle_jobs"] == 2

    for id_ in (job_id, empty):
        shown = await team.read(id_)
        assert (shown["status"], shown["failure_reason"]) == ("failed", "idle_timeout")
        assert shown["error_message"] == "The job had no call under way for too long"
    assert await team.credits() == (1000, 0, 1000)


async def test_an_attempt_whose_call_went_on_without_it_is_booked(scene: Scene, team: Team):
    job_id, call_id = await claimed(scene, team)
    await team.post(f"/jobs/{job_id}/calls/{call_id}/cancel")
    assert (await sweep(scene, later_s=61))["orphaned_attempts"] == 1

    [attempt] = await scene.attempts(call_id)
    assert (attempt.outcome, attempt.maybe_billed) == ("abandoned", True)
    for table, id_ in (("calls", call_id), ("jobs", job_id)):
        row = await scene.row(f"select provider_cost_nanousd from {table} where id = :id", id=UUID(id_))
        assert row.provider_cost_nanousd == attempt.provider_cost_nanousd > 0
    assert await sweep(scene, later_s=61) == {}


async def test_a_bell_that_was_lost_is_rung_again(scene: Scene, team: Team):
    await sweep(scene)
    call_id = await team.call((await team.job())["job_id"])
    assert "lost_bells" not in await sweep(scene, later_s=4)

    assert (await sweep(scene, later_s=6))["lost_bells"] == 1
    assert bells(scene.rung) == [call_id]
    assert "lost_bells" not in await sweep(scene, later_s=6), "rung a moment ago"


async def test_lost_bells_of_lines_are_rung_in_their_lane_whatever_waits_in_the_other(scene: Scene, team: Team):
    await sweep(scene)
    lines = await accepted(scene, team, 2)
    await Dispatcher(scene.rt).tick()
    await scene.rt.redis.rpush(redis_keys.queue("calls"), *range(2001))

    assert (await sweep(scene, later_s=6))["lost_bells"] == 2
    assert sorted(line_bells(scene)) == sorted(lines.ids)
    await scene.rt.redis.rpush(redis_keys.queue("calls_batch"), *range(201))
    assert "lost_bells" not in await sweep(scene, later_s=60)


async def test_a_dead_workers_line_waits_for_the_dispatcher(scene: Scene, team: Team):
    await sweep(scene)
    [line] = (await accepted(scene, team, 1)).ids
    await scene.worker.claim([line])
    assert (await sweep(scene, later_s=31))["expired_leases"] == 1

    assert (bells(scene.rung), line_bells(scene)) == ([], [])
    async with scene.later(32) as rt:
        await Dispatcher(rt).tick()
    assert line_bells(scene) == [line]


async def test_a_batch_that_nobody_has_in_work_is_rung(scene: Scene, team: Team):
    await sweep(scene)
    job_id = (await accepted(scene, team, 1)).job_id
    assert "unattended_batches" not in await sweep(scene)
    await scene.rows("update batches set status = 'finalizing' where id = :id returning id", id=job_id)

    assert (await sweep(scene))["unattended_batches"] == 1
    assert [message.ids for message in scene.rung if isinstance(message, TendBatches)] == [(job_id,)]


async def test_when_redis_was_emptied_every_bell_is_rung_at_once(scene: Scene, team: Team):
    await sweep(scene)
    ids = [await team.call((await team.job())["job_id"]) for _ in range(3)]
    await scene.rt.redis.flushall()

    assert (await sweep(scene))["lost_bells"] == 3
    assert sorted(bells(scene.rung)) == sorted(ids)
    assert await scene.rt.redis.exists(redis_keys.epoch())


async def test_that_redis_was_emptied_is_known_until_every_bell_is_rung(scene: Scene, team: Team):
    await sweep(scene)
    call_id = await team.call((await team.job())["job_id"])
    await scene.rt.redis.flushall()
    away = Database("postgresql://waybill@127.0.0.1:1/waybill", pool=2)
    assert "lost_bells" not in await Sweep(rt=replace(scene.rt, db=away)).run()
    await away.close()

    assert (await sweep(scene))["lost_bells"] == 1
    assert bells(scene.rung) == [call_id]


async def test_bells_that_still_wait_in_the_queue_are_not_lost(scene: Scene, team: Team):
    await sweep(scene)
    await team.call((await team.job())["job_id"])
    await scene.rt.redis.rpush(redis_keys.queue("calls"), *range(2001))
    assert "lost_bells" not in await sweep(scene, later_s=60)


async def test_a_retry_that_is_not_due_is_not_rung(scene: Scene, team: Team):
    await sweep(scene)
    call_id = await team.call((await team.job())["job_id"])
    async with scene.rt.db.transaction() as tx:
        raw = await tx.get_raw_connection()
        await raw.driver_connection.execute(
            "update calls set (run_at, rung_at) = (app_now() + interval '60 s', app_now() + interval '60 s') "
            "where id = %s",
            (UUID(call_id),),
        )
    assert "lost_bells" not in await sweep(scene, later_s=59)
    assert (await sweep(scene, later_s=66))["lost_bells"] == 1


async def test_the_dispatcher_lets_teams_take_turns(scene: Scene, team: Team):
    other = await scene.team()
    await team.job(calls=[{"messages": HELLO}] * 300)
    late = await other.job(calls=[{"messages": HELLO}] * 66)
    scene.rung.clear()

    assert await Dispatcher(scene.rt).tick() == 256 - 128
    assert len(set(bells(scene.rung))) == 128
    waiting = [call["call_id"] for call in late["calls"]][64:]
    assert set(waiting) < set(bells(scene.rung)), "the small team does not wait behind the large one"
    assert await Dispatcher(scene.rt).tick() == 0, "no more is rung than the workers can take"


async def test_priority_orders_a_teams_own_calls(scene: Scene, team: Team):
    await team.job(calls=[{"messages": HELLO}] * 64)
    low = await team.job(calls=[{"messages": HELLO}], priority=-5)
    high = await team.job(calls=[{"messages": HELLO}], priority=5)
    scene.rung.clear()
    await Dispatcher(scene.rt).tick()
    assert bells(scene.rung) == [high["calls"][0]["call_id"], low["calls"][0]["call_id"]]


async def broken(scene: Scene, job_id: str) -> None:
    """Make a job one that no end fits: it has another number of calls than it says."""
    sql = "update jobs set calls_total = 1 - calls_total where id = :id returning 1"
    await scene.rows(sql, id=UUID(job_id))


async def test_a_job_that_cannot_be_ended_keeps_no_other_from_its_deadline(scene: Scene, team: Team):
    ids = [(await team.job(deadline_s=deadline_s))["job_id"] for deadline_s in (5, 6)]
    await broken(scene, ids[0])
    assert (await sweep(scene, later_s=7))["overdue_jobs"] == 1
    assert [(await team.read(id_))["status"] for id_ in ids] == ["pending", "failed"]


async def test_a_call_that_cannot_be_ended_keeps_no_other_from_its_deadline(scene: Scene, team: Team):
    ids = [(await team.job(calls=[{"messages": HELLO, "deadline_s": deadline_s}]))["job_id"] for deadline_s in (5, 6)]
    await broken(scene, ids[0])
    assert (await sweep(scene, later_s=7))["overdue_calls"] == 1
    assert [(await team.read(id_))["counts"]["failed"] for id_ in ids] == [0, 1]


async def test_a_job_that_cannot_be_ended_keeps_no_other_of_a_deleted_team(scene: Scene, team: Team):
    ids = [(await team.job())["job_id"] for _ in range(2)]
    await broken(scene, ids[0])
    await scene.rows(
        "update teams set status = 'deleted', updated_at = app_now() where id = :id returning 1", id=team.id
    )
    assert (await sweep(scene))["jobs_of_deleted_teams"] == 1
    states = await scene.rows("select id, status from jobs where team_id = :id", id=team.id)
    assert {str(row.id): row.status for row in states} == {ids[0]: "pending", ids[1]: "cancelled"}


async def test_one_broken_step_stops_no_other(scene: Scene, team: Team):
    _, call_id = await claimed(scene, team)
    from shared.runtime import redis_client

    gone = redis_client("redis://127.0.0.1:1")
    async with scene.later(31) as rt:
        broken: Runtime = replace(rt, redis=gone)
        found = await Sweep(rt=broken).run()
    await gone.aclose()
    assert found["expired_leases"] == 1
    assert "lost_bells" not in found
    row = await scene.row("select state from calls where id = :id", id=UUID(call_id))
    assert row.state == "pending"
