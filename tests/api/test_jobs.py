"""Jobs as clients see them: every field of the contract, what their calls cost, their metadata and priority."""

from uuid import UUID

from tests.api.admin import refusal
from tests.api.asking import ask
from tests.scene import HELLO, Scene, Team

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
NO_CALLS = {"total": 0, "pending": 0, "in_progress": 0, "completed": 0, "failed": 0, "cancelled": 0}


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


async def test_a_jobs_priority_is_that_of_calls_added_later(scene: Scene, team: Team):
    scene.live = False
    job = await team.job(priority=50)
    call_id = await team.call(job["job_id"])
    assert (await scene.row("select priority from calls where id = :id", id=UUID(call_id))).priority == 50


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
