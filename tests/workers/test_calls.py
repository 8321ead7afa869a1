"""Running calls on a provider that answers as told: what becomes of call, cost and job."""

import asyncio
from uuid import UUID

import pytest

from shared import redis_keys
from shared.calls import Claimed
from shared.db import hot
from shared.states import Outcome
from tests import scene as scenes
from tests.scene import COST_NANOUSD, Scene, Team, agrees, answer, refused
from workers.calls import Calls
from workers.provider import Answer, Sink


@pytest.fixture
async def team(scene: Scene) -> Team:
    return await scene.team(models=2)


@pytest.fixture
async def job_id(team: Team) -> str:
    found: str = (await team.job())["job_id"]
    return found


async def outcomes(scene: Scene, call_id: str) -> list[tuple[str, str]]:
    return [(attempt.alias, attempt.outcome) for attempt in await scene.attempts(call_id)]


async def test_a_call_that_is_answered_completes(scene: Scene, team: Team, job_id: str):
    call_id = await team.call(job_id)
    await scene.work_on(call_id)

    shown = await team.read(job_id, call_id)
    assert shown["response"]["content"] == "Paris"
    assert shown["cost_usd"] == COST_NANOUSD / 1e9
    assert [call.request["messages"] for call in scene.provider.asked] == [scenes.HELLO]
    assert scene.worker.held == set()


async def test_a_bell_rung_twice_asks_the_provider_once(scene: Scene, team: Team, job_id: str):
    call_id = await team.call(job_id)
    await asyncio.gather(*(scene.work([call_id, call_id]) for _ in range(3)))
    assert len(scene.provider.asked) == 1


async def test_a_call_that_somebody_has_locked_holds_up_no_other(scene: Scene, team: Team, job_id: str):
    locked, other = [UUID(await team.call(job_id)) for _ in range(2)]
    async with scene.rt.db.hot_transaction() as tx:
        await hot(tx, "select from calls where id = %s for update", (locked,))
        async with asyncio.timeout(2):
            assert [call.id for call in await scene.worker.claim([locked, other])] == [other]
    assert [call.id for call in await scene.worker.claim([locked, other])] == [locked], "nobody had claimed it"


async def test_a_job_that_somebody_has_locked_holds_up_no_other_teams_results(scene: Scene, team: Team, job_id: str):
    locked, other = await team.call(job_id), await scene.team()
    free_job = (await other.job())["job_id"]
    free = await other.call(free_job)
    scene.provider.held.clear()
    async with scene.rt.db.hot_transaction() as tx:
        await hot(tx, "select from jobs where id = %s for update", (UUID(job_id),))
        working = [asyncio.create_task(scene.work([call_id])) for call_id in (locked, free)]
        await scene.provider.until_asked(2)
        scene.provider.held.set()
        async with asyncio.timeout(2.5):
            await working[1]
        assert not working[0].done()
    await working[0]
    assert [(await t.read(j, c))["status"] for t, j, c in ((team, job_id, locked), (other, free_job, free))] == [
        "completed"
    ] * 2


async def test_a_failure_is_tried_again_at_the_same_model_then_at_the_fallback(scene: Scene, team: Team, job_id: str):
    scene.provider.steps = [refused(), refused(), refused(), answer("from the fallback")]
    call_id = await team.call(job_id)
    await scene.work_on(call_id)

    first, second = team.models
    failed = [(first, "failed")] * 3
    assert await outcomes(scene, call_id) == [*failed, (second, "succeeded")]
    shown = await team.read(job_id, call_id)
    assert (shown["status"], shown["response"]["content"], shown["attempt_count"]) == (
        "completed",
        "from the fallback",
        4,
    )
    assert shown["model"] == first, "clients see the name they asked for"
    completed = await team.complete(job_id)
    assert completed.json()["costs"]["credits_charged"] == 1, "a call saved by its fallback has not failed"


