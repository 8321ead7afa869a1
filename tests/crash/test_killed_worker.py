"""A worker unit, or all of them, killed while a call is at the provider."""

import signal

from tests.invariants import verify
from tests.stack import Stack


async def test_a_call_whose_worker_is_killed_runs_again_and_is_charged_once(stack: Stack) -> None:
    team = await stack.team()
    await stack.provider.hold(team.model)
    call = await team.submit("What is the capital of France?")
    await stack.provider.asked(team.model)

    stack.kill_worker_unit(await stack.unit_of(call.call_id))
    await stack.provider.release()
    result = await team.result(call)

    assert result["response"]["content"] == "Paris"
    assert await stack.provider.count(team.model) == 2
    lost, kept = result["attempts"]
    assert (lost["outcome"], lost["maybe_billed"], lost["usage_source"]) == ("unknown", True, "estimated")
    assert (kept["outcome"], kept["maybe_billed"], kept["usage_source"]) == ("succeeded", False, "provider")
    assert result["cost_usd"] == kept["client_cost_usd"]
    assert result["provider_cost_usd"] > kept["provider_cost_usd"]
    await team.ended(call.job_id)
    assert await team.events(call.job_id) == ["job.created", "job.started", "call.completed", "job.completed"]
    assert await team.charges() == [1]
    await verify(stack)


async def test_a_call_that_kills_three_workers_fails_and_is_not_charged(stack: Stack) -> None:
    team = await stack.team()
    await stack.provider.hold(team.model)
    call = await team.submit("poison")

    for death in (1, 2, 3):
        await stack.provider.asked(team.model, death)
        stack.kill_worker_unit(await stack.unit_of(call.call_id))
    result = await team.result(call)

    assert result["error"]["code"] == "worker_crashed"
    assert [attempt["outcome"] for attempt in result["attempts"]] == ["unknown"] * 3
    assert (await team.ended(call.job_id))["status"] == "failed"
    assert await team.charges() == []
    await verify(stack)


async def test_calls_survive_the_death_of_the_worker_with_all_its_units(stack: Stack) -> None:
    team = await stack.team()
    await stack.provider.hold(team.model)
    calls = [await team.submit(f"call {n}") for n in range(6)]
    await stack.provider.asked(team.model, len(calls))

    stack.worker.kill()
    calls.append(await team.submit("call without a worker"))
    await stack.provider.release()
    stack.worker.start()

    for call in calls:
        assert (await team.result(call))["status"] == "completed"
    await verify(stack)
    assert await team.charges() == [1] * len(calls)


async def test_the_units_end_when_their_parent_is_killed_alone(stack: Stack) -> None:
    team = await stack.team()
    await stack.provider.hold(team.model)
    call = await team.submit("Still there?")
    await stack.provider.asked(team.model)

    stack.worker.signal(signal.SIGKILL)
    await stack.provider.asked(team.model, outcome="disconnected")
    await stack.provider.release()
    stack.worker.start()

    assert (await team.result(call))["status"] == "completed"
    await verify(stack)
