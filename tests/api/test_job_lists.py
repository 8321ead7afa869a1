"""Lists of jobs: true totals, every filter and order, and nobody sees another team's."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from api.wire.job_lists import JobDetailOut, JobsOut, JobSummariesOut, TeamJobsOut
from shared.clock import iso
from shared.job_lists import MOST_TEXT_BYTES
from shared.money import usd
from tests.api import past as past_
from tests.api.admin import made, refusal, unique, wrong_place
from tests.api.past import FIRST, PastJob
from tests.scene import HELLO, Scene, Team

SECOND_DAY = FIRST + timedelta(days=1)
NOON = FIRST + timedelta(days=1, hours=12)
STATUSES = "pending, in_progress, completed, failed, cancelled"


class Past:
    """Two teams of one organization with a past."""

    def __init__(self, organization_id: str, teams: tuple[Team, Team], jobs: list[PastJob]) -> None:
        self.organization_id, self.teams, self.jobs = organization_id, teams, jobs

    def ids(self, keep: Callable[[PastJob], bool] = lambda _: True) -> list[str]:
        """Of those to keep, newest first."""
        return [str(job.id) for job in sorted(filter(keep, self.jobs), key=_age, reverse=True)]


def _age(job: PastJob) -> tuple[Any, ...]:
    return job.created_at, job.id


@pytest.fixture
async def past(scene: Scene) -> Past:
    organization_id = (await scene.api.organization())["organization_id"]
    teams = await scene.team(organization_id=organization_id), await scene.team(organization_id=organization_id)
    jobs = past_.made_up([team.id for team in teams], jobs=60, seed=7)
    await past_.put(scene, jobs, organization_id)
    return Past(organization_id, teams, jobs)


async def listed(scene: Scene, query: str, *, key: str | None = None) -> tuple[list[str], int]:
    """Ids of a page, and the total."""
    body = made(await scene.api.get(f"/jobs?{query}", key=key))
    JobsOut.model_validate(body)
    return [job["job_id"] for job in body["jobs"]], body["total"]


FILTERS: list[tuple[str, Callable[[PastJob], bool]]] = [
    ("", lambda _: True),
    ("status=failed", lambda job: job.status == "failed"),
    ("status=FAILED&status=Pending", lambda job: job.status in ("failed", "pending")),
    ("job_type=mail", lambda job: job.job_type == "mail"),
    ("user_id=ann", lambda job: job.user_id == "ann"),
    ("user_id=nobody", lambda _: False),
    ("external_task_id=task-1", lambda job: job.external_task_id == "task-1"),
    ("user_id=ann&job_type=mail&status=completed", lambda job: (job.user_id, job.job_type, job.status) == (
        "ann", "mail", "completed")),
    ("start_date=2026-01-11", lambda job: job.created_at >= SECOND_DAY),
    ("end_date=2026-01-11", lambda job: job.created_at < SECOND_DAY + timedelta(days=1)),
    ("start_date=2026-01-11&end_date=2026-01-11", lambda job: job.created_at.date() == SECOND_DAY.date()),
    ("start_date=2026-01-11T12:00:00Z&end_date=2026-01-11T23:59:59.999Z",
     lambda job: NOON <= job.created_at < SECOND_DAY + timedelta(days=1)),
    ("start_date=2026-01-12&end_date=2026-01-11", lambda _: False),
]  # fmt: skip


@pytest.mark.parametrize(("query", "keep"), FILTERS, ids=[query or "all" for query, _ in FILTERS])
async def test_every_filter_gives_what_matches_newest_first_with_the_true_total(
    scene: Scene, past: Past, query: str, keep: Callable[[PastJob], bool]
):
    expected = past.ids(keep)
    ids, total = await listed(scene, f"organization_id={past.organization_id}&limit=7&{query}")
    assert (ids, total) == (expected[:7], len(expected))
    second, _ = await listed(scene, f"organization_id={past.organization_id}&limit=7&offset=7&{query}")
    assert second == expected[7:14]


@pytest.mark.parametrize("sort_by", ["created_at", "started_at", "completed_at", "status", "job_type"])
@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_any_order_is_whole_with_nulls_last_and_ties_by_id(scene: Scene, past: Past, sort_by: str, order: str):
    known = sorted(
        (job for job in past.jobs if getattr(job, sort_by) is not None),
        key=lambda job: (getattr(job, sort_by), job.id),
        reverse=order == "desc",
    )
    unknown = sorted(
        (job for job in past.jobs if getattr(job, sort_by) is None), key=lambda job: job.id, reverse=order == "desc"
    )
    found = await listed(scene, f"organization_id={past.organization_id}&sort_by={sort_by}&order={order}")
    assert found == ([str(job.id) for job in [*known, *unknown]], len(past.jobs))


async def test_a_listed_job_is_the_job_object(scene: Scene, past: Past):
    team = past.teams[0]
    for key in (team.key, None):
        for job in made(await scene.api.get(f"/jobs?team_id={team.id}&limit=1000", key=key))["jobs"]:
            assert job == made(await scene.api.get(f"/jobs/{job['job_id']}", key=key))
            assert ("provider_cost_usd" in job["costs"]) == (key is None)


async def test_a_team_lists_its_own_jobs_only(scene: Scene, past: Past):
    ours, theirs = past.teams
    assert await listed(scene, "limit=5", key=ours.key) == (
        past.ids(lambda job: job.team_id == ours.id)[:5],
        sum(job.team_id == ours.id for job in past.jobs),
    )
    assert (await listed(scene, f"team_id={ours.id}", key=ours.key))[1] > 0
    refused = 403, "Cannot access jobs for a different team"
    assert refusal(await ours.get(f"/jobs?team_id={theirs.id}")) == refused
    assert refusal(await ours.get(f"/teams/{theirs.id}/jobs")) == refused
    assert refusal(await ours.get(f"/teams/{unique('none')}/jobs")) == refused
    other = (await scene.api.organization())["organization_id"]
    assert await listed(scene, f"organization_id={other}", key=ours.key) == ([], 0)
    assert refusal(await ours.get(f"/jobs/teams/{ours.id}")) == (403, "Admin access required")


async def test_a_teams_jobs_are_read_under_its_own_path_too(scene: Scene, past: Past):
    team = past.teams[1]
    for key in (team.key, None):
        body = made(await scene.api.get(f"/teams/{team.id}/jobs?status=completed&limit=3", key=key))
        TeamJobsOut.model_validate(body)
        expected = past.ids(lambda job: job.team_id == team.id and job.status == "completed")
        assert (body["team_id"], body["total"]) == (team.id, len(expected))
        assert [job["job_id"] for job in body["jobs"]] == expected[:3]
    missing = unique("none")
    assert refusal(await scene.api.get(f"/teams/{missing}/jobs")) == (404, f"Team '{missing}' not found")


async def test_the_next_page_is_linked_until_there_is_none(scene: Scene, past: Past):
    path: str | None = f"/jobs?organization_id={past.organization_id}&limit=25&status=completed&status=failed"
    seen = []
    while path is not None:
        page = await scene.api.get(path)
        seen += [job["job_id"] for job in made(page)["jobs"]]
        path = page.links["next"]["url"].removeprefix("/api") if "next" in page.links else None
    assert seen == past.ids(lambda job: job.status in ("completed", "failed"))


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("status=zzz", f"Invalid status: zzz. Must be one of: {STATUSES}"),
        ("status=failed&status=", f"Invalid status: . Must be one of: {STATUSES}"),
        ("start_date=zzz", "Invalid start_date format: zzz. Use ISO format (YYYY-MM-DD)"),
        ("end_date=2026-02-30", "Invalid end_date format: 2026-02-30. Use ISO format (YYYY-MM-DD)"),
    ],
)
async def test_a_wrong_word_is_refused_by_name(scene: Scene, query: str, detail: str):
    team = await scene.team()
    for path in ("/jobs", f"/teams/{team.id}/jobs", f"/jobs/teams/{team.id}"):
        assert refusal(await scene.api.get(f"{path}?{query}")) == (400, detail)


@pytest.mark.parametrize(
    "query", ["sort_by=cost", "order=up", "limit=0", "limit=1001", "offset=-1", "offset=x", "job_type=%00"]
)
async def test_a_query_out_of_bounds_is_422(scene: Scene, query: str):
    assert wrong_place(await scene.api.get(f"/jobs?{query}"))[0] == "query"


async def test_running_calls_and_their_models_are_counted_in_the_list(scene: Scene):
    scene.live = False
    team = await scene.team(models=2)
    job = (await team.job(calls=[{"messages": [{"role": "user", "content": "x"}], "model": m} for m in team.models]))[
        "job_id"
    ]
    [listed_job] = made(await team.get("/jobs"))["jobs"]
    assert listed_job["job_id"] == job
    assert sorted(listed_job["model_groups_used"]) == sorted(team.models)
    assert listed_job["counts"] == {
        "total": 2, "pending": 2, "in_progress": 0, "completed": 0, "failed": 0, "cancelled": 0,
    }  # fmt: skip


async def test_an_admin_reads_a_teams_jobs_in_numbered_pages(scene: Scene, past: Past):
    team = past.teams[0]
    expected = past.ids(lambda job: job.team_id == team.id)
    found = []
    for page in range(1, -(-len(expected) // 10) + 1):
        body = made(await scene.api.get(f"/jobs/teams/{team.id}?page={page}&page_size=10"))
        JobSummariesOut.model_validate(body)
        assert (body["total"], body["total_pages"]) == (len(expected), -(-len(expected) // 10))
        found += [job["job_id"] for job in body["jobs"]]
    assert found == expected
    beyond = made(await scene.api.get(f"/jobs/teams/{team.id}?page=99"))
    assert (beyond["jobs"], beyond["page"], beyond["page_size"]) == ([], 99, 20)
    assert wrong_place(await scene.api.get(f"/jobs/teams/{team.id}?page_size=101")) == ["query", "page_size"]
    assert refusal(await scene.api.get("/jobs/teams/none")) == (404, "Team 'none' not found")
    assert refusal(await scene.api.get("/jobs/teams/%00")) == (404, "Team '\x00' not found")


async def test_summaries_are_filtered_also_by_a_part_of_the_id(scene: Scene, past: Past):
    team = past.teams[0]
    job = next(job for job in past.jobs if job.team_id == team.id)
    part = str(job.id)[3:30].upper()
    assert [found["job_id"] for found in await summaries(scene, team, f"job_id_filter={part}")] == [str(job.id)]
    assert await summaries(scene, team, "job_id_filter=%25") == []
    kept = past.ids(lambda job: (job.team_id, job.job_type, job.status) == (team.id, "mail", "failed"))
    assert [found["job_id"] for found in await summaries(scene, team, "job_type=mail&status=Failed")] == kept
    kept = past.ids(lambda job: job.team_id == team.id and job.created_at < SECOND_DAY)
    assert [found["job_id"] for found in await summaries(scene, team, "end_date=2026-01-10&page_size=100")] == kept


async def test_a_summary_sums_up_its_calls(scene: Scene, past: Past):
    team = past.teams[0]
    jobs = {str(job.id): job for job in past.jobs}
    for shown in await summaries(scene, team, "page_size=100"):
        job = jobs[shown["job_id"]]
        purposes = [call.purpose for call in job.calls if call.purpose is not None]
        assert shown["retry_count"] == len(purposes) - len(set(purposes))
        assert (shown["total_calls"], shown["successful_calls"]) == (len(job.calls), job.count("completed"))
        assert shown["provider_cost_usd"] == usd(sum(call.provider_cost for call in job.calls))
        assert (shown["total_cost_usd"], shown["created_at"]) == (usd(job.cost), iso(job.created_at))


async def test_an_admin_looks_into_a_job(scene: Scene, past: Past):
    for job in past.jobs:
        body = made(await scene.api.get(f"/jobs/teams/{job.team_id}/{job.id}"))
        JobDetailOut.model_validate(body)
        assert [call["call_id"] for call in body["calls"]] == [str(call.id) for call in job.calls]
        for shown, call in zip(body["calls"], job.calls, strict=True):
            last = call.attempts[-1][0] if call.attempts else None
            assert shown["provider"] == last
            assert shown["resolved_model"] == (f"{last}/{call.model}" if last else None)
            assert (shown["cost_usd"], shown["provider_cost_usd"]) == (usd(call.cost), usd(call.provider_cost))
            assert shown["input_cost_usd"] + shown["output_cost_usd"] == pytest.approx(shown["cost_usd"], abs=1e-12)
            assert (shown["error"] is None) == (call.state != "failed")


async def test_the_calls_of_a_job_looked_into_come_in_pages(scene: Scene, past: Past):
    job = max(past.jobs, key=lambda job: len(job.calls))
    first = await scene.api.get(f"/jobs/teams/{job.team_id}/{job.id}?limit=2")
    second = await scene.api.get(first.links["next"]["url"].removeprefix("/api"))
    ids = [call["call_id"] for page in (first, second) for call in made(page)["calls"]]
    assert ids == [str(call.id) for call in job.calls]
    assert "next" not in second.links


async def test_a_job_looked_into_shows_prompt_and_answer_while_they_are_kept(scene: Scene):
    team = await scene.team()
    job = (await team.job(calls=[{"messages": [{"role": "user", "content": "Capital of France?"}]}]))["job_id"]
    assert made(await scene.api.get(f"/jobs/{job}?wait=20"))["status"] == "completed"
    path = f"/jobs/teams/{team.id}/{job}"
    [call] = made(await scene.api.get(path))["calls"]
    assert call["request_data"]["messages"][0]["content"] == "Capital of France?"
    assert call["response_data"]["choices"][0]["message"]["content"] == "Paris"
    # 200 tokens at 10 USD and 250 at 30 USD per million.
    assert (call["input_cost_usd"], call["output_cost_usd"], call["cost_usd"]) == (0.002, 0.0075, 0.0095)
    await scene.rows("delete from call_payloads where call_id = :id returning call_id", id=UUID(call["call_id"]))
    [erased] = made(await scene.api.get(path))["calls"]
    assert (erased["request_data"], erased["response_data"]) == (None, None)


async def test_a_page_of_a_job_looked_into_ends_where_its_texts_grow_long(scene: Scene):
    team = await scene.team()
    job = await team.job(calls=[{"messages": HELLO}] * 3)
    ids = [UUID(call["call_id"]) for call in job["calls"]]
    long = "update call_payloads set request = json_build_object('a', repeat('x', :bytes))"
    await scene.rows(f"{long} where call_id = any(:ids) returning call_id", ids=ids, bytes=MOST_TEXT_BYTES // 2)
    seen, path = [], f"/jobs/teams/{team.id}/{job['job_id']}"
    while path:
        page = await scene.api.get(path)
        seen.append([call["call_id"] for call in made(page)["calls"]])
        path = page.links.get("next", {}).get("url", "").removeprefix("/api")
    assert seen == [[str(id_)] for id_ in ids]


async def test_a_job_of_another_team_is_not_looked_into(scene: Scene, past: Past):
    ours, theirs = past.teams
    job = next(job for job in past.jobs if job.team_id == theirs.id)
    unknown = uuid4()
    for team_id, job_id in ((ours.id, job.id), (ours.id, unknown), ("none", job.id)):
        found = await scene.api.get(f"/jobs/teams/{team_id}/{job_id}")
        assert refusal(found) == (404, f"Job '{job_id}' not found for team '{team_id}'")
    assert refusal(await scene.api.get(f"/jobs/teams/{ours.id}/zz")) == (400, "Invalid job_id format: zz")


async def summaries(scene: Scene, team: Team, query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = made(await scene.api.get(f"/jobs/teams/{team.id}?{query}"))["jobs"]
    return found
