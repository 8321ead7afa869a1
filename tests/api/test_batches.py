"""Batches: made in three forms, checked before anything is queued, read and listed."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from api.batch_objects import errors_object
from shared import ids
from tests.api.batch_requests import (
    ASKED,
    CHAT,
    batch_of,
    create,
    ended,
    items,
    ndjson,
    read,
    send,
    shown,
    tended,
    uuid_of,
)
from tests.api.gateway import problem, said
from tests.money import budget, paying
from tests.scene import Scene, Team, answer, refused

KEYS = [
    "id", "object", "endpoint", "model", "errors", "input_file_id", "completion_window", "status", "output_file_id",
    "error_file_id", "created_at", "in_progress_at", "expires_at", "estimated_completion_at", "finalizing_at",
    "completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at", "request_counts", "usage", "metadata",
    "job_id", "retry_of", "cost_usd", "estimated_cost_usd", "credits_charged", "error_summary", "callback",
]  # fmt: skip


@pytest.fixture
async def team(scene: Scene) -> AsyncIterator[Team]:
    async with tended(scene):
        yield await scene.team()


async def input_of(team: Team, batch: dict[str, Any]) -> list[Any]:
    """The lines of a batch's input file."""
    own = {"Authorization": f"Bearer {team.key}"}
    found = await team.scene.client.get(f"/v1/files/{batch['input_file_id']}/content", headers=own)
    assert found.status_code == 200, found.text
    return [orjson.loads(line) for line in found.content.splitlines()]


async def test_requests_in_the_body_become_a_batch_that_runs_to_its_end(scene: Scene, team: Team):
    batch = await batch_of(team, "a", "b", "c", metadata={"for": "reports"})
    assert list(batch) == KEYS
    assert (batch["status"], batch["endpoint"], batch["model"]) == ("in_progress", CHAT, team.models[0])
    assert batch["metadata"] == {"for": "reports"}
    assert batch["expires_at"] - batch["created_at"] == 86_400
    one_deadline = "select j.deadline_at = b.expires_at as same from jobs j join batches b using (id) where id = :id"
    assert (await scene.row(one_deadline, id=uuid_of(batch))).same
    assert batch["request_counts"] == {
        "total": 3, "completed": 0, "failed": 0, "pending": 3, "in_progress": 0, "cancelled": 0, "expired": 0,
    }  # fmt: skip
    assert [line["url"] for line in await input_of(team, batch)] == [CHAT] * 3
    scene.provider.steps = [refused("provider_auth", again="never"), answer(), answer()]
    over = await ended(team, batch)
    assert list(over) == KEYS
    assert (over["status"], over["request_counts"]["completed"], over["request_counts"]["failed"]) == (
        "completed",
        2,
        1,
    )
    assert over["error_summary"] == [{"code": "provider_auth", "count": 1}]
    assert over["usage"] == {
        "input_tokens": 400, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 500, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 900,
    }  # fmt: skip
    assert over["cost_usd"] == 0.019
    assert over["credits_charged"] == 2
    assert over["output_file_id"]
    assert over["error_file_id"]
    assert over["estimated_completion_at"] is None
    job = await team.read(batch["job_id"])
    assert (job["job_type"], job["metadata"], job["counts"]["total"]) == ("batch", {"for": "reports"}, 3)
    assert await scene.events(batch["job_id"]) == [
        "job.created", "job.started", "job.completed", "batch.completed",
    ]  # fmt: skip


async def test_lines_as_the_body_become_the_same_batch(team: Team):
    query = f"?endpoint={CHAT}&completion_window=90m&metadata=%7B%22a%22:%22b%22%7D"
    body = ndjson(items(team, "a", "b"))
    query += "&output_expires_after[seconds]=7200&output_expires_after[anchor]=created_at"
    batch = shown(await send(team, "POST", query, content=body, Content_Type="application/x-ndjson; charset=utf-8"))
    assert (batch["status"], batch["request_counts"]["total"], batch["metadata"]) == ("in_progress", 2, {"a": "b"})
    kept = await team.scene.row("select output_expires_after_s as s from batches where id = :id", id=uuid_of(batch))
    assert kept.s == 7200
    assert batch["expires_at"] - batch["created_at"] == 5400
    assert [line["custom_id"] for line in await input_of(team, batch)] == ["a", "b"]


