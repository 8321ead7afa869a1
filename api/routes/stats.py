"""Statistics for admins: an organization's jobs in numbers, where its money goes, and the first page."""

from collections.abc import Iterable, Mapping
from typing import Any

from api.http import endpoint
from api.periods import interval
from api.routes.usage import CALLS, JOBS, calls_of, jobs_of, whole
from api.team_objects import find_organization
from api.wire.usage import AnalyticsOut, DashboardOut, DatesQuery, StatsOut
from shared import dashboard, money, usage
from shared.runtime import Runtime
from shared.snapshot import snapshot
from shared.usage import Measured

TOP = 10


@endpoint("admin:r", answers=StatsOut)
async def organization_stats(rt: Runtime, org_id: str, query: DatesQuery) -> dict[str, Any]:
    """An organization's jobs, calls, tokens and credits, and its ten teams with the most jobs."""
    within = interval(query)
    async with snapshot(rt.db) as tx:
        found = await find_organization(tx, org_id)
        teams = await usage.teams_of(tx, org_id)
        measures = (*JOBS, *CALLS, "credits_charged", "tokens", "cost")
        sums = (await usage.sums(tx, teams, within, by=("team_id",), measures=measures))["team_id"]
    total = whole(sums)
    return {
        "organization_id": org_id,
        "organization_name": found.name,
        "total_jobs": jobs_of(total),
        "completed_jobs": total["jobs_completed"],
        "failed_jobs": total["jobs_failed"],
        "in_progress_jobs": total["jobs_in_progress"],
        "total_teams": len(found.teams),
        "total_llm_calls": calls_of(total),
        "successful_calls": total["calls_completed"],
        "failed_calls": total["calls_failed"],
        "total_tokens": total["tokens"],
        "total_cost_usd": money.usd(total["cost"]),
        "total_credits_used": total["credits_charged"],
        "top_teams": _top_teams(sums),
    }


@endpoint("admin:r", answers=AnalyticsOut)
async def organization_analytics(rt: Runtime, org_id: str, query: DatesQuery) -> dict[str, Any]:
    """What an organization's calls cost us by day, team, model and provider."""
    within = interval(query)
    async with snapshot(rt.db) as tx:
        await find_organization(tx, org_id)
        teams = await usage.teams_of(tx, org_id)
        dimensions: tuple[usage.Dimension, ...] = ("day", "team_id", "model", "provider")
        sums = await usage.sums(tx, teams, within, by=dimensions, measures=(*CALLS, "tokens", "provider_cost"))
    total = whole(sums["team_id"])
    return {
        "total_spend": _spend(total),
        "total_requests": calls_of(total),
        "successful_requests": total["calls_completed"],
        "failed_requests": total["calls_failed"],
        "total_tokens": total["tokens"],
        "daily_spend": [{"date": day, "spend": _spend(each)} for day, each in sorted(sums["day"].items())],
        "spend_per_team": [{"team_id": team, **_spent(each)} for team, each in _by_spend(sums["team_id"])],
        "top_models": [
            {"model": model, "spend": _spend(each), "count": calls_of(each)}
            for model, each in _by_spend(sums["model"])[:TOP]
        ],
        "provider_usage": [{"provider": name, **_spent(each)} for name, each in _by_spend(sums["provider"])],
    }


@endpoint("admin:r", answers=DashboardOut)
async def read_dashboard(rt: Runtime) -> dict[str, int]:
    """The numbers of the first page."""
    async with snapshot(rt.db) as tx:
        found = await dashboard.counts(tx)
    return {
        "organizations": found.organizations,
        "teams": found.teams,
        "modelGroups": found.model_groups,
        "totalCredits": found.allocated,
        "creditsRemaining": found.allocated - found.used,
        "creditsUsed": found.used,
        "jobsToday": found.jobs_today,
        "callsInFlight": found.in_flight,
        "queueDepth": found.waiting,
        "webhooksFailing": found.webhooks_failing,
        "webhooksDisabled": found.webhooks_disabled,
        "circuitsOpen": found.circuits_open,
    }


def _top_teams(sums: Mapping[str, Measured]) -> list[dict[str, Any]]:
    first = sorted(sums.items(), key=lambda item: (-jobs_of(item[1]), item[0]))[:TOP]
    return [
        {"team_id": team, "job_count": jobs_of(each), "credits_used": each["credits_charged"]} for team, each in first
    ]


def _by_spend(sums: Mapping[str, Measured]) -> list[tuple[str, Measured]]:
    named: Iterable[tuple[str, Measured]] = ((name, each) for name, each in sums.items() if name)
    return sorted(named, key=lambda item: (-item[1]["provider_cost"], item[0]))


def _spent(measured: Measured) -> dict[str, Any]:
    return {
        "spend": _spend(measured),
        "successful": measured["calls_completed"],
        "failed": measured["calls_failed"],
        "tokens": measured["tokens"],
    }


def _spend(measured: Measured) -> float:
    return money.usd(measured["provider_cost"])
