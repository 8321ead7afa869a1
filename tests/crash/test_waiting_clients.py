"""Hundreds of clients that wait at one api process."""

import asyncio

import httpx

from tests.invariants import verify
from tests.stack import Stack

CLIENTS = 500
JOBS = 25
GENEROUS_S = 5.0


async def test_the_api_keeps_answering_while_500_clients_wait_and_all_get_their_answer(stack: Stack) -> None:
    team = await stack.team()
    jobs = [(await team.job())["job_id"] for _ in range(JOBS)]
    await stack.provider.delay(1)
    onlooker = await stack.client(team.key)

    clients = asyncio.gather(*(team.ask(jobs[n % JOBS], f"client {n}") for n in range(CLIENTS)))
    looked = 0
    while not clients.done():
        async with asyncio.timeout(GENEROUS_S):
            assert (await onlooker.get("/health")).status_code == httpx.codes.OK
        async with asyncio.timeout(GENEROUS_S):
            counts = (await onlooker.get(f"/api/jobs/{jobs[0]}")).json()["counts"]
        assert sum(counts.values()) == 2 * counts["total"]
        looked += 1
        await asyncio.sleep(0.1)

    answers = await clients
    assert looked > 1
    assert {answer.status_code for answer in answers} == {httpx.codes.OK}
    assert {answer.json()["response"]["content"] for answer in answers} == {
        f"You said: client {n}" for n in range(CLIENTS)
    }
    for job in jobs:
        assert (await team.complete(job)).status_code == httpx.codes.OK
    await verify(stack)
    assert await team.charges() == [1] * JOBS
