"""A deadline covers queue, retries and fallbacks, and no attempt starts after it."""

from tests.demo import DISCONNECTED
from tests.invariants import verify
from tests.stack import Stack


async def test_a_running_call_ends_at_its_deadline(stack: Stack):
    team = await stack.team(fallbacks=1)
    await stack.provider.script({"fault": "hang"}, match=team.models[0], repeat=True)
    call = await team.submit("hello", deadline_s=1)
    shown = await team.result(call)

    assert (shown["status"], shown["error"]["code"], shown["error"]["http_status"]) == (
        "failed",
        "deadline_exceeded",
        504,
    )
    assert [a["outcome"] for a in shown["attempts"]] == ["abandoned"]
    await stack.provider.asked(team.models[0], outcome=DISCONNECTED, timeout_s=5)
    assert await stack.provider.count(team.models[1]) == 0


async def test_a_job_past_its_deadline_fails_with_its_calls(stack: Stack):
    team = await stack.team()
    await stack.provider.script({"fault": "hang"}, match=team.model, repeat=True)
    job = await team.job("one", "two", deadline_s=1)
    shown = await team.ended(job["job_id"])

    assert (shown["status"], shown["counts"]["failed"], shown["credits_charged"]) == ("failed", 2, 0)
    assert shown["failure_reason"] in ("deadline_exceeded", "all_calls_failed")
    await verify(stack)
