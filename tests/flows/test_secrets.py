"""Secrets stay secret: planted ones are looked for wherever they must not be, after calls that went well and badly."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis.asyncio
from psycopg import sql

from tests.invariants import verify
from tests.stack import Stack
from tests.team import Team, accepted

KEEPS_PROMPTS = ("call_payloads", "request")


class Canary:
    """A provider key and a prompt nobody else has, and every word a client heard."""

    def __init__(self) -> None:
        self.key = f"sk-{uuid4().hex}{uuid4().hex}"
        self.word = f"canary{uuid4().hex}"
        self.prompt = f"What is the capital of France? {self.word}"
        self.heard: list[str] = []

    def listen(self, *answers: Any) -> None:
        self.heard += [f"{answer.headers} {answer.text}" for answer in answers]


async def test_provider_keys_and_prompts_are_nowhere_but_sealed_and_in_the_payload(stack: Stack) -> None:
    team, canary = await stack.team(), Canary()
    hooks = await stack.receiver()
    await team.register(hooks, ["job.*", "call.*"])

    async with redis_commands(stack) as commands:
        await give_key(stack, team, canary)
        jobs = [await goes_well(team, canary), await goes_badly(stack, team, canary), await dies(stack, team, canary)]
        for job in jobs:
            canary.listen(*[answer async for answer in reads(stack, team, job)])
        await verify(stack, delivered=True)

    kept = await columns_with(stack, canary.word)
    assert kept == {KEEPS_PROMPTS}
    secrets = {"provider key": canary.key, "virtual key": team.key, "webhook secret": hooks.secret}
    for what, secret in secrets.items():
        assert await columns_with(stack, secret) == set(), what
    assert any(UUID(jobs[0]).hex in command for command in commands)
    webhooks = [received.body.decode() for received in hooks.receiver.received]
    assert len(webhooks) > 3
    places = {"redis": commands, "webhooks": webhooks, "logs": logs(stack), "answers": canary.heard}
    for what, secret in {**secrets, "prompt": canary.word}.items():
        found = [place for place, texts in places.items() if any(secret in text for text in texts)]
        assert found == [], f"the {what} is in {found}"


@pytest.mark.parametrize("status", [400, 401, 500])
async def test_a_key_the_provider_repeats_is_hidden_from_client_and_admin(stack: Stack, status: int) -> None:
    team, canary = await stack.team(), Canary()
    await give_key(stack, team, canary)
    error = {"message": f"Your key {canary.key} did not please us", "type": "odd", "param": None, "code": None}
    step = {"fault": "status", "status": status, "body": {"error": error}, "headers": {"x-request-id": canary.key}}
    await stack.provider.script(step, match=team.model, repeat=True)
    job = (await team.job())["job_id"]

    answer = await team.ask(job, "Hello")

    canary.listen(answer, *[read async for read in reads(stack, team, job)])
    assert answer.status_code >= 400
    assert not [text for text in canary.heard if canary.key in text]
    assert await columns_with(stack, canary.key) == set()
    if status == 400:
        assert answer.json()["detail"] == "LLM call failed: Your key [hidden] did not please us"


async def give_key(stack: Stack, team: Team, canary: Canary) -> None:
    path = f"/api/model-aliases/{team.alias}"
    canary.listen(await stack.admin.put(path, json={"api_key": canary.key}), await stack.admin.get(path))
    assert '"has_api_key":true' in canary.heard[-1]


async def goes_well(team: Team, canary: Canary) -> str:
    job = (await team.job())["job_id"]
    answer = await team.ask(job, canary.prompt)
    assert answer.json()["response"]["content"] == "Paris"
    canary.listen(answer, await team.complete(job))
    return str(job)


async def goes_badly(stack: Stack, team: Team, canary: Canary) -> str:
    error = {"message": f"Incorrect API key provided: {canary.key}", "type": "auth", "param": None, "code": None}
    steps = [{"fault": "status", "status": status, "body": {"error": error}} for status in (500, 429, 401)]
    await stack.provider.script(*steps, {"fault": "garbage"}, {"fault": "reset"}, steps[2], match=canary.word)
    job = (await team.job())["job_id"]
    for _ in range(2):
        answer = await team.ask(job, canary.prompt)
        assert answer.status_code == 502
        canary.listen(answer)
    canary.listen(await team.client.post(f"/api/jobs/{job}/llm-call", content=f'{{"messages": "{canary.word}"}}'))
    canary.listen(await team.client.post(f"/api/jobs/{job}/llm-call", content=f'{{"{canary.word}'))
    canary.listen(await team.complete(job))
    return str(job)


async def dies(stack: Stack, team: Team, canary: Canary) -> str:
    await stack.provider.hold(canary.word)
    call = await team.submit(canary.prompt)
    await stack.provider.asked(canary.word, outcome="held")
    stack.kill_worker_unit(await stack.unit_of(call.call_id))
    await stack.provider.release()
    assert (await team.result(call))["response"]["content"] == "Paris"
    await team.ended(call.job_id)
    return call.job_id


async def reads(stack: Stack, team: Team, job: str) -> AsyncIterator[Any]:
    """Every read of a job, by its team and by an admin."""
    paths = [f"/api/jobs/{job}", f"/api/jobs/{job}/calls", f"/api/jobs/{job}/costs", f"/api/teams/{team.team_id}"]
    calls = accepted(await team.client.get(f"/api/jobs/{job}/calls"))["calls"]
    assert calls
    paths += [f"/api/jobs/{job}/calls/{call['call_id']}" for call in calls]
    for path in paths:
        for client in (team.client, stack.admin):
            yield await client.get(path)


@asynccontextmanager
async def redis_commands(stack: Stack) -> AsyncIterator[list[str]]:
    """Every command Redis gets meanwhile, with its arguments: all it could ever hold or publish."""
    commands: list[str] = []
    client = redis.asyncio.Redis.from_url(stack.env["WAYBILL_REDIS_URL"])
    async with client, client.monitor() as monitor:

        async def listen() -> None:
            while True:
                commands.append(str((await monitor.next_command())["command"]))

        listening = asyncio.create_task(listen())
        yield commands
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


def logs(stack: Stack) -> list[str]:
    """Every log file, whole: api, units, timer, provider, Postgres, Valkey."""
    files = sorted(stack.folder.glob("*.log"))
    assert {"api.log", "worker.log", "timer.log"} <= {file.name for file in files}
    return [file.read_text(errors="replace") for file in files]


async def columns_with(stack: Stack, secret: str) -> set[tuple[str, str]]:
    """The (table, column) of every value that holds this text, as text or as bytes."""
    columns = await stack.sql(
        """select table_name as table, column_name as column from information_schema.columns
            where table_schema = 'public'"""
    )
    assert {"jobs", "calls", "attempts", "events", "teams", "model_aliases"} <= {found.table for found in columns}
    looks = [
        sql.SQL("select {} as table, {} as column where exists (select 1 from {} t where t.{}::text ~ {})").format(
            place.table,
            place.column,
            sql.Identifier(place.table),
            sql.Identifier(place.column),
            f"{secret}|{secret.encode().hex()}",
        )
        for place in columns
    ]
    found = await stack.sql(sql.SQL(" union all ").join(looks).as_string())
    return {(row.table, row.column) for row in found}
