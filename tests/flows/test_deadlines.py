"""Deadlines: a call or a job that is late fails as late, wherever it was, and nothing is asked after that."""

import asyncio

import httpx

from tests.invariants import verify
from tests.stack import Stack
from tests.team import accepted

LATE = (httpx.codes.GATEWAY_TIMEOUT, {"detail": "LLM call failed: deadline exceeded"})


async def test_a_call_whose_deadline_passes_at_the_provider_fails_and_its_connection_is_closed(stack: Stack) -> None:
    team = await stack.team()
    job = (await team.job())["job_id"]
    await stack.provider.hold(team.model)

    answer = await team.ask(job, "Hello", deadline_s=1)

    assert (answer.status_code, answer.json()) == LATE
    await stack.provider.asked(team.model, outcome="disconnected")
    found = accepted(await stack.admin.get(answer.headers["Location"]))
    assert (found["error"]["code"], found["error"]["http_status"]) == ("deadline_exceeded", 504)
    assert [(a["outcome"], a["maybe_billed"]) for a in found["attempts"]] == [("abandoned", True)]
    assert found["completed_at"] >= found["deadline_at"]
    assert await stack.provider.count(team.model) == 1
    assert accepted(await team.complete(job))["credits_remaining"] == 1000
    await verify(stack)


async def test_a_call_whose_deadline_passes_while_it_waits_fails_and_is_never_asked(stack: Stack) -> None:
    team = await stack.team()
    job = (await team.job())["job_id"]
    for pid in stack.worker_pids():
        stack.freeze(pid)

    answer = await team.ask(job, "Hello", deadline_s=1)
    for pid in list(stack.frozen):
        stack.thaw(pid)

    assert (answer.status_code, answer.json()) == LATE
    other = await team.submit("What is the capital of France?")
    assert (await team.result(other))["response"]["content"] == "Paris"
    assert [request["message"] for request in await stack.provider.requests(team.model)] == [
        "What is the capital of France?"
    ]
    found = accepted(await stack.admin.get(answer.headers["Location"]))
    assert (found["error"]["code"], found["attempts"]) == ("deadline_exceeded", [])
    await team.complete(job)
    await verify(stack)


async def test_retries_and_fallbacks_share_the_calls_one_deadline(stack: Stack) -> None:
    team = await stack.team(fallbacks=2)
    step = {"fault": "status", "status": 500, "after_s": 0.4}
    await stack.provider.script(step, match=team.team_id, repeat=True)

    result = await team.result(await team.submit("Hello", deadline_s=1))

    assert result["status"] == "failed"
    # The deadline may cut the last attempt after it is on record and before its request has left.
    cut = result["attempts"][-1]["outcome"] == "abandoned"
    arrived = await stack.provider.count(team.team_id)
    assert result["attempt_count"] - cut <= arrived <= result["attempt_count"] < 6
    assert all(attempt["started_at"] < result["deadline_at"] for attempt in result["attempts"])
    await verify(stack)


async def test_a_job_whose_deadline_passes_fails_with_all_that_is_unfinished(stack: Stack) -> None:
    team = await stack.team()
    hooks = await stack.receiver()
    await team.register(hooks, ["job.failed"])
    await stack.provider.hold("never ends")

    job = await team.job("Hello", "never ends", deadline_s=1)
    ended = await team.ended(job["job_id"])

    assert (ended["status"], ended["failure_reason"]) == ("failed", "deadline_exceeded")
    assert ended["counts"] == {"total": 2, "pending": 0, "in_progress": 0, "completed": 1, "failed": 1, "cancelled": 0}
    await stack.provider.asked("never ends", outcome="disconnected")
    late = accepted(await team.client.get(f"/api/jobs/{job['job_id']}/calls", params={"status": "failed"}))["calls"]
    assert [call["error"]["code"] for call in late] == ["deadline_exceeded"]
    assert ((await team.balance())["credits_held"], await team.charges()) == (0, [])
    (event,) = await hooks.arrived(1)
    assert event["data"]["failure_reason"] == "deadline_exceeded"
    await verify(stack, delivered=True)


async def test_a_calls_deadline_is_never_beyond_its_jobs(stack: Stack) -> None:
    team = await stack.team()
    job = await team.job(deadline_s=30)

    early, late = await asyncio.gather(
        team.submit("early", job_id=job["job_id"], deadline_s=5),
        team.submit("late", job_id=job["job_id"], deadline_s=3600),
    )

    assert (await team.read(early))["deadline_at"] < job["deadline_at"]
    assert (await team.read(late))["deadline_at"] == job["deadline_at"]
