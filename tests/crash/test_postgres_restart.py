"""Postgres ends and comes back while clients and workers are at work."""

import asyncio
from collections import Counter

import httpx

from tests.invariants import verify
from tests.stack import Stack
from tests.team import Call, Team

ALLOWED = {httpx.codes.OK, httpx.codes.ACCEPTED, httpx.codes.SERVICE_UNAVAILABLE}


class Client:
    """Submits and reads without a pause until told to stop, and keeps every answer's status."""

    def __init__(self, team: Team) -> None:
        self.team = team
        self.statuses: Counter[int] = Counter()
        self.accepted: list[Call] = []
        self.wrong: list[str] = []
        self.stopping = asyncio.Event()

    async def run(self, number: int) -> None:
        while not self.stopping.is_set():
            body = {"team_id": self.team.team_id, "job_type": "test", "calls": [self.team.call(f"client {number}")]}
            answer = self._keep(await self.team.client.post("/api/jobs/create", json=body))
            if answer.status_code == httpx.codes.ACCEPTED:
                job = answer.json()
                self.accepted.append(Call(job["job_id"], job["calls"][0]["call_id"]))
                self._keep(await self.team.client.get(self.accepted[-1].path))
            self._keep(await self.team.client.get("/api/credits/balance"))
            await asyncio.sleep(0.05)

    def _keep(self, answer: httpx.Response) -> httpx.Response:
        self.statuses[answer.status_code] += 1
        unavailable = answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
        if answer.status_code not in ALLOWED or (unavailable and int(answer.headers["Retry-After"]) < 1):
            self.wrong.append(f"{answer.status_code} {answer.text}")
        return answer


async def test_clients_see_503_and_nothing_accepted_is_lost_when_postgres_restarts(stack: Stack) -> None:
    client = Client(await stack.team())
    held = await stack.team()
    await stack.provider.hold(held.model)
    at_the_provider = await held.submit("answered while Postgres is away")
    await stack.provider.asked(held.model)

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(client.run(number))
        await stack.provider.asked(client.team.model, 20)
        for more in (40, 80):
            await stack.restart_postgres()
            await stack.provider.release()
            await stack.provider.asked(client.team.model, more, timeout_s=30)
        client.stopping.set()

    assert client.wrong == []
    assert client.statuses[httpx.codes.ACCEPTED] == len(client.accepted)
    assert (await held.result(at_the_provider))["status"] == "completed"
    for call in client.accepted:
        assert (await client.team.result(call))["status"] == "completed"
    await verify(stack)


async def test_a_result_that_comes_while_postgres_is_away_is_kept_until_it_is_back(stack: Stack) -> None:
    team = await stack.team()
    await stack.provider.hold(team.model)
    call = await team.submit("What is the capital of France?")
    await stack.provider.asked(team.model)

    stack.servers.postgres.stop()
    await stack.provider.release()
    await stack.provider.asked(team.model, outcome="answered")
    refused = await team.client.get(call.path)
    await stack.start_postgres()

    assert (refused.status_code, refused.json()) == (503, {"detail": "Service temporarily unavailable"})
    result = await team.result(call)
    assert result["response"]["content"] == "Paris"
    await verify(stack)
    assert await team.charges() == [1]
