"""An organization in numbers, where its money goes, and the first page."""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from api.wire.usage import AnalyticsOut, DashboardOut, StatsOut
from shared.money import usd
from tests.api import past as past_
from tests.api.admin import made, refusal, unique
from tests.api.past import FIRST, PastCall, PastJob, sums
from tests.scene import HELLO, Scene, Team

RANGES = [("", 0, 10), ("start_date=2026-01-11&end_date=2026-01-12", 1, 3)]


class Past:
    """An organization with two teams and their jobs."""

    def __init__(self, organization_id: str, teams: tuple[Team, Team], jobs: list[PastJob]) -> None:
        self.organization_id, self.teams, self.jobs = organization_id, teams, jobs

    def days(self, first: int, last: int) -> list[PastJob]:
        since, before = FIRST + timedelta(days=first), FIRST + timedelta(days=last)
        return [job for job in self.jobs if since <= job.created_at < before]


@pytest.fixture
async def past(scene: Scene) -> Past:
    organization_id = (await scene.api.organization(name="Acme"))["organization_id"]
    teams = await scene.team(organization_id=organization_id), await scene.team(organization_id=organization_id)
    jobs = past_.made_up([team.id for team in teams], jobs=100, seed=23)
    await past_.put(scene, jobs, organization_id)
    return Past(organization_id, teams, jobs)


@pytest.mark.parametrize(("query", "first", "last"), RANGES)
async def test_stats_are_the_sum_over_all_jobs(scene: Scene, past: Past, query: str, first: int, last: int):
    jobs = past.days(first, last)
    body = made(await scene.api.get(f"/jobs/organizations/{past.organization_id}/stats?{query}"))
    StatsOut.model_validate(body)
    total = sums(jobs)["all"]
    teams = sums(jobs, lambda job: job.team_id)
    most = sorted(teams, key=lambda team: (-teams[team]["jobs"], team))
    assert body == {
        "organization_id": past.organization_id,
        "organization_name": "Acme",
        "total_jobs": len(jobs),
        "completed_jobs": total["completed"],
        "failed_jobs": total["failed"],
        "in_progress_jobs": total["in_progress"],
        "total_teams": 2,
        "total_llm_calls": total["calls"],
        "successful_calls": total["calls_completed"],
        "failed_calls": total["calls_failed"],
        "total_tokens": total["tokens"],
        "total_cost_usd": usd(total["cost"]),
        "total_credits_used": total["credits"],
        "top_teams": [
            {"team_id": team, "job_count": teams[team]["jobs"], "credits_used": teams[team]["credits"]} for team in most
        ],
    }


@pytest.mark.parametrize(("query", "first", "last"), RANGES)
async def test_analytics_tell_where_the_money_goes(scene: Scene, past: Past, query: str, first: int, last: int):
    jobs = past.days(first, last)
    body = made(await scene.api.get(f"/jobs/organizations/{past.organization_id}/analytics?{query}"))
    AnalyticsOut.model_validate(body)
    total = sums(jobs)["all"]
    assert body["total_spend"] == usd(total["provider_cost"])
    assert (body["total_requests"], body["total_tokens"]) == (total["calls"], total["tokens"])
    assert (body["successful_requests"], body["failed_requests"]) == (total["calls_completed"], total["calls_failed"])
    days = sums(jobs, lambda job: job.created_at.date().isoformat())
    assert body["daily_spend"] == [{"date": day, "spend": usd(days[day]["provider_cost"])} for day in sorted(days)]
    teams = sums(jobs, lambda job: job.team_id)
    assert {team.pop("team_id"): team for team in body["spend_per_team"]} == {
        name: {
            "spend": usd(each["provider_cost"]),
            "successful": each["calls_completed"],
            "failed": each["calls_failed"],
            "tokens": each["tokens"],
        }
        for name, each in teams.items()
    }
    assert_models_and_providers(body, [call for job in jobs for call in job.calls])


def assert_models_and_providers(body: dict[str, Any], calls: list[PastCall]) -> None:
    models, providers = Counter[str](), Counter[str]()
    for call in calls:
        models[call.model] += call.provider_cost
        for provider, cost in call.attempts:
            providers[provider] += cost
    assert {each["model"]: each["spend"] for each in body["top_models"]} == {
        model: usd(cost) for model, cost in models.items()
    }
    assert [each["spend"] for each in body["top_models"]] == sorted((usd(n) for n in models.values()), reverse=True)
    ended = [call for call in calls if call.state in ("completed", "failed", "cancelled")]
    for model in body["top_models"]:
        assert model["count"] == sum(call.model == model["model"] for call in ended)
    assert {each["provider"]: each["spend"] for each in body["provider_usage"]} == {
        provider: usd(cost) for provider, cost in providers.items()
    }
    for each in body["provider_usage"]:
        of = [call for call in ended if call.provider == each["provider"]]
        assert each["successful"] == sum(call.state == "completed" for call in of)
        assert each["failed"] == sum(call.state == "failed" for call in of)
        assert each["tokens"] == sum(call.tokens for call in of)


