"""How jobs end and what that costs: the worked examples of the contract's credits, and ends beside running calls."""

import asyncio

import pytest

from tests.api.admin import refusal
from tests.api.asking import ask
from tests.scene import HELLO, Scene, Team, agrees, refused


async def test_example_1_three_calls_and_one_credit(team: Team):
    job_id = (await team.job())["job_id"]
    await asyncio.gather(*(ask(team, job_id) for _ in range(3)))
    assert await team.credits() == (1000, 1, 999)
    body = (await team.complete(job_id)).json()
    assert (body["costs"]["credit_applied"], body["costs"]["credits_charged"], body["credits_remaining"]) == (
        True,
        1,
        999,
    )
    assert await team.credits() == (999, 0, 999)


async def test_example_2_completed_five_times_at_once(team: Team):
    job_id = (await team.job())["job_id"]
    await ask(team, job_id)
    answers = await asyncio.gather(*(team.complete(job_id) for _ in range(5)))
    assert ([a.status_code for a in answers], len({a.text for a in answers})) == ([200] * 5, 1)
    assert await team.deductions() == [-1]


async def test_example_3_a_failed_job_costs_nothing(scene: Scene, team: Team):
    job_id = (await team.job())["job_id"]
    await ask(team, job_id)
    body = (await team.complete(job_id, "failed", error_message="bad scan")).json()
    assert (body["costs"]["credit_applied"], body["credits_remaining"]) == (False, 1000)
    assert await team.credits() == (1000, 0, 1000)
    job = await team.read(job_id)
    assert (job["status"], job["failure_reason"], job["error_message"]) == ("failed", "client", "bad scan")
    await agrees(scene, team)


@pytest.mark.parametrize("charge_failed_calls", [False, True])
async def test_example_4_a_call_that_failed_for_good(scene: Scene, charge_failed_calls: bool):
    team = await scene.team(charge_failed_calls=charge_failed_calls)
    job_id = (await team.job())["job_id"]
    await ask(team, job_id)
    await ask(team, job_id)
    scene.provider.steps = [refused("provider_bad_request", again="never")]
    await ask(team, job_id)
    body = (await team.complete(job_id)).json()
    assert body["costs"]["credits_charged"] == int(charge_failed_calls)
    assert (body["costs"]["successful_calls"], body["costs"]["failed_calls"]) == (2, 1)
    await agrees(scene, team)


async def test_example_5_a_job_without_calls_costs_nothing(team: Team):
    body = (await team.complete((await team.job())["job_id"])).json()
    assert (body["total_calls"], body["costs"]["credit_applied"], body["credits_remaining"]) == (0, False, 1000)
    assert body["costs"]["avg_latency_ms"] is None


async def test_example_6_without_credits_a_job_can_be_made_but_no_call(scene: Scene):
    team = await scene.team(credits=0)
    job_id = (await team.job())["job_id"]
    assert refusal(await ask(team, job_id)) == (403, "Insufficient credits")
    assert (await team.read(job_id))["status"] == "pending"


async def test_example_7_one_credit_and_two_first_calls_at_once(scene: Scene):
    team = await scene.team(credits=1)
    jobs = [(await team.job())["job_id"] for _ in range(2)]
    answers = await asyncio.gather(*(ask(team, job_id) for job_id in jobs))
    assert sorted(a.status_code for a in answers) == [200, 403]
    assert await team.credits() == (1, 1, 0)


async def test_completing_while_calls_run(scene: Scene, team: Team):
    scene.provider.held.clear()
    job_id = (await team.job())["job_id"]
    ids = [await team.call(job_id) for _ in range(2)]
    await scene.provider.until_asked(2)

    early = await team.complete(job_id)
    assert refusal(early) == (409, "Job has 2 unfinished calls")
    assert int(early.headers["retry-after"]) >= 1
    waiting = asyncio.create_task(team.post(f"/jobs/{job_id}/complete", {"status": "completed"}, Prefer="wait=20"))
    await asyncio.sleep(0.05)
    scene.provider.held.set()
    done = await waiting
    assert (done.status_code, done.json()["costs"]["successful_calls"]) == (200, 2)
    assert {call["call_id"] for call in done.json()["calls"]} == set(ids)


async def test_failing_a_job_cancels_what_runs(scene: Scene, team: Team):
    scene.provider.held.clear()
    job_id = (await team.job())["job_id"]
    call_id = await team.call(job_id)
    await scene.provider.until_asked(1)
    assert (await team.complete(job_id, "failed")).status_code == 200
    assert (await team.read(job_id, call_id))["status"] == "cancelled"
    await asyncio.wait(scene.tasks, timeout=5)
    assert len(scene.provider.closed) == 1


@pytest.mark.parametrize("final", ["completed", "failed", "cancelled"])
async def test_a_final_job_is_never_left(team: Team, final: str):
    job_id = (await team.job())["job_id"]
    await ask(team, job_id)
    if final == "cancelled":
        first = await team.post(f"/jobs/{job_id}/cancel", {"reason": "changed my mind"})
    else:
        first = await team.complete(job_id, final)
    assert (first.status_code, first.json()["status"]) == (200, final)

    text = f"Job is already {final}"
    assert refusal(await ask(team, job_id)) == (409, text)
    for status in {"completed", "failed"} - {final}:
        assert refusal(await team.complete(job_id, status)) == (409, text)
    cancelled = await team.post(f"/jobs/{job_id}/cancel")
    assert (cancelled.json() == first.json()) if final == "cancelled" else (refusal(cancelled) == (409, text))
    if final != "cancelled":
        assert (await team.complete(job_id, final)).json() == first.json()


async def test_a_refused_end_of_a_large_job_ends_nothing(scene: Scene, team: Team):
    scene.live = False
    job = await team.job(calls=[{"messages": HELLO}] * 501)
    ended = await team.complete(job["job_id"], "failed", metadata={"x": "y" * 11_000})
    assert ended.status_code == 422
    assert (await team.read(job["job_id"]))["counts"]["pending"] == 501


async def test_a_completion_that_waits_is_answered_at_shutdown(scene: Scene, team: Team):
    scene.live = False
    job = await team.job()
    await team.call(job["job_id"])
    path = f"/jobs/{job['job_id']}/complete"
    waiting = asyncio.create_task(team.post(path, {"status": "completed"}, Prefer="wait=60"))
    await asyncio.wait([waiting], timeout=0.2)
    await scene.app.state.desk.waiters.close()
    async with asyncio.timeout(8):
        assert (await waiting).status_code == 409
