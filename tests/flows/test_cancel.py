"""Cancelling ends the work at the provider, and nobody pays."""

from tests.demo import DISCONNECTED
from tests.invariants import verify
from tests.stack import Stack


async def test_cancelling_a_call_closes_the_providers_connection(stack: Stack):
    team = await stack.team()
    await stack.provider.hold(team.model)
    call = await team.submit("hello")
    await stack.provider.asked(team.model)

    cancelled = await team.client.post(f"{call.path}/cancel")

    assert cancelled.json()["status"] == "cancelled"
    await stack.provider.asked(team.model, outcome=DISCONNECTED, timeout_s=5)
    await verify(stack)
    assert await team.charges() == []


async def test_cancelling_a_job_ends_running_and_waiting_calls(stack: Stack):
    team = await stack.team()
    await stack.provider.hold(team.model)
    job = await team.job("one", "two", "three")
    await stack.provider.asked(team.model, 3)

    answer = await team.client.post(f"/api/jobs/{job['job_id']}/cancel", json={"reason": "changed my mind"})

    assert (answer.json()["status"], answer.json()["costs"]["credits_charged"]) == ("cancelled", 0)
    await stack.provider.asked(team.model, 3, outcome=DISCONNECTED, timeout_s=5)
    counts = (await team.ended(job["job_id"]))["counts"]
    assert (counts["cancelled"], counts["total"]) == (3, 3)
    assert (await team.balance())["credits_held"] == 0
    await verify(stack)
