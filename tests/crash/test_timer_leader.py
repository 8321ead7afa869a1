"""The timer that leads is lost, and another goes on sweeping."""

from tests.invariants import verify
from tests.stack import Stack


async def test_another_timer_takes_over_when_the_leader_is_killed(stack: Stack) -> None:
    second = stack.another(stack.timer)

    stack.timer.kill()

    await rescued_by_a_sweep(stack)
    assert second.running
    assert b'"leading"' in second.log.read_bytes()


async def test_another_timer_takes_over_when_the_leader_stands_still(stack: Stack) -> None:
    stack.another(stack.timer)

    stack.freeze(stack.timer.pid)
    await rescued_by_a_sweep(stack)
    stack.thaw(stack.timer.pid)

    await rescued_by_a_sweep(stack)


async def rescued_by_a_sweep(stack: Stack) -> None:
    """A call whose worker is killed comes back only when somebody sweeps."""
    team = await stack.team()
    await stack.provider.hold(team.model)
    call = await team.submit("What is the capital of France?")
    await stack.provider.asked(team.model)
    stack.kill_worker_unit(await stack.unit_of(call.call_id))
    await stack.provider.release()
    assert (await team.result(call, timeout_s=40))["response"]["content"] == "Paris"
    await verify(stack)