async def test_an_uploaded_file_is_read_whatever_the_content_type_says_of_the_body(team: Team):
    file_id = (await batch_of(team, "a"))["input_file_id"]
    body = orjson.dumps({**ASKED, "input_file_id": file_id, "unknown": 1})
    batch = shown(await send(team, "POST", content=body, Content_Type="text/plain"))
    assert (batch["input_file_id"], batch["status"]) == (file_id, "in_progress")


async def test_lines_with_faults_refuse_the_batch_with_a_list_and_leave_nothing_queued(scene: Scene, team: Team):
    batch = await batch_of(team, requests=[*items(team, "a", "a"), "no object", {"custom_id": "b"}])
    assert list(batch) == KEYS
    assert (batch["status"], batch["request_counts"]["total"]) == ("failed", 0)
    assert batch["failed_at"]
    faults = batch["errors"]["data"]
    assert [(fault["code"], fault["line"]) for fault in faults] == [
        ("duplicate_custom_id", 2), ("invalid_json_line", 3), ("missing_required_field", 4),
    ]  # fmt: skip
    assert batch["error_summary"][0]["count"] == 1
    assert (await scene.row("select count(*) as n from calls where team_id = :id", id=team.id)).n == 0
    assert await team.credits() == (1000, 0, 1000)
    assert await read(team, batch["id"]) == batch


def test_of_a_thousand_faults_the_last_says_that_there_may_be_more():
    fault = {"code": "invalid_url", "line": 1, "param": "url", "message": "no"}
    for count, last in ((999, "no"), (1000, "no (the check stopped here, at 1,000 faults: lines behind this one")):
        told = errors_object([fault] * count)
        assert told is not None
        assert [told["data"][n]["message"].startswith(text) for n, text in ((0, "no"), (-1, last))] == [True, True]
        assert told["data"][-2]["message"] == "no"


