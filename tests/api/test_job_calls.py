"""Calls of a job as clients see them: every field of the contract, their place in the queue, how they failed."""

from uuid import UUID

import pytest

from tests.api.admin import refusal
from tests.api.asking import ask
from tests.scene import HELLO, Scene, Team, refused

ANSWER_FIELDS = {
    "call_id",
    "job_id",
    "status",
    "response",
    "metadata",
    "id",
    "object",
    "created",
    "model",
    "choices",
    "usage",
}

CALL_FIELDS = ANSWER_FIELDS | {
    "purpose",
    "custom_id",
    "stream",
    "created_at",
    "started_at",
    "completed_at",
    "deadline_at",
    "attempt_count",
    "queue_ms",
    "queue_position",
    "cost_usd",
    "usage_source",
    "call_metadata",
    "payload_expired",
    "error",
    "callback",
}

ATTEMPT_FIELDS = {
    "attempt",
    "provider",
    "model",
    "credential_id",
    "started_at",
    "ended_at",
    "outcome",
    "http_status",
    "error_code",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "usage_source",
    "maybe_billed",
    "provider_cost_usd",
    "client_cost_usd",
    "model_pricing_input",
    "model_pricing_output",
    "price_source",
    "provider_request_id",
}


async def test_a_call_answers_in_both_dialects(team: Team):
    job_id = (await team.job())["job_id"]
    answer = await ask(team, job_id, purpose="parse")
    body = answer.json()

    assert (answer.status_code, set(body)) == (200, ANSWER_FIELDS)
    assert body["response"] == {"role": "assistant", "content": "Paris", "finish_reason": "stop"}
    assert body["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": "Paris"}, "finish_reason": "stop"}
    ]
    assert body["usage"] == {"prompt_tokens": 200, "completion_tokens": 250, "total_tokens": 450}
    assert body["object"] == "chat.completion"
    assert body["id"] == "chatcmpl-" + body["call_id"].replace("-", "")
    assert isinstance(body["created"], int)
    assert body["model"] == body["metadata"]["model"] == body["metadata"]["model_group"] == team.models[0]
    assert body["metadata"]["tokens_used"] == 450
    assert answer.headers["location"] == f"/api/jobs/{job_id}/calls/{body['call_id']}"
    assert answer.headers["x-call-id"] == body["call_id"]

    shown = await team.read(job_id, body["call_id"])
    assert set(shown) == CALL_FIELDS
    assert {name: shown[name] for name in ANSWER_FIELDS} == body
    assert (shown["purpose"], shown["stream"], shown["attempt_count"], shown["error"]) == ("parse", False, 1, None)
    assert (shown["cost_usd"], shown["usage_source"], shown["payload_expired"]) == (0.0095, "provider", False)


async def test_a_pending_call_knows_its_place_in_the_queue(scene: Scene, team: Team):
    scene.live = False
    job_id = (await team.job())["job_id"]
    first, second, third = [await team.call(job_id) for _ in range(3)]

    async def places() -> list[int | None]:
        return [(await team.read(job_id, call))["queue_position"] for call in (first, second, third)]

    assert await places() == [1, 2, 3]
    await scene.rows("update calls set rung_at = null where id = :id returning id", id=UUID(second))
    assert await places() == [1, 3, 2], "those whose bell has rung come first"
    path = f"/jobs/{job_id}/calls/{second}"
    tag = (await team.get(path)).headers["etag"]
    await scene.work_on(first)
    assert await places() == [None, 2, 1]
    assert (await team.get(path, If_None_Match=tag)).status_code == 304, "nothing has happened to this call"
    waited = await team.post(f"/jobs/{job_id}/llm-call", {"messages": HELLO}, Prefer="wait=0.05")
    assert (waited.status_code, waited.json()["queue_position"]) == (202, 2)