async def test_at_most_six_attempts(scene: Scene, job_id: str, team: Team):
    scene.provider.steps = [refused("provider_rate_limit", http_status=429) for _ in range(9)]
    call_id = await team.call(job_id)
    await scene.work_on(call_id)

    assert len(await scene.attempts(call_id)) == 6
    shown = await team.read(job_id, call_id)
    assert (shown["status"], shown["error"]["code"]) == ("failed", "provider_rate_limit")
    assert shown["error"]["retryable"] is True
    assert shown["error"]["http_status"] == 429


@pytest.mark.parametrize("code", ["provider_auth", "context_length_exceeded"])
async def test_what_another_model_may_do_better_goes_to_it_at_once(scene: Scene, team: Team, job_id: str, code: str):
    scene.provider.steps = [refused(code, again="next")]
    call_id = await team.call(job_id)
    await scene.work_on(call_id)
    assert await outcomes(scene, call_id) == [(team.models[0], "failed"), (team.models[1], "succeeded")]


@pytest.mark.parametrize(
    ("code", "message", "shown"),
    [
        ("provider_bad_request", "max_tokens is too large", "LLM call failed: max_tokens is too large"),
        ("content_policy_violation", "no", "LLM call failed: no"),
        ("provider_auth", "key sk-secret is wrong", "LLM call failed: provider error"),
        ("internal_error", "stack trace", "LLM call failed: internal error"),
    ],
)
async def test_what_no_retry_helps_fails_at_once(
    scene: Scene, team: Team, job_id: str, code: str, message: str, shown: str
):
    scene.provider.steps = [refused(code, again="never", message=message)]
    call_id = await team.call(job_id)
    await scene.work_on(call_id)

    assert await outcomes(scene, call_id) == [(team.models[0], "failed")]
    assert (await team.read(job_id, call_id))["error"]["message"] == shown


async def test_a_bug_in_the_provider_code_is_an_attempt_of_unknown_end(scene: Scene, team: Team, job_id: str):
    scene.provider.steps = [KeyError("choices")]
    call_id = await team.call(job_id)
    await scene.work_on(call_id)

    [attempt] = await scene.attempts(call_id)
    assert (attempt.outcome, attempt.maybe_billed, attempt.usage_source) == ("unknown", True, "estimated")
    error = (await team.read(job_id, call_id))["error"]
    assert (error["code"], error["maybe_billed"]) == ("internal_error", True)


async def test_an_unknown_end_costs_us_an_estimate_and_the_team_nothing(scene: Scene, team: Team, job_id: str):
    scene.provider.steps = [refused("provider_timeout", outcome=Outcome.UNKNOWN)]
    call_id = await team.call(job_id, max_tokens=100)
    await scene.work_on(call_id)

    first, second = await scene.attempts(call_id)
    assert (first.outcome, first.maybe_billed) == ("unknown", True)
    assert first.provider_cost_nanousd == (first.prompt_tokens * 10_000 + 100 * 30_000) > 0
    call = await scene.row("select * from calls where id = :id", id=UUID(call_id))
    assert call.provider_cost_nanousd == first.provider_cost_nanousd + second.provider_cost_nanousd
    assert call.client_cost_nanousd == COST_NANOUSD
    assert call.maybe_billed


async def test_an_alias_may_say_that_unknown_is_the_end(scene: Scene):
    team = await scene.team(models=2, alias={"on_unknown": "fail"})
    job_id = (await team.job())["job_id"]
    scene.provider.steps = [refused("provider_timeout", outcome=Outcome.UNKNOWN)]
    call_id = await team.call(job_id)
    await scene.work_on(call_id)
    assert await outcomes(scene, call_id) == [(team.models[0], "unknown")]
    assert (await team.read(job_id, call_id))["error"]["code"] == "provider_timeout"


async def test_an_answer_of_no_tokens_is_a_value(scene: Scene, team: Team, job_id: str):
    scene.provider.steps = [answer(usage=scenes.Usage(source="provider"))]
    call_id = await team.call(job_id)
    await scene.work_on(call_id)
    shown = await team.read(job_id, call_id)
    assert (shown["cost_usd"], shown["usage"]["total_tokens"], shown["usage_source"]) == (0.0, 0, "provider")


