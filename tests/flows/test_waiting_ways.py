"""One call, several ways to hear of it."""

import asyncio

from tests.stack import Stack


async def test_a_call_that_is_waited_for_polled_and_called_back_is_the_same_call(stack: Stack):
    team, hooks = await stack.team(), await stack.receiver()
    await team.register(hooks, ["call.completed"])
    await stack.provider.hold(team.model)
    job_id = (await team.job())["job_id"]
    waiting = asyncio.create_task(team.ask(job_id, "capital of France?"))
    await stack.provider.asked(team.model)
    listed = (await team.client.get(f"/api/jobs/{job_id}/calls")).json()["calls"]
    path = f"/api/jobs/{job_id}/calls/{listed[0]['call_id']}"
    held = asyncio.create_task(team.client.get(path, params={"wait": 30}))
    assert listed[0]["status"] == "in_progress"

    await stack.provider.release()
    waited, read = await waiting, await held
    [told] = await hooks.arrived(1, "call.completed")

    ids = {waited.json()["call_id"], read.json()["call_id"], told["data"]["call_id"], listed[0]["call_id"]}
    assert len(ids) == 1
    assert waited.json()["choices"] == read.json()["choices"]
    assert (await team.client.get(path)).json() == read.json()
    assert await stack.provider.count(team.model) == 1


async def test_a_client_that_hangs_up_loses_nothing(stack: Stack):
    team = await stack.team()
    await stack.provider.hold(team.model)
    job_id = (await team.job())["job_id"]
    waiting = asyncio.create_task(team.ask(job_id, "capital of France?"))
    await stack.provider.asked(team.model)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await stack.provider.release()

    [call] = (await team.client.get(f"/api/jobs/{job_id}/calls")).json()["calls"]
    read = await team.client.get(f"/api/jobs/{job_id}/calls/{call['call_id']}", params={"wait": 30})
    assert read.json()["response"]["content"] == "Paris"
