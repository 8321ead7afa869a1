"""A job and its one call in one request."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from tests.api.listening import Listener, listening
from tests.scene import HELLO, Scene, Team, refused, saying

PATH = "/jobs/create-and-call"


@pytest.fixture
async def team(scene: Scene) -> Team:
    return await scene.team(credits=1000)


def body(team: Team, **fields: Any) -> dict[str, Any]:
    return {"team_id": team.id, "job_type": "question", "messages": HELLO, **fields}


async def streamed(team: Team, **headers: str) -> Listener:
    asked = listening(team.scene, team.key, "POST", f"{PATH}-stream", body(team), **headers)
    async with asked as heard:
        found: Listener = await heard.finish()
        return found


async def test_the_answer_has_the_call_and_what_its_job_came_to(team: Team):
    answer = await team.post(PATH, body(team, user_id="ada", job_metadata={"a": 1}, call_metadata={"b": 2}))
    assert answer.status_code == 200
    told = answer.json()
    assert told["response"] == {"role": "assistant", "content": "Paris", "finish_reason": "stop"}
    latency_ms = told["metadata"]["latency_ms"]
    assert told["costs"] == {
        "total_calls": 1,
        "successful_calls": 1,
        "failed_calls": 0,
        "total_tokens": 450,
        "total_cost_usd": 0.0095,
        "avg_latency_ms": latency_ms,
        "credit_applied": True,
        "credits_remaining": 999,
    }
    job = await team.read(told["job_id"])
    assert (job["status"], job["auto_complete"], job["user_id"], job["job_type"]) == (
        "completed",
        True,
        "ada",
        "question",
    )
    assert job["metadata"] == {"a": 1, "b": 2}
    call = await team.read(told["job_id"], told["call_id"])
    assert call["completed_at"] == told["completed_at"]
    assert answer.headers["location"] == f"/api/jobs/{told['job_id']}/calls/{told['call_id']}"


async def test_a_wait_that_ends_first_is_202_with_both_ids(scene: Scene, team: Team):
    scene.provider.held.clear()
    answer = await team.post(PATH, body(team), Prefer="wait=0.05")
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=0.05")
    told = answer.json()
    assert (await team.read(told["job_id"]))["status"] == "in_progress"
    scene.provider.held.set()
    read = await team.get(f"/jobs/{told['job_id']}?wait=10")
    assert (read.json()["status"], read.json()["credits_charged"]) == ("completed", 1)


async def test_a_call_that_fails_fails_its_job_and_costs_nothing(scene: Scene, team: Team):
    scene.provider.steps = [refused("provider_bad_request", again="never", message="no such tool")]
    answer = await team.post(PATH, body(team))
    assert (answer.status_code, answer.json()) == (400, {"detail": "LLM call failed: no such tool"})
    (job,) = (await team.get("/jobs")).json()["jobs"]
    assert (job["status"], job["failure_reason"], job["credits_charged"]) == ("failed", "all_calls_failed", 0)
    assert UUID(answer.headers["x-call-id"])
    assert await team.credits() == (1000, 0, 1000)


async def test_a_refusal_leaves_no_job_behind(scene: Scene, team: Team):
    poor = await scene.team(credits=0)
    refusals = [
        (await poor.post(PATH, body(poor)), 403, "Insufficient credits"),
        (await poor.post(PATH, body(team)), 403, f"API key does not belong to team '{team.id}'"),
        (await poor.post(PATH, body(poor, model="no")), 403, "Model group 'no' not found or inactive"),
    ]
    for answer, status, detail in refusals:
        assert (answer.status_code, answer.json()["detail"]) == (status, detail)
    large = {"x": "y" * 11_000}
    for field in ("job_metadata", "call_metadata"):
        answer = await poor.post(PATH, body(poor, **{field: large}))
        assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", field])
    lacking = await poor.post(PATH, {"messages": HELLO})
    assert [item["loc"] for item in lacking.json()["detail"]] == [["body", "team_id"], ["body", "job_type"]]
    assert (await poor.get("/jobs")).json()["total"] == 0


@pytest.mark.parametrize("prefer", ["wait=10", "respond-async"])
async def test_a_repeat_makes_nothing_and_is_answered_the_same(scene: Scene, team: Team, prefer: str):
    first = await team.post(PATH, body(team), Idempotency_Key="k", Prefer=prefer)
    await asyncio.gather(*scene.tasks)
    again = await team.post(PATH, body(team), Idempotency_Key="k", Prefer=prefer)
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    assert again.headers["idempotent-replayed"] == "true"
    assert (await team.get("/jobs")).json()["total"] == 1


async def test_the_stream_names_its_job_which_ends_with_it(scene: Scene, team: Team):
    scene.provider.steps = [saying("Par", "is")]
    heard = await streamed(team)
    assert (heard.words, heard.is_done) == ("Paris", True)
    job = await team.read(heard.answered["x-job-id"])
    assert (job["status"], job["credits_charged"]) == ("completed", 1)


async def test_a_repeat_of_the_stream_is_told_the_same_call(scene: Scene, team: Team):
    first = await streamed(team, Idempotency_Key="k")
    again = await streamed(team, Idempotency_Key="k")
    assert again.raw == first.raw
    assert again.answered["x-job-id"] == first.answered["x-job-id"]
    assert len(scene.provider.asked) == 1


async def test_a_key_whose_call_failed_is_free_again(scene: Scene, team: Team):
    scene.provider.steps = [saying("a", then=refused())]
    first = await streamed(team, Idempotency_Key="k")
    assert first.chunks[-1]["error"]["code"] == "stream_interrupted"
    again = await streamed(team, Idempotency_Key="k")
    assert (again.words, again.answered["x-job-id"] != first.answered["x-job-id"]) == ("Paris", True)