async def test_cancelling_closes_the_providers_connection_and_says_what_it_may_have_cost(
    scene: Scene, team: Team, job_id: str
):
    scene.live = True
    scene.provider.held.clear()
    call_id = await team.call(job_id)
    await scene.provider.until_asked(1)

    cancelled = await team.post(f"/jobs/{job_id}/calls/{call_id}/cancel")
    assert cancelled.json()["status"] == "cancelled"
    await asyncio.wait(scene.tasks, timeout=5)

    assert scene.provider.closed == [UUID(call_id)]
    [attempt] = await scene.attempts(call_id)
    assert (attempt.outcome, attempt.maybe_billed) == ("abandoned", True)
    assert attempt.provider_cost_nanousd > 0
    job = await scene.row("select * from jobs where id = :id", id=UUID(job_id))
    assert job.provider_cost_nanousd == attempt.provider_cost_nanousd
    assert (job.calls_cancelled, job.client_cost_nanousd) == (1, 0)
    await agrees(scene, team)


async def test_a_cancelled_running_call_says_that_it_may_have_been_billed(scene: Scene, team: Team, job_id: str):
    scene.live = True
    scene.provider.held.clear()
    call_id = await team.call(job_id)
    await scene.provider.until_asked(1)
    cancelled = await team.post(f"/jobs/{job_id}/calls/{call_id}/cancel")
    assert cancelled.json()["error"]["maybe_billed"] is True


async def test_a_pending_call_that_is_cancelled_never_asks(scene: Scene, team: Team, job_id: str):
    call_id = await team.call(job_id)
    cancelled = (await team.post(f"/jobs/{job_id}/calls/{call_id}/cancel")).json()
    await scene.work_on(call_id)
    assert scene.provider.asked == []
    assert (cancelled["status"], cancelled["error"]["maybe_billed"]) == ("cancelled", False)


async def test_a_call_that_reaches_its_deadline_while_asked_fails(runtime):
    async with scenes.opened(runtime) as scene:
        team = await scene.team(models=2)
        job_id = (await team.job())["job_id"]
        scene.provider.held.clear()
        call_id = await team.call(job_id, deadline_s=1)
        await scene.work_on(call_id)
        assert (await team.read(job_id, call_id))["error"]["code"] == "deadline_exceeded"
        assert await outcomes(scene, call_id) == [(team.models[0], "abandoned")]
        assert scene.provider.closed == [UUID(call_id)]


async def test_an_attempt_over_its_own_limit_is_unknown_and_tried_again(runtime):
    async with scenes.opened(runtime, provider_timeout_s=0.2, attempts_per_candidate=1) as scene:
        team = await scene.team(models=2)
        job_id = (await team.job())["job_id"]
        scene.provider.held.clear()
        call_id = await team.call(job_id)
        await scene.work([call_id])
        scene.provider.held.set()
        await scene.work_on(call_id)
        assert [outcome for _, outcome in await outcomes(scene, call_id)] == ["unknown", "succeeded"]


async def test_an_answer_that_is_there_when_its_time_is_over_is_taken(runtime):
    class Late:
        async def complete(self, call: Claimed, *, timeout_s: float, sink: Sink | None = None) -> Answer:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                return answer()
            raise AssertionError

    async with scenes.opened(runtime, provider_timeout_s=0.01) as scene:
        team = await scene.team()
        job_id = (await team.job())["job_id"]
        call_id = await team.call(job_id)
        scene.worker = Calls(scene.rt, Late(), "worker")
        await scene.work([call_id])
        assert await outcomes(scene, call_id) == [(team.models[0], "succeeded")]