async def test_an_admin_also_sees_attempts_and_provider_costs(scene: Scene):
    team = await scene.team(cost_markup_percentage=100)
    job_id = (await team.job())["job_id"]
    call_id = (await ask(team, job_id)).json()["call_id"]

    shown = (await scene.api.get(f"/jobs/{job_id}/calls/{call_id}")).json()
    assert set(shown) - CALL_FIELDS == {"candidates", "resolved_model", "provider", "provider_cost_usd", "attempts"}
    [attempt] = shown["attempts"]
    assert set(attempt) >= ATTEMPT_FIELDS
    assert (attempt["outcome"], attempt["provider_cost_usd"], attempt["client_cost_usd"]) == (
        "succeeded",
        0.0095,
        0.019,
    )
    assert (attempt["model_pricing_input"], attempt["model_pricing_output"], attempt["price_source"]) == (
        10,
        30,
        "alias",
    )
    assert (shown["cost_usd"], shown["provider_cost_usd"]) == (0.019, 0.0095)
    assert (await scene.api.get(f"/jobs/{job_id}")).json()["costs"]["provider_cost_usd"] == 0.0095
    assert "provider_cost_usd" not in (await team.read(job_id))["costs"]
    assert "0.0095" not in (await team.get(f"/jobs/{job_id}/costs")).text


async def test_a_jobs_calls_are_listed_oldest_first_by_page_and_filter(team: Team):
    job_id = (await team.job())["job_id"]
    ids = [(await ask(team, job_id, purpose=f"p{n}")).json()["call_id"] for n in range(3)]
    page = (await team.get(f"/jobs/{job_id}/calls?limit=2")).json()
    assert [call["call_id"] for call in page["calls"]] == ids[:2]
    assert (page["total"], page["limit"], page["offset"]) == (3, 2, 0)
    assert {"choices", "response"}.isdisjoint(page["calls"][0])
    assert [c["call_id"] for c in (await team.get(f"/jobs/{job_id}/calls?order=desc&offset=1")).json()["calls"]] == ids[
        1::-1
    ]
    assert (await team.get(f"/jobs/{job_id}/calls?purpose=p1")).json()["total"] == 1
    assert (await team.get(f"/jobs/{job_id}/calls?status=failed")).json()["total"] == 0
    beyond = (await team.get(f"/jobs/{job_id}/calls?offset=50")).json()
    assert (beyond["calls"], beyond["total"]) == ([], 3), "the total is true on a page beyond the end too"


@pytest.mark.parametrize(
    ("code", "status", "detail"),
    [
        ("provider_rate_limit", 429, "LLM call failed: provider rate limit"),
        ("provider_error", 502, "LLM call failed: provider error"),
        ("provider_timeout", 504, "LLM call failed: provider timeout"),
        ("content_policy_violation", 400, "LLM call failed: not that"),
        ("internal_error", 500, "LLM call failed: internal error"),
    ],
)
async def test_a_client_that_waits_hears_how_its_call_failed(
    scene: Scene, team: Team, code: str, status: int, detail: str
):
    scene.provider.steps = [refused(code, again="never", message="not that", retry_after_s=7)]
    job_id = (await team.job())["job_id"]
    answer = await ask(team, job_id)
    assert refusal(answer) == (status, detail)
    assert answer.headers["x-call-id"]
    assert answer.headers["location"].startswith(f"/api/jobs/{job_id}/calls/")
    assert answer.headers.get("retry-after") == ("7" if status == 429 else None)
    error = (await team.read(job_id, answer.headers["x-call-id"]))["error"]
    assert set(error) == {"code", "message", "http_status", "retryable", "maybe_billed"}
    assert (error["code"], error["message"], error["http_status"]) == (code, detail, status)


async def test_a_final_call_stays_as_it_ended(team: Team):
    job_id = (await team.job())["job_id"]
    call_id = (await ask(team, job_id)).json()["call_id"]
    again = await team.post(f"/jobs/{job_id}/calls/{call_id}/cancel")
    assert (again.status_code, again.json()["status"]) == (200, "completed")


async def test_metadata_of_a_call_that_is_too_large_is_named_by_its_index(team: Team):
    small, large = {"messages": HELLO}, {"messages": HELLO, "call_metadata": {"x": "y" * 11_000}}
    made = await team.post("/jobs/create", {"team_id": team.id, "job_type": "t", "calls": [small, large]})
    assert made.json()["detail"][0]["loc"] == ["body", "calls", 1, "call_metadata"]


async def test_a_listed_call_keeps_its_id_and_time(team: Team):
    body = {"team_id": team.id, "job_type": "t", "calls": [{"messages": HELLO}]}
    job = (await team.post("/jobs/create", body, Prefer="wait=10")).json()
    call_id = job["calls"][0]["call_id"]
    listed = (await team.get(f"/jobs/{job['job_id']}/calls")).json()["calls"][0]
    read = await team.read(job["job_id"], call_id)
    assert (listed["id"], listed["created"]) == (read["id"], read["created"])
    assert listed["id"] == f"chatcmpl-{call_id.replace('-', '')}"
