"""Cancelling: the provider's connection is closed, the hold goes back, and what had ended stays as it ended."""

import asyncio
from typing import Any

import httpx

from tests.invariants import verify
from tests.stack import FreshStacks, Stack
from tests.team import Call, Team, accepted
from tests.waiting import until

PROMISED_S = 1.0
"""In which a cancelled call's connection is closed; the provider's own log says when it was."""


async def test_cancelling_a_running_call_closes_its_provider_connection_within_a_second(
    fresh_stack: FreshStacks,
) -> None:
    # Neither a lease nor a timeout ends within this test: only the api's word can stop the worker.
    stack = await fresh_stack(LEASE_S="60", PROVIDER_TIMEOUT_S="60")
    team = await stack.team()
    await stack.provider.hold(team.model)
    call = await team.submit("Hello")
    await stack.provider.asked(team.model, outcome="held")

    answer = await team.client.post(f"{call.path}/cancel")

    assert accepted(answer)["status"] == "cancelled"
    await stack.provider.asked(team.model, outcome="disconnected")
    (request,) = await stack.provider.requests(team.model)
    (row,) = await stack.sql("select extract(epoch from completed_at) as ended from calls where id = %s", call.call_id)
    assert request["finished_at"] - float(row.ended) < PROMISED_S
    (attempt,) = await attempts_once_reported(team, call)
    assert (attempt["outcome"], attempt["maybe_billed"], attempt["usage_source"]) == ("abandoned", True, "estimated")
    assert await team.events(call.job_id) == ["job.created", "job.started", "call.cancelled", "job.failed"]
    await verify(stack)


async def test_a_client_that_waits_for_a_cancelled_call_is_told(stack: Stack) -> None:
    team = await stack.team()
    job = (await team.job())["job_id"]
    await stack.provider.hold(team.model)
    waiting = asyncio.create_task(team.ask(job, "Hello"))
    await stack.provider.asked(team.model)
    (call,) = accepted(await team.client.get(f"/api/jobs/{job}/calls"))["calls"]

    await stack.admin.post(f"/api/jobs/{job}/calls/{call['call_id']}/cancel")

    answer = await waiting
    assert (answer.status_code, answer.json()) == (httpx.codes.CONFLICT, {"detail": "Call was cancelled"})
    error = (await team.client.get(answer.headers["Location"])).json()["error"]
    assert (error["code"], error["http_status"], error["message"]) == ("cancelled", 409, "Call was cancelled")
    await stack.provider.asked(team.model, outcome="disconnected")


async def test_a_cancelled_call_is_no_failure_and_its_job_goes_on(stack: Stack) -> None:
    team = await stack.team()
    job = (await team.job())["job_id"]
    await team.result(await team.submit("one", job_id=job))
    await stack.provider.hold(team.model)
    call = await team.submit("two", job_id=job)
    await stack.provider.asked(team.model, 2)

    await team.client.post(f"{call.path}/cancel")

    completed = accepted(await team.complete(job))
    assert (completed["costs"]["credits_charged"], completed["credits_remaining"]) == (1, 999)
    assert [shown["status"] for shown in completed["calls"]] == ["completed", "cancelled"]
    await verify(stack)


async def test_cancelling_a_job_ends_its_calls_and_gives_the_hold_back(stack: Stack) -> None:
    team = await stack.team()
    await stack.provider.hold("never ends")
    job = (await team.job("Hello", "never ends"))["job_id"]
    await stack.provider.asked("never ends", outcome="held")
    await until(lambda: some_completed(team, job), "the first call completes")
    assert (await team.balance())["credits_held"] == 1
    path, reason = f"/api/jobs/{job}/cancel", {"reason": "changed my mind"}

    cancelled = accepted(await team.client.post(path, json=reason))

    again = accepted(await team.client.post(path, json={}))
    assert (cancelled["status"], cancelled["credits_remaining"]) == ("cancelled", 1000)
    assert sorted(call["status"] for call in cancelled["calls"]) == ["cancelled", "completed"]
    assert again == cancelled
    balance = await team.balance()
    assert (balance["credits_held"], balance["credits_available"]) == (0, 1000)
    assert (await team.ended(job))["error_message"] == "changed my mind"
    await stack.provider.asked("never ends", outcome="disconnected")
    await verify(stack)
    assert await team.charges() == []


async def test_a_call_that_ended_is_returned_as_it_ended(stack: Stack) -> None:
    team = await stack.team()
    job = (await team.job())["job_id"]
    call = await team.submit("What is the capital of France?", job_id=job)
    await team.result(call)
    before = accepted(await team.client.get(call.path))

    answer = accepted(await team.client.post(f"{call.path}/cancel"))

    assert answer == before
    assert answer["response"]["content"] == "Paris"


async def test_a_job_that_ended_cannot_be_cancelled(stack: Stack) -> None:
    team = await stack.team()
    call = await team.submit("Hello")
    await team.ended(call.job_id)

    answer = await team.client.post(f"/api/jobs/{call.job_id}/cancel")

    assert (answer.status_code, answer.json()) == (httpx.codes.CONFLICT, {"detail": "Job is already completed"})
    assert await team.charges() == [1]


async def attempts_once_reported(team: Team, call: Call) -> list[dict[str, Any]]:
    async def reported() -> list[dict[str, Any]]:
        attempts: list[dict[str, Any]] = (await team.read(call))["attempts"]
        return attempts if all(attempt["ended_at"] for attempt in attempts) else []

    return await until(reported, "the worker reports its attempt")


async def some_completed(team: Team, job: str) -> bool:
    return bool(accepted(await team.client.get(f"/api/jobs/{job}"))["counts"]["completed"])
