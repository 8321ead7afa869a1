"""SIGTERM to the worker: what can finish does, what is cut goes back, bells in memory return to the queue."""

import asyncio
import signal

import redis

from shared import ids, redis_keys
from shared.messages import RunCalls
from shared.queue import Bell
from tests.invariants import verify
from tests.programs import Program, alive
from tests.stack import FreshStacks, Stack
from tests.waiting import until


async def test_calls_that_end_in_time_finish_and_those_that_are_cut_run_again(stack: Stack) -> None:
    team = await stack.team()
    await stack.provider.script({"fault": "delay", "seconds": 0.5}, match="quick")
    await stack.provider.script({"fault": "hang"}, match="slow")
    quick, slow = await team.submit("quick"), await team.submit("slow")
    await stack.provider.asked(team.model, 2)

    await drained(stack.worker)
    assert [attempt["outcome"] for attempt in (await team.read(quick))["attempts"]] == ["succeeded"]
    assert (await team.read(slow))["status"] == "pending"
    stack.worker.start()

    result = await team.result(slow)
    cut, kept = result["attempts"]
    assert (cut["outcome"], cut["maybe_billed"], kept["outcome"]) == ("unknown", True, "succeeded")
    await verify(stack)
    assert await team.charges() == [1, 1]


async def test_a_draining_worker_puts_back_its_bells_so_that_no_sweep_is_needed(fresh_stack: FreshStacks) -> None:
    stack = await fresh_stack(WORKERS="1", CALLS_IN_FLIGHT="1", DRAIN_S="0.5")
    team = await stack.team()
    await stack.provider.script({"fault": "hang"}, match=team.model)
    (unit,) = stack.worker_pids()
    stack.freeze(unit)
    calls = [await team.submit(f"call {n}") for n in range(7)]
    stack.timer.kill()
    stack.thaw(unit)
    await stack.provider.asked(team.model)

    stack.kill_worker_unit(unit, signal.SIGTERM)
    await until(lambda: ended(unit), "the unit ends after SIGTERM")

    for call in calls:
        assert (await team.result(call))["status"] == "completed"
    assert not await stack.leader()
    await verify(stack)


async def test_a_process_that_ends_sends_the_bells_it_still_has(redis_url: str) -> None:
    for turns in range(6):
        bell = Bell(redis_url)
        await bell.open()
        bell.ring(RunCalls(ids=(ids.new(),)))
        for _ in range(turns):
            await asyncio.sleep(0)
        await bell.close()

    with redis.Redis.from_url(redis_url) as client:
        assert client.llen(redis_keys.queue(RunCalls.queue)) == 6


async def drained(worker: Program) -> None:
    worker.terminate()
    await until(lambda: ended(worker.pid), "the worker ends after SIGTERM")
    assert worker.process is not None
    assert worker.process.wait(timeout=10) == 0


async def ended(pid: int) -> bool:
    return not alive(pid)
