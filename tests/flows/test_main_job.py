"""The main job of Waybill, as its README tells it, through real processes."""

from tests.stack import Stack
from tests.team import accepted

SECRET = "whsec_" + "c2VjcmV0" * 4


async def test_a_job_is_created_asked_completed_and_paid(stack: Stack):
    team = await stack.team(credits_allocated=10)
    job = accepted(await team.client.post("/api/jobs/create", json={"team_id": team.team_id, "job_type": "chat"}))
    answer = await team.ask(job["job_id"], "What is the capital of France?")
    assert answer.status_code == 200
    assert answer.json()["response"]["content"] == "Paris"
    assert (await team.balance())["credits_held"] == 1

    closed = await team.complete(job["job_id"])

    assert (closed.status_code, closed.json()["credits_remaining"], closed.json()["total_calls"]) == (200, 9, 1)
    assert (await team.balance())["credits_used"] == 1
    usage = answer.json()["usage"]
    cost = round((usage["prompt_tokens"] * 30 + usage["completion_tokens"] * 60) / 1e6, 9)
    assert closed.json()["costs"]["total_cost_usd"] == cost
    assert await team.charges() == [1]


async def test_a_job_with_calls_completes_itself_and_calls_back_signed(stack: Stack):
    team, hooks = await stack.team(), await stack.receiver()
    hooks.secret = SECRET
    events = ["job.completed", "call.completed"]
    job = await team.job(
        "capital of France?", "thirty things", callback_url=hooks.url, callback_secret=SECRET, callback_events=["job.*"]
    )

    arrived = {event["type"]: event for event in await hooks.arrived(1, "job.completed")}

    told = arrived["job.completed"]["data"]
    assert (told["id"], told["successful_calls"], told["credits_charged"]) == (job["job_id"], 2, 1)
    shown = await team.ended(job["job_id"])
    assert (shown["status"], shown["costs"]["total_cost_usd"]) == ("completed", told["total_cost_usd"])
    assert await team.charges() == [1]
    assert events[0] in await team.events(job["job_id"])


async def test_an_endpoint_of_the_team_hears_of_every_job(stack: Stack):
    team, hooks = await stack.team(), await stack.receiver()
    await team.register(hooks, ["job.completed", "call.completed"])
    jobs = [await team.job(f"question {n}") for n in range(3)]

    ended = await hooks.arrived(3, "job.completed")
    calls = await hooks.arrived(3, "call.completed")

    assert {event["job_id"] for event in ended} == {job["job_id"] for job in jobs}
    assert {event["data"]["call_id"] for event in calls} == {call["call_id"] for job in jobs for call in job["calls"]}
