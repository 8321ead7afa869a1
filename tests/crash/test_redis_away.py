"""Redis stopped, frozen or emptied: it is only the doorbell."""

import asyncio

import httpx

from tests.invariants import verify
from tests.stack import Stack

HANG_S = 2.0
MARGIN_S = 1.5


async def test_calls_are_accepted_without_redis_and_run_once_it_is_back(stack: Stack) -> None:
    team, limited = await stack.team(), await stack.team(rpm_limit=100)
    stack.kill_redis()

    calls = [await team.submit(f"call {n}") for n in range(5)]
    refused = await limited.client.post("/api/jobs/create", json={"team_id": limited.team_id, "job_type": "test"})
    assert refused.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert int(refused.headers["Retry-After"]) >= 1

    await stack.start_redis()
    for call in calls:
        assert (await team.result(call))["status"] == "completed"
    assert (await limited.result(await limited.submit("now")))["status"] == "completed"
    await verify(stack)


async def test_a_waiting_client_is_answered_without_redis(stack: Stack) -> None:
    team = await stack.team()
    await stack.provider.hold(team.model)
    job = await team.job()
    waiting = asyncio.create_task(team.ask(job["job_id"], "What is the capital of France?"))
    await stack.provider.asked(team.model)

    stack.kill_redis()
    await stack.provider.release()

    answer = await waiting
    assert answer.status_code == httpx.codes.OK
    assert answer.json()["response"]["content"] == "Paris"


async def test_no_request_hangs_when_redis_is_frozen(stack: Stack) -> None:
    team, limited = await stack.team(), await stack.team(rpm_limit=100)
    job = await team.job()
    stack.freeze_redis()

    async with asyncio.timeout(HANG_S + MARGIN_S):
        call = await team.submit("accepted all the same", job_id=job["job_id"])
    async with asyncio.timeout(HANG_S + MARGIN_S):
        refused = await limited.client.post("/api/jobs/create", json={"team_id": limited.team_id, "job_type": "test"})
    assert refused.status_code == httpx.codes.SERVICE_UNAVAILABLE
    async with asyncio.timeout(HANG_S + MARGIN_S):
        await team.read(call)
    async with asyncio.timeout(HANG_S + MARGIN_S):
        assert (await team.client.post(f"{call.path}/cancel")).json()["status"] == "cancelled"
    async with asyncio.timeout(HANG_S + MARGIN_S):
        kept = await team.submit("runs later")
    async with asyncio.timeout(HANG_S + MARGIN_S):
        assert (await team.client.get("/health")).status_code == httpx.codes.OK

    stack.thaw_redis()
    assert (await team.result(kept))["status"] == "completed"
    await verify(stack)


async def test_bells_lost_by_flushall_are_rung_again(stack: Stack) -> None:
    team = await stack.team()
    for pid in stack.worker_pids():
        stack.freeze(pid)
    calls = [await team.submit(f"call {n}") for n in range(8)]

    stack.flush_redis()
    for pid in list(stack.frozen):
        stack.thaw(pid)

    for call in calls:
        result = await team.result(call)
        assert result["status"] == "completed"
    await verify(stack)
