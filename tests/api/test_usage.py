"""Usage and costs equal the sum over the rows, for whatever time is asked about."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.wire.usage import CostsOut, OrganizationUsageOut, TeamUsageOut
from shared import model_aliases, usage
from shared.money import usd
from shared.usage import MOST_USERS, Interval, Totals, whole_days
from tests.api import past as past_
from tests.api.admin import made, refusal, unique, wrong_place
from tests.api.past import FIRST, PastJob, sums
from tests.scene import HELLO, Scene, Team

NOON = FIRST + timedelta(days=1, hours=12)
LATER = FIRST + timedelta(days=2, hours=18)
DAY = timedelta(days=1)

TIMES: list[tuple[str, datetime, datetime]] = [
    ("period=2026-01", FIRST, FIRST + 10 * DAY),
    ("period=2026-01-11", FIRST + DAY, FIRST + 2 * DAY),
    ("period=2025-12", FIRST - 30 * DAY, FIRST - 10 * DAY),
    ("start_date=2026-01-11&end_date=2026-01-12", FIRST + DAY, FIRST + 3 * DAY),
    ("start_date=2026-01-12", FIRST + 2 * DAY, FIRST + 10 * DAY),
    ("end_date=2026-01-10", FIRST, FIRST + DAY),
    ("start_date=2026-01-11T12:00:00Z&end_date=2026-01-12T17:59:59.999Z", NOON, LATER),
    ("start_date=2026-01-11T12:00:00Z&end_date=2026-01-11T17:59:59.999Z", NOON, NOON + timedelta(hours=6)),
    ("start_date=2026-01-11T12:00:00Z", NOON, FIRST + 10 * DAY),
    ("end_date=2026-01-12T17:59:59.999Z", FIRST, LATER),
    ("start_date=2026-01-12T18:00:00Z&end_date=2026-01-11T12:00:00Z", LATER, NOON),
    ("start_date=9999-12-31T12:00:00Z", LATER, NOON),
    ("end_date=9999-12-31", FIRST, FIRST + 10 * DAY),
]


class Past:
    """Two teams of one organization with a past."""

    def __init__(self, organization_id: str, teams: tuple[Team, Team], jobs: list[PastJob]) -> None:
        self.organization_id, self.teams, self.jobs = organization_id, teams, jobs

    def within(self, since: datetime, before: datetime) -> list[PastJob]:
        return [job for job in self.jobs if since <= job.created_at < before]


@pytest.fixture
async def past(scene: Scene) -> Past:
    organization_id = (await scene.api.organization())["organization_id"]
    teams = await scene.team(organization_id=organization_id), await scene.team(organization_id=organization_id)
    jobs = past_.made_up([team.id for team in teams], jobs=120, seed=11)
    await past_.put(scene, jobs, organization_id)
    return Past(organization_id, teams, jobs)


@pytest.mark.parametrize(("query", "since", "before"), TIMES, ids=[query for query, *_ in TIMES])
async def test_a_teams_usage_is_the_sum_over_its_jobs(
    scene: Scene, past: Past, query: str, since: datetime, before: datetime
):
    team = past.teams[0]
    jobs = [job for job in past.within(since, before) if job.team_id == team.id]
    body = made(await scene.api.get(f"/teams/{team.id}/usage?{query}&limit=5", key=team.key))
    TeamUsageOut.model_validate(body)
    total = sums(jobs).get("all", {})
    assert body["summary"] == {
        **summary(total, len(jobs)),
        "cancelled_jobs": total.get("cancelled", 0),
        "total_calls": total.get("calls", 0),
        "avg_cost_per_job": pytest.approx(usd(total["cost"]) / len(jobs), abs=1e-9) if jobs else 0,
    }
    types = sums(jobs, lambda job: job.job_type)
    assert body["by_job_type"] == {name: each["jobs"] for name, each in types.items()}
    assert body["job_types"] == {name: counted(each) for name, each in types.items()}
    users = sums((job for job in jobs if job.user_id), lambda job: str(job.user_id))
    assert body["by_user"] == {name: counted(each) for name, each in users.items()}
    newest = sorted(jobs, key=lambda job: (job.created_at, job.id), reverse=True)
    assert [job["job_id"] for job in body["jobs"]] == [str(job.id) for job in newest[:5]]
    assert [job["cost_usd"] for job in body["jobs"]] == [usd(job.cost) for job in newest[:5]]
    assert body["total"] == len(jobs)


@pytest.mark.parametrize(("query", "since", "before"), TIMES, ids=[query for query, *_ in TIMES])
async def test_an_organizations_usage_is_the_sum_over_its_teams(
    scene: Scene, past: Past, query: str, since: datetime, before: datetime
):
    jobs = past.within(since, before)
    body = made(await scene.api.get(f"/organizations/{past.organization_id}/usage?{query}"))
    OrganizationUsageOut.model_validate(body)
    assert body["summary"] == summary(sums(jobs).get("all", {}), len(jobs))
    teams = sums(jobs, lambda job: job.team_id)
    assert body["teams"] == body["by_team"]
    assert body["teams"] == {
        name: {"jobs": each["jobs"], "credits_used": each["credits"], "cost_usd": usd(each["cost"])}
        for name, each in teams.items()
    }
    assert body["by_job_type"] == {name: each["jobs"] for name, each in sums(jobs, lambda job: job.job_type).items()}


@pytest.mark.parametrize(
    ("query", "since", "before"),
    [("", FIRST, FIRST + 10 * DAY), *(time for time in TIMES if "period" not in time[0])],
)
async def test_an_organizations_costs_are_the_sum_over_its_calls(
    scene: Scene, past: Past, query: str, since: datetime, before: datetime
):
    jobs = past.within(since, before)
    body = made(await scene.api.get(f"/organizations/{past.organization_id}/costs?{query}"))
    CostsOut.model_validate(body)
    total = sums(jobs).get("all", {})
    assert (body["total_cost_usd"], body["provider_cost_usd"]) == (
        usd(total.get("cost", 0)),
        usd(total.get("provider_cost", 0)),
    )
    assert body["by_team"] == {name: usd(each["cost"]) for name, each in sums(jobs, lambda job: job.team_id).items()}
    models: dict[str, int] = {}
    for call in (call for job in jobs for call in job.calls):
        models[call.model] = models.get(call.model, 0) + call.cost
    # A model whose calls have all not ended is in the rollup once an attempt of theirs has.
    assert {name: cost for name, cost in body["by_model"].items() if cost} == {
        name: usd(cost) for name, cost in models.items() if cost
    }
    days = sums(jobs, lambda job: job.created_at.date().isoformat())
    assert body["daily"] == [{"date": day, "cost_usd": usd(days[day]["cost"])} for day in sorted(days)]


async def test_totals_of_teams_organizations_and_models_are_the_sums_over_all_their_rows(scene: Scene, past: Past):
    async with scene.rt.db.statement() as tx:
        before = (await model_aliases.usage(tx, ["fast"]))["fast"]
        teams = await usage.totals_of_teams(tx, [*(team.id for team in past.teams), "none"])
        whole = await usage.totals_of_organization(tx, past.organization_id)
    expected = {name: totals(each) for name, each in sums(past.jobs, lambda job: job.team_id).items()}
    assert teams == {**expected, "none": Totals()}
    assert whole == totals(sums(past.jobs)["all"])
    more = past_.made_up([past.teams[0].id], jobs=20, seed=3)
    for job in more:
        job.created_at += 10 * DAY
        job.completed_at = job.completed_at and job.completed_at + 10 * DAY
    await past_.put(scene, more, past.organization_id)
    ended = [call for job in more for call in job.calls if call.model == "fast" and call.state in past_.FINAL]
    async with scene.rt.db.statement() as tx:
        after = (await model_aliases.usage(tx, ["fast"]))["fast"]
    assert after.total_calls - before.total_calls == len(ended)
    assert after.total_cost_nanousd - before.total_cost_nanousd == sum(call.cost for call in ended)
    assert after.total_tokens - before.total_tokens == sum(call.tokens for call in ended)


async def test_the_jobs_of_a_usage_report_come_in_linked_pages(scene: Scene, past: Past):
    team = past.teams[0]
    path: str | None = f"/teams/{team.id}/usage?period=2026-01&limit=30"
    seen = []
    while path is not None:
        page = await scene.api.get(path, key=team.key)
        seen += [job["job_id"] for job in made(page)["jobs"]]
        path = page.links["next"]["url"].removeprefix("/api") if "next" in page.links else None
    jobs = sorted((job for job in past.jobs if job.team_id == team.id), key=lambda job: (job.created_at, job.id))
    assert seen == [str(job.id) for job in reversed(jobs)]


async def test_usage_tells_what_jobs_that_really_ran_came_to(scene: Scene):
    team = await scene.team()
    job = await team.job(calls=[{"messages": HELLO}, {"messages": HELLO}], user_id="ann", job_type="mail")
    await team.job(job_type="mail")
    assert made(await scene.api.get(f"/jobs/{job['job_id']}?wait=20"))["status"] == "completed"
    body = made(await team.get(f"/teams/{team.id}/usage"))
    assert body["period"] == f"{datetime.now(UTC):%Y-%m}"
    assert body["summary"] == {
        "total_jobs": 2, "completed_jobs": 1, "successful_jobs": 1, "failed_jobs": 0, "cancelled_jobs": 0,
        "total_calls": 2, "total_cost_usd": 0.019, "total_tokens": 900, "avg_cost_per_job": 0.0095, "credits_used": 1,
    }  # fmt: skip
    assert body["by_user"] == {"ann": {"count": 1, "cost_usd": 0.019}}
    assert body["job_types"] == {"mail": {"count": 2, "cost_usd": 0.019}}


async def test_of_many_end_users_those_that_cost_most_are_told(scene: Scene):
    team = await scene.team()
    await team.job(user_id="user-0")
    more = """
        insert into jobs (id, team_id, organization_id, job_type, user_id, client_cost_nanousd)
        select gen_random_uuid(), team_id, organization_id, job_type, 'user-' || n, n
          from jobs, generate_series(1, :users) n where team_id = :id returning id"""
    await scene.rows(more, id=team.id, users=MOST_USERS)
    body = made(await team.get(f"/teams/{team.id}/usage?limit=1"))
    assert set(body["by_user"]) == {f"user-{n}" for n in range(1, MOST_USERS + 1)}
    assert body["total"] == MOST_USERS + 1


async def test_a_team_reads_its_own_usage_only(scene: Scene, past: Past):
    ours, theirs = past.teams
    refused = 403, "Cannot access usage data for a different team"
    assert refusal(await ours.get(f"/teams/{theirs.id}/usage")) == refused
    assert refusal(await ours.get(f"/teams/{unique('none')}/usage")) == refused
    for path in ("usage", "costs"):
        found = await ours.get(f"/organizations/{past.organization_id}/{path}")
        assert refusal(found) == (403, "Admin access required")


async def test_an_unknown_team_or_organization_has_no_usage(scene: Scene):
    missing = unique("none")
    assert refusal(await scene.api.get(f"/teams/{missing}/usage")) == (404, f"Team '{missing}' not found")
    for path in ("usage", "costs"):
        found = await scene.api.get(f"/organizations/{missing}/{path}")
        assert refusal(found) == (404, f"Organization '{missing}' not found")


@pytest.mark.parametrize("period", ["zz", "2026", "2026-13", "2026-02-30", "0000-01", "", "2026-1", "2026-01-01T00:00"])
async def test_a_wrong_period_is_refused(scene: Scene, past: Past, period: str):
    refused = 400, f"Invalid period: {period}. Use YYYY-MM or YYYY-MM-DD"
    assert refusal(await scene.api.get(f"/teams/{past.teams[0].id}/usage?period={period}")) == refused
    assert refusal(await scene.api.get(f"/organizations/{past.organization_id}/usage?period={period}")) == refused


@pytest.mark.parametrize("field", ["start_date", "end_date"])
async def test_a_wrong_date_is_refused(scene: Scene, past: Past, field: str):
    refused = 400, f"Invalid {field} format: zz. Use ISO format (YYYY-MM-DD)"
    assert refusal(await scene.api.get(f"/teams/{past.teams[0].id}/usage?{field}=zz")) == refused
    for path in ("usage", "costs"):
        assert refusal(await scene.api.get(f"/organizations/{past.organization_id}/{path}?{field}=zz")) == refused
    assert wrong_place(await scene.api.get(f"/teams/{past.teams[0].id}/usage?limit=0")) == ["query", "limit"]


@pytest.mark.parametrize("hours", [(0, 24), (1, 23), (1, 24), (0, 30), (13, 61), (24, 24), (5, 4), (30, 2)])
def test_an_interval_is_its_whole_days_and_what_is_left_at_both_ends(hours: tuple[int, int]):
    since, before = (FIRST + timedelta(hours=hour) for hour in hours)
    first, last, edges = whole_days(Interval(since, before))
    assert first is not None
    assert last is not None
    moments = [FIRST + timedelta(minutes=30 * n) for n in range(-10, 200)]
    covered = [
        (first <= moment.date() < last) + sum(edge.since <= moment < edge.before for edge in edges)
        for moment in moments
    ]
    assert covered == [int(since <= moment < before) for moment in moments]


def summary(total: Any, jobs: int) -> dict[str, Any]:
    return {
        "total_jobs": jobs,
        "completed_jobs": total.get("completed", 0),
        "successful_jobs": total.get("completed", 0),
        "failed_jobs": total.get("failed", 0),
        "total_cost_usd": usd(total.get("cost", 0)),
        "total_tokens": total.get("tokens", 0),
        "credits_used": total.get("credits", 0),
    }


def totals(each: Any) -> Totals:
    return Totals(
        total_jobs=each["jobs"],
        total_cost_nanousd=each["cost"],
        total_calls=each["calls"],
        total_tokens=each["tokens"],
    )


def counted(each: Any) -> dict[str, Any]:
    return {"count": each["jobs"], "cost_usd": usd(each["cost"])}