async def test_a_stream_that_cannot_be_put_on_record_ends_its_call(scene: Scene, team: Team, job_id: str):
    call_id = await team.call(job_id)
    await scene.rows("update calls set stream = true where id = :id returning id", id=UUID(call_id))
    scene.provider.steps = [scenes.saying("Once", "upon")]
    rule = f"check (first_chunk_at is null or call_id <> '{call_id}') not valid"
    await altered(scene, f"alter table attempts add constraint odd {rule}")
    try:
        await scene.work_on(call_id)
    finally:
        await altered(scene, "alter table attempts drop constraint odd")
    assert (await team.read(job_id, call_id))["error"]["code"] == "internal_error"


async def altered(scene: Scene, sql: str) -> None:
    async with scene.rt.db.hot_statement() as tx:
        await hot(tx, sql)


async def test_a_drained_call_goes_back_and_counts_as_nobodys_failure(scene: Scene, team: Team, job_id: str):
    scene.provider.held.clear()
    call_id = await team.call(job_id)
    [claimed] = await scene.worker.claim([UUID(call_id)])
    running = asyncio.create_task(scene.worker.run(claimed))
    await scene.provider.until_asked(1)
    scene.worker.stop(claimed.fence, "drained")
    await running

    row = await scene.row("select * from calls where id = :id", id=UUID(call_id))
    assert (row.state, row.failures, row.deaths, row.maybe_billed) == ("pending", 0, 0, True)
    assert await outcomes(scene, call_id) == [(team.models[0], "unknown")]
    scene.provider.held.set()
    await scene.work_on(call_id)
    assert (await team.read(job_id, call_id))["status"] == "completed"


async def test_a_drained_call_whose_alias_forbids_another_try_ends(scene: Scene):
    team = await scene.team(alias={"on_unknown": "fail"})
    job_id = (await team.job())["job_id"]
    scene.provider.held.clear()
    call_id = await team.call(job_id)
    [claimed] = await scene.worker.claim([UUID(call_id)])
    running = asyncio.create_task(scene.worker.run(claimed))
    await scene.provider.until_asked(1)
    scene.worker.stop(claimed.fence, "drained")
    await running

    shown = await team.read(job_id, call_id)
    assert (shown["status"], shown["error"]["code"]) == ("failed", "attempts_exhausted")
    assert await outcomes(scene, call_id) == [(team.models[0], "unknown")]
    assert (await scene.row("select maybe_billed from calls where id = :id", id=UUID(call_id))).maybe_billed


async def test_a_worker_that_lost_its_lease_changes_nothing_but_its_own_attempt(scene: Scene):
    team = await scene.team(tpm_limit=90_000)
    job_id = (await team.job())["job_id"]
    scene.provider.held.clear()
    call_id = await team.call(job_id)
    [claimed] = await scene.worker.claim([UUID(call_id)])
    running = asyncio.create_task(scene.worker.run(claimed))
    await scene.provider.until_asked(1)
    async with scene.rt.db.transaction() as tx:
        raw = await tx.get_raw_connection()
        sql = "update calls set state = 'pending' where id = %s"
        await raw.driver_connection.execute(sql, (UUID(call_id),))
    scene.provider.held.set()
    counted = await scene.rt.redis.hgetall(redis_keys.tokens_taken(team.id))
    await running

    assert await scene.rt.redis.hgetall(redis_keys.tokens_taken(team.id)) == counted != {}
    assert (await team.read(job_id, call_id))["status"] == "pending"
    assert await outcomes(scene, call_id) == [(team.models[0], "succeeded")]
    assert await scene.events(job_id) == ["job.created", "job.started"]


async def test_two_hundred_waiting_calls_hold_no_database_connection(runtime):
    async with scenes.opened(runtime) as scene:
        team = await scene.team()
        job = await team.job(calls=[{"messages": scenes.HELLO}] * 200)
        scene.provider.held.clear()
        working = asyncio.create_task(scene.work([call["call_id"] for call in job["calls"]]))
        await scene.provider.until_asked(200)
        busy = await scene.row(
            "select count(*) as n from pg_stat_activity where datname = current_database() and state like 'idle in%'"
        )
        assert busy.n == 0
        scene.provider.held.set()
        await working
        assert (await team.read(job["job_id"]))["counts"]["completed"] == 200
        await agrees(scene, team)