BAD_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"endpoint": "/v1/responses"}, "endpoint"),
    ({"endpoint": None}, "endpoint"),
    ({"completion_window": "14m"}, "completion_window"),
    ({"completion_window": "8d"}, "completion_window"),
    ({"completion_window": "24"}, "completion_window"),
    ({"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
    ({"metadata": {"k": "x" * 513}}, "metadata"),
    ({"metadata": {"k" * 65: "x"}}, "metadata"),
    ({"metadata": {"k": 1}}, "metadata"),
    ({"output_expires_after": {"anchor": "now", "seconds": 3600}}, "output_expires_after.anchor"),
    ({"output_expires_after": {"anchor": "created_at", "seconds": 3599}}, "output_expires_after.seconds"),
    ({"input_file_id": "file-" + "0" * 32}, "input_file_id"),
    ({"requests": None}, "input_file_id"),
    ({"requests": None, "input_file_id": "file-" + "0" * 32}, "input_file_id"),
    ({"requests": None, "input_file_id": "none"}, "input_file_id"),
    ({"requests": []}, "requests"),
    ({"dry_run": "yes"}, "dry_run"),
    ({"callback_url": "http://hook.example", "callback_events": ["job.completed"]}, "callback_events[0]"),
    ({"callback_events": ["batch.completed"]}, "callback_url"),
]


async def test_a_request_that_is_not_in_order_is_told_where(scene: Scene, team: Team):
    for fields, param in BAD_FIELDS:
        found = await create(team, **{"requests": items(team, "a"), **fields})
        assert problem(found) == (400, "invalid_request_error", param, 400), fields
    assert said(await create(team, "a", metadata={"k": 1})) == (
        "'metadata': must be an object of at most 16 strings of up to 512 characters, under names of up to 64"
    )
    for table in ("jobs", "batches", "files"):
        assert (await scene.row(f"select count(*) as n from {table} where team_id = :id", id=team.id)).n == 0


async def test_an_unknown_endpoint_is_told_which_there_are(team: Team):
    assert said(await create(team, "a", endpoint="/v1/images")) == (
        "'endpoint': must be one of: /v1/chat/completions, /v1/completions, /v1/embeddings"
    )


async def test_lines_need_a_query_and_are_not_stored_without(scene: Scene, team: Team):
    for query, param in (
        ("", "endpoint"),
        (f"?endpoint={CHAT}", "completion_window"),
        (f"?endpoint={CHAT}&completion_window=24h&metadata=x", "metadata"),
    ):
        found = await send(team, "POST", query, content=b"x" * 2_000_000, Content_Type="application/x-ndjson")
        assert problem(found) == (400, "invalid_request_error", param, 400)
    assert await scene.rows("select id from files where team_id = :id", id=team.id) == []


WINDOW = f"?endpoint={CHAT}&completion_window=24h"
NDJSON, FORM, TEXT = "application/x-ndjson", "multipart/form-data; boundary=XX", "application/x-www-form-urlencoded"
WHOLE = b'{"custom_id": "a"}\n{"custom_id": "b"}\n'
MISPLACED = [
    (WINDOW, WHOLE, TEXT, "endpoint", "sent with Content-Type: application/x-ndjson"),
    ("", WHOLE, TEXT, None, "send it with Content-Type: application/x-ndjson"),
    ("", b"--XX--", FORM, None, "Upload the file at /v1/files first"),
    ("?metadata={}", b"{}", "application/json", "metadata", "a JSON body says it itself"),
    ("?callback_secret=x", b"{}", "application/json", "callback_secret", "belongs in a JSON body"),
    (WINDOW + "&callback_secret=x", WHOLE, NDJSON, "callback_secret", "belongs in a JSON body"),
    (WINDOW + "&input_file_id=x", WHOLE, NDJSON, "input_file_id", "belongs in a JSON body"),
    (WINDOW + "&output_expires_after[anchor]=created_at", WHOLE, NDJSON, "output_expires_after[seconds]", "required"),
    (WINDOW + "&output_expires_after[seconds]=60", WHOLE, NDJSON, "output_expires_after[seconds]", "equal to 3600"),
]


async def test_what_is_sent_in_the_wrong_place_or_as_the_wrong_type_is_told_where_it_belongs(scene: Scene, team: Team):
    for query, content, type_, param, words in MISPLACED:
        found = await send(team, "POST", query, content=content, Content_Type=type_)
        assert problem(found) == (400, "invalid_request_error", param, 400), (query, said(found))
        assert words in said(found)
    announced = {"Content_Type": "application/json", "Content_Length": str(scene.rt.settings.max_body_bytes + 1)}
    long = await send(team, "POST", content=b"{}", **announced)
    assert (long.status_code, problem(long)[1]) == (413, "invalid_request_error")
    assert "at most 20 MB: send up to 200 MB of lines as application/x-ndjson, or upload a file" in said(long)
    assert await scene.rows("select id from files where team_id = :id", id=team.id) == []


async def test_lines_over_the_limit_are_refused_by_what_is_announced(team: Team):
    query = f"?endpoint={CHAT}&completion_window=24h"
    announced = {"Content_Type": "application/x-ndjson", "Content_Length": str(200 * 1024 * 1024 + 1)}
    found = await send(team, "POST", query, content=b"{}", **announced)
    assert (found.status_code, problem(found)[1]) == (413, "invalid_request_error")


async def test_a_file_that_no_batch_of_the_team_can_read_is_refused(scene: Scene, team: Team):
    named = (await batch_of(team, "a"))["input_file_id"]
    other, file_id = await scene.team(), ids.parse_file(named)
    assert problem(await create(other, input_file_id=named)) == (400, "invalid_request_error", "input_file_id", 400)
    for change in (
        "bytes = 209715201",
        "bytes = 1, purpose = 'batch_output'",
        "purpose = 'batch', expires_at = app_now()",
    ):
        await scene.rows(f"update files set {change} where id = :id returning id", id=file_id)
        found = await create(team, input_file_id=named)
        assert problem(found) == (400, "invalid_request_error", "input_file_id", 400), change


async def test_a_batch_that_is_not_paid_for_is_402_and_its_key_is_free_again(scene: Scene):
    async with tended(scene):
        team = await scene.team(credits=2)
        found = await create(team, "a", "b", "c", Idempotency_Key="k")
        assert problem(found) == (402, "budget_exceeded", None, "insufficient_credits")
        assert said(found) == "Insufficient credits"
        assert found.headers["x-should-retry"] == "false"
        assert await team.credits() == (2, 0, 2)
        [refused_] = (await send(team, "GET")).json()["data"]
        assert found.headers["x-job-id"] == refused_["job_id"]
        assert (refused_["status"], refused_["errors"]["data"][0]["code"]) == ("failed", "insufficient_credits")
        left = await scene.rows("select id from files where team_id = :id and status = 'processed'", id=team.id)
        assert left == []
        await scene.api.post(f"/credits/teams/{team.id}/add", {"amount": 1})
        batch = await batch_of(team, "a", "b", "c", Idempotency_Key="k")
        assert batch["status"] == "in_progress"
        assert batch["id"] != refused_["id"]


@pytest.mark.parametrize("of_key", [True, False])
async def test_a_budget_that_running_lines_hold_is_told_as_one_that_will_have_room(scene: Scene, of_key: bool):
    async with tended(scene):
        team = await paying(scene)
        await budget(scene, team, max_nanousd=10**12, of_key=of_key)
        await batch_of(team, "a")
        await scene.rows("update budgets set max_nanousd = held_nanousd * 3 / 2 where held_nanousd > 0 returning id")
        soon, never = await create(team, "b"), await create(team, "b", "c")
        assert problem(soon) == (402, "budget_exceeded", None, "budget_in_flight")
        assert problem(never) == (402, "budget_exceeded", None, "budget_exceeded")
        assert (soon.headers["retry-after"], "retry-after" in never.headers) == ("5", False)
        assert said(soon) == said(never) == f"Budget exceeded for this {'API key' if of_key else 'team'}"


async def test_a_batch_that_was_taken_before_it_was_refused_is_told_as_it_is(scene: Scene):
    async with tended(scene) as unit:
        team = await scene.team(credits=0)
        scene.tend = None
        first = await batch_of(team, "a", Idempotency_Key="k", Prefer="wait=0")
        await unit.take([uuid_of(first)])
        await read(team, first["id"], "?wait=5")
        again = await batch_of(team, "a", Idempotency_Key="k")
        assert (again["id"], again["status"]) == (first["id"], "failed")
        assert list(again["errors"]["data"][0].values()) == [
            "insufficient_credits", "Insufficient credits", None, None,
        ]  # fmt: skip


async def test_a_repeat_answers_with_the_first_batch_as_it_is_now(scene: Scene, team: Team):
    scene.tend = None
    first = await batch_of(team, "a", Idempotency_Key="k", Prefer="wait=0")
    assert first["status"] == "validating"
    again = await create(team, "a", Idempotency_Key="k", Prefer="wait=0")
    assert (shown(again)["id"], again.headers["idempotent-replayed"]) == (first["id"], "true")
    other = await create(team, "b", Idempotency_Key="k")
    assert (other.status_code, problem(other)[3]) == (422, "idempotency_key_reused")
    async with tended(scene) as unit:
        await unit.take([uuid_of(first)])
        assert (await batch_of(team, "a", Idempotency_Key="k"))["status"] == "in_progress"
    found = await scene.row("select count(*) as n from batches where team_id = :id", id=team.id)
    assert found.n == 1


async def test_a_repeat_of_lines_compares_their_bytes(scene: Scene, team: Team):
    query = f"?endpoint={CHAT}&completion_window=24h"
    own = {"Content_Type": "application/x-ndjson", "Idempotency_Key": "k"}
    first = shown(await send(team, "POST", query, content=ndjson(items(team, "a")), **own))
    scene.app.state.desk.door.is_closed = True
    again = shown(await send(team, "POST", query, content=ndjson(items(team, "a")), **own))
    assert again["id"] == first["id"], "also of a process that is closing"
    other = await send(team, "POST", query, content=ndjson(items(team, "b")), **own)
    assert problem(other)[3] == "idempotency_key_reused"
    assert (await scene.row("select count(*) as n from files where team_id = :id", id=team.id)).n == 1


async def test_a_dry_run_says_what_it_would_cost_and_leaves_nothing(scene: Scene, team: Team):
    found = (await create(team, "a", "b", query="?dry_run=true")).json()
    assert list(found) == [
        "valid", "errors", "lines", "estimated_tokens", "estimated_cost_usd", "credits_needed", "credits_available",
        "fits",
    ]  # fmt: skip
    assert (found["valid"], found["errors"], found["lines"], found["fits"]) == (True, None, 2, True)
    assert (found["credits_needed"], found["credits_available"]) == (2, 1000)
    assert found["estimated_cost_usd"] > 0
    assert (await send(team, "GET")).json()["data"] == []
    [row] = await scene.rows("select id from batches where team_id = :id", id=team.id)
    assert (await send(team, "GET", f"/{ids.batch(row.id)}")).status_code == 404
    for table in ("jobs", "events", "calls"):
        assert await scene.rows(f"select 1 from {table} where team_id = :id", id=team.id) == []
    files = await scene.rows("select id from files where team_id = :id and status = 'processed'", id=team.id)
    assert files == []


async def test_a_dry_run_tells_faults_and_lack_of_credits_apart(scene: Scene):
    async with tended(scene):
        team = await scene.team(credits=1)
        short = (await create(team, "a", "b", query="?dry_run=true")).json()
        assert (short["valid"], short["errors"], short["fits"]) == (True, None, False)
        assert (short["credits_needed"], short["credits_available"]) == (2, 1)
        wrong = (await create(team, "a", "a", dry_run=True)).json()
        assert (wrong["valid"], wrong["fits"], wrong["lines"]) == (False, False, 1)
        assert (await send(team, "GET")).json()["data"] == []
        assert wrong["errors"]["data"][0]["code"] == "duplicate_custom_id"


async def test_a_dry_run_that_takes_too_long_is_503(scene: Scene, team: Team):
    scene.tend = None
    found = await create(team, "a", query="?dry_run=true", Prefer="wait=0.01")
    assert problem(found)[:2] == (503, "service_unavailable")
    assert found.headers["retry-after"] == "10"


async def test_rate_limits_do_not_count_a_batch_but_one_of_0_refuses_it(scene: Scene):
    async with tended(scene):
        team = await scene.team(rpm_limit=1, tpm_limit=1)
        for query in ("?dry_run=true", "", ""):
            taken = await create(team, "a", query=query)
            assert (taken.status_code, "x-ratelimit-limit" in taken.headers) == (200, False)
        for limits in ({"rpm_limit": 0}, {"tpm_limit": 0}):
            barred = await scene.team(**limits)
            refused_ = await create(barred, "a")
            assert problem(refused_)[:2] == (429, "rate_limit_error")
            assert "Current limit: 0" in said(refused_)
            assert (await send(barred, "GET")).json()["data"] == []
        kept = await scene.rows("select id from files where team_id = :id and status = 'processed'", id=team.id)
        assert len(kept) == 2


async def test_a_closing_process_takes_no_batch_and_keeps_no_lines(scene: Scene, team: Team):
    query, sent = f"?endpoint={CHAT}&completion_window=24h", []
    own = {"Authorization": f"Bearer {team.key}", "Content-Type": NDJSON}

    async def lines() -> AsyncIterator[bytes]:
        sent.append(True)
        yield ndjson(items(team, "a"))

    scene.app.state.desk.door.is_closed = True
    assert problem(await create(team, "a"))[0] == 503
    found = await scene.client.post(f"/v1/batches{query}", content=lines(), headers=own)
    assert (found.status_code, sent) == (503, []), "the lines are not even read"
    assert await scene.rows("select id from files where team_id = :id", id=team.id) == []


async def test_a_secret_of_a_callback_is_sealed_where_deliveries_open_it(scene: Scene, team: Team):
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    batch = await batch_of(team, "a", callback_url="http://127.0.0.1:9999/hook", callback_secret=secret)
    job = await scene.row("select * from jobs where id = :id", id=uuid_of(batch))
    assert job.callback_url == "http://127.0.0.1:9999/hook"
    assert job.callback_events == ["batch.completed", "batch.failed", "batch.expired", "batch.cancelled"]
    purpose = f"jobs.callback_secret:{job.id}"
    assert scene.rt.sealer.open(job.callback_secret_sealed, purpose=purpose) == secret
    await ended(team, batch)
    [delivery] = await scene.rows("select event_type, callback from deliveries where team_id = :id", id=team.id)
    assert (delivery.event_type, delivery.callback) == ("batch.completed", "job")


async def test_a_list_is_newest_first_and_goes_on_behind_an_id(scene: Scene, team: Team):
    empty = (await send(team, "GET")).json()
    assert empty == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    made = [(await batch_of(team, name))["id"] for name in "abc"]
    page = (await send(team, "GET", "?limit=2")).json()
    assert [batch["id"] for batch in page["data"]] == [made[2], made[1]]
    assert (page["first_id"], page["last_id"], page["has_more"]) == (made[2], made[1], True)
    rest = (await send(team, "GET", f"?limit=2&after={page['last_id']}")).json()
    assert ([batch["id"] for batch in rest["data"]], rest["has_more"]) == ([made[0]], False)
    assert rest["data"] == [await read(team, made[0])]
    other = await scene.team()
    assert (await send(other, "GET")).json()["data"] == []


async def test_a_page_that_cannot_be_and_a_batch_that_is_not_there_are_refused(team: Team):
    for query, param in (("?limit=0", "limit"), ("?limit=101", "limit"), ("?after=x", "after")):
        assert problem(await send(team, "GET", query)) == (400, "invalid_request_error", param, 400)
    for name in ("batch_" + "0" * 32, "batch_1", "x"):
        for method, path in (("GET", ""), ("POST", "/cancel"), ("POST", "/retry")):
            found = await send(team, method, f"/{name}{path}", {} if path else None)
            assert problem(found) == (404, "not_found_error", "id", 404)
            assert said(found) == f"No batch found with id '{name}'."