async def test_an_empty_range_gives_zeros_and_empty_lists(scene: Scene, past: Past):
    path = f"/jobs/organizations/{past.organization_id}"
    stats = made(await scene.api.get(f"{path}/stats?end_date=2020-01-01"))
    assert (stats["total_jobs"], stats["total_cost_usd"], stats["top_teams"]) == (0, 0, [])
    analytics = made(await scene.api.get(f"{path}/analytics?end_date=2020-01-01"))
    assert (analytics["total_spend"], analytics["daily_spend"], analytics["top_models"]) == (0, [], [])
    empty = (await scene.api.organization())["organization_id"]
    assert made(await scene.api.get(f"/jobs/organizations/{empty}/stats"))["total_teams"] == 0


@pytest.mark.parametrize("what", ["stats", "analytics"])
async def test_statistics_are_refused_as_the_contract_says(scene: Scene, past: Past, what: str):
    missing = unique("none")
    found = await scene.api.get(f"/jobs/organizations/{missing}/{what}")
    assert refusal(found) == (404, f"Organization '{missing}' not found")
    path = f"/jobs/organizations/{past.organization_id}/{what}"
    wrong = await scene.api.get(f"{path}?end_date=zz")
    assert refusal(wrong) == (400, "Invalid end_date format: zz. Use ISO format (YYYY-MM-DD)")
    assert refusal(await past.teams[0].get(path)) == (403, "Admin access required")


async def test_the_first_page_counts_what_there_is(scene: Scene):
    scene.live = False
    before = made(await scene.api.get("/stats/dashboard"))
    team = await scene.team(credits=100)
    job = await team.job(calls=[{"messages": HELLO}])
    waiting = made(await scene.api.get("/stats/dashboard"))
    DashboardOut.model_validate(waiting)
    assert {name: waiting[name] - before[name] for name in before} == {
        "organizations": 1, "teams": 1, "modelGroups": 1, "totalCredits": 100, "creditsRemaining": 100,
        "creditsUsed": 0, "jobsToday": 1, "callsInFlight": 0, "queueDepth": 1, "webhooksFailing": 0,
        "webhooksDisabled": 0, "circuitsOpen": 0,
    }  # fmt: skip
    scene.provider.held.clear()
    working = asyncio.create_task(scene.work([job["calls"][0]["call_id"]]))
    await scene.provider.until_asked(1)
    running = made(await scene.api.get("/stats/dashboard"))
    assert (running["callsInFlight"] - before["callsInFlight"], running["queueDepth"]) == (1, before["queueDepth"])
    scene.provider.held.set()
    await working
    done = made(await scene.api.get("/stats/dashboard"))
    assert (done["creditsUsed"] - before["creditsUsed"], done["callsInFlight"]) == (1, before["callsInFlight"])
    assert refusal(await team.get("/stats/dashboard")) == (403, "Admin access required")


async def test_webhook_endpoints_that_fail_or_are_disabled_are_counted(scene: Scene):
    team = await scene.team()
    names = ("webhooksFailing", "webhooksDisabled", "circuitsOpen")
    before = made(await scene.api.get("/stats/dashboard"))
    body = {"team_id": team.id, "webhook_url": "https://example.com/hook"}
    hook = made(await scene.api.post("/webhooks/register", body))

    async def counted() -> tuple[int, ...]:
        found = made(await scene.api.get("/stats/dashboard"))
        return tuple(found[name] - before[name] for name in names)

    async def changed(what: str) -> tuple[int, ...]:
        sql = f"update webhook_endpoints set {what} where team_id = :team returning id"
        await scene.rows(sql, team=hook["team_id"])
        return await counted()

    assert await counted() == (0, 0, 0)
    assert await changed("failing_since = now()") == (1, 0, 0)
    assert await changed("status = 'disabled'") == (0, 1, 0)
    assert await changed("deleted_at = now()") == (0, 0, 0)
    await scene.rows(
        "insert into delivery_queues (id, team_id, open_s) values (uuid7(), :team, 60) returning id", team=team.id
    )
    assert await counted() == (0, 0, 1)
