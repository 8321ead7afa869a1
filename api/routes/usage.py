"""What teams and organizations used and what it cost."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from api.auth import Caller
from api.http import endpoint
from api.job_lists import usage_job
from api.lists import next_link
from api.periods import interval, period
from api.replies import Reply
from api.team_objects import find_organization, find_team
from api.wire.usage import CostsOut, DatesQuery, OrganizationUsageOut, PeriodQuery, TeamUsageOut, UsageQuery
from shared import job_lists, money, usage
from shared.errors import Forbidden
from shared.job_lists import Filter, Part
from shared.runtime import Runtime
from shared.snapshot import snapshot
from shared.usage import Measured, OfUser

JOBS = ("jobs_pending", "jobs_in_progress", "jobs_completed", "jobs_failed", "jobs_cancelled")
CALLS = ("calls_unfinished", "calls_completed", "calls_failed", "calls_cancelled")


@endpoint("any", answers=TeamUsageOut)
async def team_usage(rt: Runtime, caller: Caller, request: Request, team_id: str, query: UsageQuery) -> Reply:
    """What a team's jobs of a month, a day or some dates came to, and a page of those jobs."""
    if not caller.may_see(team_id):
        raise Forbidden("Cannot access usage data for a different team")
    async with snapshot(rt.db) as tx:
        await find_team(tx, team_id)
        label, within = period(query, await usage.today(tx))
        wanted = Filter(team_id=team_id, since=within.since, before=within.before)
        measures = (*JOBS, *CALLS, "credits_charged", "tokens", "cost")
        sums = await usage.sums(tx, [team_id], within, by=("job_type",), measures=measures)
        users = await usage.of_users(tx, team_id, within)
        page = await job_lists.plain(tx, wanted, Part(limit=query.limit, offset=query.offset))
    summary = _team_summary(whole(sums["job_type"]))
    total = summary["total_jobs"]
    body = {
        "team_id": team_id,
        "period": label,
        "summary": summary,
        **_by_job_type(sums["job_type"]),
        "by_user": {user.user_id: _count_and_cost(user) for user in users},
        "jobs": [usage_job(row) for row in page],
        "total": total,
        "limit": query.limit,
        "offset": query.offset,
    }
    return Reply(body=body, headers=next_link(request, query, total))


@endpoint("admin:r", answers=OrganizationUsageOut)
async def organization_usage(rt: Runtime, org_id: str, query: PeriodQuery) -> dict[str, Any]:
    """What the jobs of all teams of an organization came to in a month, on a day or between dates."""
    async with snapshot(rt.db) as tx:
        await find_organization(tx, org_id)
        label, within = period(query, await usage.today(tx))
        teams = await usage.teams_of(tx, org_id)
        measures = (*JOBS, "credits_charged", "tokens", "cost")
        sums = await usage.sums(tx, teams, within, by=("team_id", "job_type"), measures=measures)
    of_teams = {
        team: {"jobs": jobs_of(each), "credits_used": each["credits_charged"], "cost_usd": money.usd(each["cost"])}
        for team, each in sorted(sums["team_id"].items())
    }
    return {
        "organization_id": org_id,
        "period": label,
        "summary": _summary(whole(sums["team_id"])),
        "teams": of_teams,
        "by_team": of_teams,
        "by_job_type": _by_job_type(sums["job_type"])["by_job_type"],
    }


@endpoint("admin:r", answers=CostsOut)
async def organization_costs(rt: Runtime, org_id: str, query: DatesQuery) -> dict[str, Any]:
    """What an organization's jobs cost, by team, by model and by day; all of them without dates."""
    within = interval(query)
    async with snapshot(rt.db) as tx:
        await find_organization(tx, org_id)
        teams = await usage.teams_of(tx, org_id)
        sums = await usage.sums(tx, teams, within, by=("team_id", "model", "day"), measures=("cost", "provider_cost"))
    total = whole(sums["team_id"])
    return {
        "organization_id": org_id,
        "start_date": query.start_date,
        "end_date": query.end_date,
        "total_cost_usd": money.usd(total["cost"]),
        "provider_cost_usd": money.usd(total["provider_cost"]),
        "by_team": _costs(sums["team_id"]),
        "by_model": _costs({model: each for model, each in sums["model"].items() if model}),
        "daily": [{"date": day, "cost_usd": cost} for day, cost in _costs(sums["day"]).items()],
    }


def whole(parts: Mapping[str, Measured]) -> Measured:
    """All parts together."""
    total: Measured = Counter()
    for part in parts.values():
        total.update(part)
    return total


def jobs_of(measured: Measured) -> int:
    """Jobs of every status."""
    return sum(measured[name] for name in JOBS)


def calls_of(measured: Measured) -> int:
    """Calls of every state."""
    return sum(measured[name] for name in CALLS)


def _summary(total: Measured) -> dict[str, Any]:
    return {
        "total_jobs": jobs_of(total),
        "completed_jobs": total["jobs_completed"],
        "successful_jobs": total["jobs_completed"],
        "failed_jobs": total["jobs_failed"],
        "total_cost_usd": money.usd(total["cost"]),
        "total_tokens": total["tokens"],
        "credits_used": total["credits_charged"],
    }


def _team_summary(total: Measured) -> dict[str, Any]:
    jobs = jobs_of(total)
    return {
        **_summary(total),
        "cancelled_jobs": total["jobs_cancelled"],
        "total_calls": calls_of(total),
        "avg_cost_per_job": money.usd((total["cost"] + jobs // 2) // jobs) if jobs else 0.0,
    }


def _by_job_type(sums: Mapping[str, Measured]) -> dict[str, Any]:
    counts = {name: jobs_of(each) for name, each in sorted(sums.items())}
    costs = {name: {"count": counts[name], "cost_usd": money.usd(sums[name]["cost"])} for name in counts}
    return {"job_types": costs, "by_job_type": counts}


def _count_and_cost(user: OfUser) -> dict[str, Any]:
    return {"count": user.jobs, "cost_usd": money.usd(user.cost)}


def _costs(sums: Mapping[str, Measured]) -> dict[str, float]:
    return {name: money.usd(each["cost"]) for name, each in sorted(sums.items()) if name}
