"""The api dies: between commit and bell, or with clients waiting."""

import asyncio
from typing import Any

import httpx
import pytest

from shared import clock, ids, intake
from shared.db import Database
from shared.intake import Submission
from shared.jobs import Job
from shared.new_calls import NewCall
from shared.prices import PriceMap
from shared.runtime import Runtime, redis_client
from shared.sealer import Sealer
from tests.invariants import verify
from tests.stack import Stack
from tests.team import Call, Team


async def test_a_call_whose_bell_was_never_rung_is_rung_by_the_sweep(stack: Stack, prices: PriceMap) -> None:
    team = await stack.team()
    call = await accepted_by_an_api_that_dies_before_it_rings(stack, team, prices)

    assert (await team.result(call))["response"]["content"] == "Paris"
    await verify(stack)
    assert await team.charges() == [1]


async def test_an_accepted_call_outlives_the_api_that_accepted_it(stack: Stack) -> None:
    team = await stack.team()
    await stack.provider.hold(team.model)
    jobs = [(await team.job())["job_id"] for _ in range(10)]
    clients = [asyncio.create_task(team.ask(job, "What is the capital of France?")) for job in jobs]
    await stack.provider.asked(team.model, len(jobs))

    stack.api.kill()
    for client in clients:
        with pytest.raises(httpx.TransportError):
            await client
    await stack.provider.release()
    stack.api.start()
    await stack.ready()

    for job in jobs:
        page = (await team.client.get(f"/api/jobs/{job}/calls")).json()
        call = Call(job, page["calls"][0]["call_id"])
        assert (await team.result(call))["response"]["content"] == "Paris"
        assert (await team.complete(job)).status_code == httpx.codes.OK
    await verify(stack)
    assert await team.charges() == [1] * len(jobs)


async def accepted_by_an_api_that_dies_before_it_rings(stack: Stack, team: Team, prices: PriceMap) -> Call:
    settings, now = stack.settings, clock.now()
    db, client = Database(settings.database_url, name="waybill-test"), redis_client(settings.redis_url)
    sealer = Sealer(settings.encryption_key.get_secret_value())
    rt = Runtime(settings=settings, db=db, redis=client, ring=lambda _: None, sealer=sealer, prices=prices)
    organization = (await team.balance())["organization_id"]
    job = Job(
        id=ids.new(),
        team_id=team.team_id,
        organization_id=organization,
        job_type="test",
        auto_complete=True,
        created_at=now,
    )
    call = new_call(team, job, prompt="What is the capital of France?")
    (accepted,) = await intake.accept(rt, [Submission(job_id=job.id, team_id=team.team_id, new_job=job, calls=[call])])
    await client.aclose()
    await db.close()
    assert not isinstance(accepted, Exception), accepted
    return Call(str(job.id), str(call.id))


def new_call(team: Team, job: Job, *, prompt: str) -> NewCall:
    import orjson

    request: dict[str, Any] = {"messages": [{"role": "user", "content": prompt}]}
    return NewCall(
        id=ids.new(),
        job_id=job.id,
        team_id=team.team_id,
        model=team.alias,
        candidates=[team.alias],
        request=orjson.dumps(request).decode(),
        created_at=job.created_at,
        deadline_s=60,
    )
