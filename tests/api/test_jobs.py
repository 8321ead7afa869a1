"""Jobs and calls as clients see them: every field of the contract, and the worked examples of its credits."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from tests.api.admin import refusal
from tests.scene import HELLO, Scene, Team, agrees, refused

JOB_FIELDS = {
    "job_id",
    "team_id",
    "organization_id",
    "user_id",
    "job_type",
    "batch_id",
    "status",
    "created_at",
    "started_at",
    "completed_at",
    "updated_at",
    "deadline_at",
    "priority",
    "auto_complete",
    "metadata",
    "error_message",
    "failure_reason",
    "external_task_id",
    "credit_applied",
    "credits_charged",
    "credits_held",
    "model_groups_used",
    "counts",
    "costs",
    "callback",
}
COSTS = {
    "total_calls",
    "successful_calls",
    "failed_calls",
    "total_tokens",
    "total_cost_usd",
    "avg_latency_ms",
    "credit_applied",
}
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
NO_CALLS = {"total": 0, "pending": 0, "in_progress": 0, "completed": 0, "failed": 0, "cancelled": 0}


@pytest.fixture
async def team(scene: Scene) -> Team:
    return await scene.team()


async def ask(team: Team, job_id: str, **fields: Any) -> Any:
    return await team.post(f"/jobs/{job_id}/llm-call", {"messages": HELLO, **fields})


async def test_a_new_job_has_every_field(team: Team):
    given = {"user_id": "john@acme.com", "metadata": {"document_id": "d"}, "external_task_id": "x", "priority": 3}
    job = await team.job(deadline_s=60, **given)

    assert set(job) == JOB_FIELDS
    assert set(job["costs"]) == COSTS
    assert {name: job[name] for name in given} == given
    assert (job["team_id"], job["status"], job["counts"], job["auto_complete"]) == (team.id, "pending", NO_CALLS, False)
    assert (job["started_at"], job["completed_at"], job["callback"], job["costs"]["avg_latency_ms"]) == (None,) * 4
    assert job["created_at"].endswith("Z")
    assert len(job["created_at"]) == 24
    assert await team.read(job["job_id"]) == job


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


async def test_an_unfinished_call_says_so(scene: Scene, team: Team):
    scene.live = False
    job_id = (await team.job())["job_id"]
    accepted = await team.submit(job_id)
    waiting = accepted.json()
    assert set(waiting) == {
        "call_id", "job_id", "status", "status_url", "created_at", "queue_position", "estimated_wait_s",
    }  # fmt: skip
    assert accepted.headers["location"] == waiting["status_url"] == f"/api/jobs/{job_id}/calls/{waiting['call_id']}"
    assert 1 <= int(accepted.headers["retry-after"]) <= 60
    assert waiting["estimated_wait_s"] == int(accepted.headers["retry-after"])

    read = await team.get(f"/jobs/{job_id}/calls/{waiting['call_id']}")
    shown = read.json()
    assert (shown["status"], int(read.headers["retry-after"]) >= 1) == ("pending", True)
    assert [shown[name] for name in ("response", "choices", "usage", "id", "created")] == [None] * 5
    job = await team.read(job_id)
    assert (job["status"], job["counts"]) == ("in_progress", {**NO_CALLS, "total": 1, "pending": 1})


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


async def test_completing_sums_the_job_up(team: Team):
    job_id = (await team.job(metadata={"a": 1}))["job_id"]
    calls = [(await ask(team, job_id, purpose=f"p{n}")).json()["call_id"] for n in range(3)]
    body = (await team.complete(job_id, metadata={"b": 2}, result="ignored")).json()

    assert set(body) == {
        "job_id",
        "team_id",
        "status",
        "completed_at",
        "costs",
        "calls",
        "credits_remaining",
        "total_calls",
        "metadata",
    }
    assert set(body["costs"]) == COSTS | {"credits_charged", "credits_remaining"}
    assert (body["status"], body["total_calls"], body["credits_remaining"]) == ("completed", 3, 999)
    assert (body["costs"]["total_tokens"], body["costs"]["total_cost_usd"]) == (1350, 0.0285)
    assert body["metadata"] == {"a": 1, "b": 2}
    assert [call["call_id"] for call in body["calls"]] == calls
    assert set(body["calls"][0]) == {
        "call_id", "purpose", "model_group", "status", "tokens", "latency_ms", "cost_usd", "error",
    }  # fmt: skip


async def test_costs_sum_to_the_total(scene: Scene, team: Team):
    job_id = (await team.job())["job_id"]
    for n in range(3):
        await ask(team, job_id, purpose=f"p{n}")
    body = (await team.get(f"/jobs/{job_id}/costs")).json()

    assert set(body) == {"job_id", "team_id", "job_type", "status", "costs"}
    lines = body["costs"]["breakdown"]
    assert set(lines[0]) == {
        "call_id", "model", "model_group", "purpose", "prompt_tokens", "completion_tokens", "cost_usd", "price_source",
        "created_at",
    }  # fmt: skip
    assert round(sum(line["cost_usd"] for line in lines), 9) == body["costs"]["total_cost_usd"] == 0.0285
    first = await team.get(f"/jobs/{job_id}/costs?limit=2")
    second = await team.get(first.links["next"]["url"].removeprefix("/api"))
    assert [*first.json()["costs"]["breakdown"], *second.json()["costs"]["breakdown"]] == lines
    assert "next" not in second.links
    assert second.json()["costs"]["total_cost_usd"] == 0.0285
    admin = (await scene.api.get(f"/jobs/{job_id}/costs")).json()["costs"]
    assert {"provider_cost_usd", "resolved_model"} <= set(admin["breakdown"][0])


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


async def test_a_job_with_calls_is_accepted_whole(scene: Scene, team: Team):
    wanted = {"team_id": team.id, "job_type": "t", "calls": [{"messages": HELLO}] * 3}
    made = await team.post("/jobs/create", wanted, Prefer="wait=10")
    assert made.status_code == 200
    assert (made.json()["status"], made.json()["total_calls"]) == ("completed", 3)
    assert made.headers["preference-applied"] == "wait=10"

    scene.live = False
    accepted = await team.post("/jobs/create", wanted)
    body = accepted.json()
    assert accepted.status_code == 202
    assert accepted.headers["location"] == f"/api/jobs/{body['job_id']}"
    assert [(call["index"], call["status"]) for call in body["calls"]] == [
        (0, "pending"),
        (1, "pending"),
        (2, "pending"),
    ]
    assert (body["auto_complete"], body["credits_held"], body["counts"]["total"]) == (True, 1, 3)


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


async def test_example_1_three_calls_and_one_credit(team: Team):
    job_id = (await team.job())["job_id"]
    await asyncio.gather(*(ask(team, job_id) for _ in range(3)))
    assert await team.credits() == (1000, 1, 999)
    body = (await team.complete(job_id)).json()
    assert (body["costs"]["credit_applied"], body["costs"]["credits_charged"], body["credits_remaining"]) == (
        True,
        1,
        999,
    )
    assert await team.credits() == (999, 0, 999)


async def test_example_2_completed_five_times_at_once(team: Team):
    job_id = (await team.job())["job_id"]
    await ask(team, job_id)
    answers = await asyncio.gather(*(team.complete(job_id) for _ in range(5)))
    assert ([a.status_code for a in answers], len({a.text for a in answers})) == ([200] * 5, 1)
    assert await team.deductions() == [-1]


async def test_example_3_a_failed_job_costs_nothing(scene: Scene, team: Team):
    job_id = (await team.job())["job_id"]
    await ask(team, job_id)
    body = (await team.complete(job_id, "failed", error_message="bad scan")).json()
    assert (body["costs"]["credit_applied"], body["credits_remaining"]) == (False, 1000)
    assert await team.credits() == (1000, 0, 1000)
    job = await team.read(job_id)
    assert (job["status"], job["failure_reason"], job["error_message"]) == ("failed", "client", "bad scan")
    await agrees(scene, team)


@pytest.mark.parametrize("charge_failed_calls", [False, True])
async def test_example_4_a_call_that_failed_for_good(scene: Scene, charge_failed_calls: bool):
    team = await scene.team(charge_failed_calls=charge_failed_calls)
    job_id = (await team.job())["job_id"]
    await ask(team, job_id)
    await ask(team, job_id)
    scene.provider.steps = [refused("provider_bad_request", again="never")]
    await ask(team, job_id)
    body = (await team.complete(job_id)).json()
    assert body["costs"]["credits_charged"] == int(charge_failed_calls)
    assert (body["costs"]["successful_calls"], body["costs"]["failed_calls"]) == (2, 1)
    await agrees(scene, team)


async def test_example_5_a_job_without_calls_costs_nothing(team: Team):
    body = (await team.complete((await team.job())["job_id"])).json()
    assert (body["total_calls"], body["costs"]["credit_applied"], body["credits_remaining"]) == (0, False, 1000)
    assert body["costs"]["avg_latency_ms"] is None


async def test_example_6_without_credits_a_job_can_be_made_but_no_call(scene: Scene):
    team = await scene.team(credits=0)
    job_id = (await team.job())["job_id"]
    assert refusal(await ask(team, job_id)) == (403, "Insufficient credits")
    assert (await team.read(job_id))["status"] == "pending"


async def test_example_7_one_credit_and_two_first_calls_at_once(scene: Scene):
    team = await scene.team(credits=1)
    jobs = [(await team.job())["job_id"] for _ in range(2)]
    answers = await asyncio.gather(*(ask(team, job_id) for job_id in jobs))
    assert sorted(a.status_code for a in answers) == [200, 403]
    assert await team.credits() == (1, 1, 0)


async def test_completing_while_calls_run(scene: Scene, team: Team):
    scene.provider.held.clear()
    job_id = (await team.job())["job_id"]
    ids = [await team.call(job_id) for _ in range(2)]
    await scene.provider.until_asked(2)

    early = await team.complete(job_id)
    assert refusal(early) == (409, "Job has 2 unfinished calls")
    assert int(early.headers["retry-after"]) >= 1
    waiting = asyncio.create_task(team.post(f"/jobs/{job_id}/complete", {"status": "completed"}, Prefer="wait=20"))
    await asyncio.sleep(0.05)
    scene.provider.held.set()
    done = await waiting
    assert (done.status_code, done.json()["costs"]["successful_calls"]) == (200, 2)
    assert {call["call_id"] for call in done.json()["calls"]} == set(ids)


async def test_failing_a_job_cancels_what_runs(scene: Scene, team: Team):
    scene.provider.held.clear()
    job_id = (await team.job())["job_id"]
    call_id = await team.call(job_id)
    await scene.provider.until_asked(1)
    assert (await team.complete(job_id, "failed")).status_code == 200
    assert (await team.read(job_id, call_id))["status"] == "cancelled"
    await asyncio.wait(scene.tasks, timeout=5)
    assert len(scene.provider.closed) == 1


@pytest.mark.parametrize("final", ["completed", "failed", "cancelled"])
async def test_a_final_job_is_never_left(team: Team, final: str):
    job_id = (await team.job())["job_id"]
    await ask(team, job_id)
    if final == "cancelled":
        first = await team.post(f"/jobs/{job_id}/cancel", {"reason": "changed my mind"})
    else:
        first = await team.complete(job_id, final)
    assert (first.status_code, first.json()["status"]) == (200, final)

    text = f"Job is already {final}"
    assert refusal(await ask(team, job_id)) == (409, text)
    for status in {"completed", "failed"} - {final}:
        assert refusal(await team.complete(job_id, status)) == (409, text)
    cancelled = await team.post(f"/jobs/{job_id}/cancel")
    assert (cancelled.json() == first.json()) if final == "cancelled" else (refusal(cancelled) == (409, text))
    if final != "cancelled":
        assert (await team.complete(job_id, final)).json() == first.json()


async def test_a_final_call_stays_as_it_ended(team: Team):
    job_id = (await team.job())["job_id"]
    call_id = (await ask(team, job_id)).json()["call_id"]
    again = await team.post(f"/jobs/{job_id}/calls/{call_id}/cancel")
    assert (again.status_code, again.json()["status"]) == (200, "completed")


async def test_a_jobs_priority_is_that_of_calls_added_later(scene: Scene, team: Team):
    scene.live = False
    job = await team.job(priority=50)
    call_id = await team.call(job["job_id"])
    assert (await scene.row("select priority from calls where id = :id", id=UUID(call_id))).priority == 50


async def test_a_refused_end_of_a_large_job_ends_nothing(scene: Scene, team: Team):
    scene.live = False
    job = await team.job(calls=[{"messages": HELLO}] * 501)
    ended = await team.complete(job["job_id"], "failed", metadata={"x": "y" * 11_000})
    assert ended.status_code == 422
    assert (await team.read(job["job_id"]))["counts"]["pending"] == 501


async def test_a_completion_that_waits_is_answered_at_shutdown(scene: Scene, team: Team):
    scene.live = False
    job = await team.job()
    await team.call(job["job_id"])
    path = f"/jobs/{job['job_id']}/complete"
    waiting = asyncio.create_task(team.post(path, {"status": "completed"}, Prefer="wait=60"))
    await asyncio.wait([waiting], timeout=0.2)
    await scene.app.state.desk.waiters.close()
    async with asyncio.timeout(8):
        assert (await waiting).status_code == 409


async def test_metadata_of_a_call_that_is_too_large_is_named_by_its_index(team: Team):
    small, large = {"messages": HELLO}, {"messages": HELLO, "call_metadata": {"x": "y" * 11_000}}
    made = await team.post("/jobs/create", {"team_id": team.id, "job_type": "t", "calls": [small, large]})
    assert made.json()["detail"][0]["loc"] == ["body", "calls", 1, "call_metadata"]


async def test_metadata_is_merged_also_after_the_end(team: Team):
    job_id = (await team.job(metadata={"a": 1, "b": 1}))["job_id"]
    await team.complete(job_id, "failed")
    merged = await team.send("PATCH", f"/jobs/{job_id}/metadata", {"metadata": {"b": 2, "c": {"d": 3}}})
    assert merged.json()["metadata"] == {"a": 1, "b": 2, "c": {"d": 3}} == (await team.read(job_id))["metadata"]
    too_large = await team.send("PATCH", f"/jobs/{job_id}/metadata", {"metadata": {"x": "y" * 11_000}})
    finding = {
        "loc": ["body", "metadata"],
        "msg": "metadata exceeds 10240 bytes",
        "type": "value_error.metadata_too_large",
    }
    assert refusal(too_large) == (422, [finding])
    assert refusal(await team.send("PATCH", f"/jobs/{job_id}/metadata", {}))[0] == 422


async def test_an_unpriced_call_is_flagged_in_the_costs(scene: Scene):
    free = {"allow_unpriced": True, "litellm_model": "openai/nobody-knows-its-price"}
    team = await scene.team(alias={**free, "pricing_input": None, "pricing_output": None})
    priced = await scene.team()
    for found, source in ((team, "unpriced"), (priced, "alias")):
        body = {"team_id": found.id, "job_type": "t", "calls": [{"messages": HELLO}]}
        job = (await found.post("/jobs/create", body, Prefer="wait=10")).json()
        [line] = (await found.get(f"/jobs/{job['job_id']}/costs")).json()["costs"]["breakdown"]
        [seen] = (await scene.api.get(f"/jobs/{job['job_id']}/costs")).json()["costs"]["breakdown"]
        assert (line["price_source"], seen["price_source"]) == (source, source)
        assert "resolved_model" not in line
        assert seen["resolved_model"].startswith("openai/")


async def test_a_listed_call_keeps_its_id_and_time(team: Team):
    body = {"team_id": team.id, "job_type": "t", "calls": [{"messages": HELLO}]}
    job = (await team.post("/jobs/create", body, Prefer="wait=10")).json()
    call_id = job["calls"][0]["call_id"]
    listed = (await team.get(f"/jobs/{job['job_id']}/calls")).json()["calls"][0]
    read = await team.read(job["job_id"], call_id)
    assert (listed["id"], listed["created"]) == (read["id"], read["created"])
    assert listed["id"] == f"chatcmpl-{call_id.replace('-', '')}"
