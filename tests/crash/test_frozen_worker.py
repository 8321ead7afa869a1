"""A worker unit that stands still past its lease and then goes on as if nothing had happened."""

from tests.invariants import verify
from tests.stack import Stack
from tests.team import Call, Team
from tests.waiting import until


async def test_a_worker_paused_past_its_lease_cannot_overwrite_the_result_of_its_successor(stack: Stack) -> None:
    team = await stack.team()
    first, second = ({"fault": "content", "text": text} for text in ("from the frozen one", "from its successor"))
    await stack.provider.script(first, second, match=team.model)
    await stack.provider.hold(team.model)
    call = await team.submit("Who answers?")
    await stack.provider.asked(team.model)
    frozen = await stack.unit_of(call.call_id)

    stack.freeze(frozen)
    await stack.provider.release()
    await stack.provider.asked(team.model, outcome="answered")
    await stack.provider.hold(team.model)
    await stack.provider.asked(team.model, 2)
    stack.thaw(frozen)
    await until(lambda: reported(team, call), "the frozen worker reports its attempt")
    between = await team.read(call)
    await stack.provider.release()
    result = await team.result(call)

    late, kept = result["attempts"]
    assert (between["status"], between["response"], between["cost_usd"]) == ("in_progress", None, 0)
    assert late["outcome"] in ("succeeded", "abandoned")
    assert late["provider_cost_usd"] > 0
    assert result["response"]["content"] == "from its successor"
    assert result["cost_usd"] == kept["client_cost_usd"]
    await verify(stack)
    assert await team.charges() == [1]


async def test_a_worker_that_wakes_after_the_call_ended_changes_nothing_but_what_it_cost_us(stack: Stack) -> None:
    team = await stack.team()
    await stack.provider.hold(team.model)
    call = await team.submit("What is the capital of France?")
    await stack.provider.asked(team.model)
    frozen = await stack.unit_of(call.call_id)

    stack.freeze(frozen)
    await stack.provider.asked(team.model, 2)
    await stack.provider.release()
    before = await team.result(call)
    stack.thaw(frozen)
    await until(lambda: reported(team, call), "the frozen worker reports its attempt")

    after = await team.read(call)
    ours = ("attempts", "provider_cost_usd")
    assert {k: v for k, v in after.items() if k not in ours} == {k: v for k, v in before.items() if k not in ours}
    await verify(stack)
    assert await team.charges() == [1]


async def test_a_worker_paused_for_less_than_its_lease_keeps_its_call(stack: Stack) -> None:
    team = await stack.team()
    await stack.provider.hold(team.model)
    call = await team.submit("Short nap")
    await stack.provider.asked(team.model)
    napping = await stack.unit_of(call.call_id)

    stack.freeze(napping)
    await stack.provider.release()
    await stack.provider.asked(team.model, outcome="answered")
    stack.thaw(napping)

    result = await team.result(call)
    assert [attempt["outcome"] for attempt in result["attempts"]] == ["succeeded"]
    await verify(stack)


async def reported(team: Team, call: Call) -> bool:
    """The first attempt, which the sweep could only call unknown, has an end that its worker told."""
    return bool((await team.read(call))["attempts"][0]["outcome"] != "unknown")
