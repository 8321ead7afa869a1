"""SIGTERM to the worker: what can finish does, what is cut goes back, bells in memory return to the queue."""

import signal

from tests.conftest import FreshStacks
from tests.invariants import verify
from tests.stack import Program, Stack, alive
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
    await stack.provider.script({"fault": "hang"}, match="first")
    first = await team.submit("first")
    await stack.provider.asked("first")
    stack.timer.kill()
    waiting = [await team.submit(f"next {n}") for n in range(6)]

    unit = stack.kill_worker_unit(number=signal.SIGTERM)
    await until(lambda: ended(unit), "the unit ends after SIGTERM")

    for call in (first, *waiting):
        assert (await team.result(call))["status"] == "completed"
    assert not await stack.leader()
    await verify(stack)


async def drained(worker: Program) -> None:
    worker.terminate()
    await until(lambda: ended(worker.pid), "the worker ends after SIGTERM")
    assert worker.process is not None
    assert worker.process.wait(timeout=10) == 0


async def ended(pid: int) -> bool:
    return not alive(pid)
