"""The same thing from many clients at once: one of them wins, and the books agree."""

import asyncio
from collections import Counter

import httpx

from tests.invariants import verify
from tests.stack import Stack
from tests.team import Team


async def test_complete_from_many_clients_at_once_charges_once(stack: Stack) -> None:
    team = await stack.team()
    job = (await team.job())["job_id"]
    await team.result(await team.submit("one", job_id=job))

    answers = await asyncio.gather(*(team.complete(job) for _ in range(20)))

    assert {answer.status_code for answer in answers} == {httpx.codes.OK}
    assert len({answer.text for answer in answers}) == 1
    assert await team.charges() == [1]
    assert (await team.events(job)).count("job.completed") == 1
    await verify(stack)


async def test_a_job_that_some_complete_and_some_fail_ends_one_way(stack: Stack) -> None:
    team = await stack.team()
    jobs = [(await team.job())["job_id"] for _ in range(5)]
    for job in jobs:
        await team.result(await team.submit("one", job_id=job))

    for job in jobs:
        words = ("completed", "failed") * 5
        answers = await asyncio.gather(*(team.complete(job, word) for word in words))
        won = {word for word, answer in zip(words, answers, strict=True) if answer.status_code == httpx.codes.OK}
        assert len(won) == 1
        assert Counter(answer.status_code for answer in answers) == {httpx.codes.OK: 5, httpx.codes.CONFLICT: 5}
        assert (await team.ended(job))["status"] == won.pop()
    await verify(stack)


async def test_cancel_and_finish_at_once_leave_each_call_in_one_final_state(stack: Stack) -> None:
    team = await stack.team()
    await stack.provider.hold(team.model)
    calls = [await team.submit(f"call {n}") for n in range(20)]
    await stack.provider.asked(team.model, len(calls), outcome="held")

    answers, _ = await asyncio.gather(
        asyncio.gather(*(team.client.post(f"{call.path}/cancel") for call in calls)), stack.provider.release()
    )

    for call, answer in zip(calls, answers, strict=True):
        assert answer.status_code == httpx.codes.OK
        assert answer.json()["status"] in ("cancelled", "completed")
        assert (await team.result(call))["status"] == answer.json()["status"]
    await verify(stack)


async def cancelled(team: Team, job_id: str) -> None:
    """Cancel a job as a client does: a 503 is asked again."""
    for _ in range(20):
        answer = await team.client.post(f"/api/jobs/{job_id}/cancel")
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            break
        await asyncio.sleep(float(answer.headers["retry-after"]))
    assert answer.status_code == httpx.codes.OK, answer.text


async def test_cancelling_jobs_that_are_at_the_provider_gives_their_credits_back(stack: Stack) -> None:
    team = await stack.team(credits_allocated=10)
    await stack.provider.hold(team.model)
    calls = [await team.submit(f"call {n}") for n in range(10)]
    await stack.provider.asked(team.model, len(calls), outcome="held")

    async with asyncio.TaskGroup() as group:
        for call in calls:
            for _ in range(2):
                group.create_task(cancelled(team, call.job_id))

    await stack.provider.asked(team.model, len(calls), outcome="disconnected")
    balance = await team.balance()
    assert (balance["credits_remaining"], balance["credits_held"]) == (10, 0)
    await verify(stack)


async def test_of_many_jobs_that_want_the_last_credit_one_gets_it(stack: Stack) -> None:
    team = await stack.team(credits_allocated=1)
    body = {"team_id": team.team_id, "job_type": "test", "calls": [team.call("mine")]}

    answers = await asyncio.gather(*(team.client.post("/api/jobs/create", json=body) for _ in range(10)))

    assert Counter(answer.status_code for answer in answers) == {httpx.codes.ACCEPTED: 1, httpx.codes.FORBIDDEN: 9}
    assert {a.json()["detail"] for a in answers if a.status_code == httpx.codes.FORBIDDEN} == {"Insufficient credits"}
    (won,) = [answer.json() for answer in answers if answer.status_code == httpx.codes.ACCEPTED]
    assert (await team.ended(won["job_id"]))["status"] == "completed"
    assert (await team.balance())["credits_available"] == 0
    await verify(stack)
