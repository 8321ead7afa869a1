"""Reports on credits: how all teams stand, and what one team used day by day."""

from datetime import date, timedelta
from typing import Annotated, Any

from pydantic import Field

from api import accounts
from api.auth import Caller
from api.fields import Absent
from api.http import endpoint
from api.routes.credits import NO_ACCOUNT
from api.wire.credits import TrendsOut, UtilizationOut
from shared import credit_reports, money
from shared.credit_reports import Day
from shared.errors import Forbidden
from shared.runtime import Runtime

MOST_NEEDY = 100


class TrendsQuery(Absent):
    """The query of GET /credits/trends."""

    team_id: str | None = None
    days: Annotated[int, Field(ge=1, le=365)] = 30


@endpoint("admin:r", answers=UtilizationOut)
async def get_utilization(rt: Runtime) -> dict[str, Any]:
    """How all teams stand, and those that will soon need credits."""
    async with rt.db.statement() as tx:
        found = await credit_reports.utilization(tx, needy=MOST_NEEDY)
    return {
        "total_teams": found.teams,
        "summary": {
            "total_allocated": found.allocated,
            "total_remaining": found.allocated - found.used,
            "total_used": found.used,
            "avg_utilization": round(found.average_percentage, 2),
        },
        "by_status": {"healthy": found.healthy, "warning": found.warning, "critical": found.critical},
        "teams_needing_attention": [
            {
                "team_id": team["team_id"],
                "credits_remaining": team["remaining"],
                "percentage": round(float(team["percentage"]), 2),
                "status": team["health"],
            }
            for team in found.needy
        ],
    }


@endpoint("any", answers=TrendsOut)
async def get_trends(rt: Runtime, caller: Caller, query: TrendsQuery) -> dict[str, Any]:
    """What the team used on each of the last days, and until when its credits last at that rate."""
    team_id = accounts.team_asked(caller, query.team_id)
    if not caller.may_see(team_id):
        raise Forbidden("Cannot access credit trends for a different team")
    async with rt.db.statement() as tx:
        _, account = await accounts.find(tx, team_id, unknown=NO_ACCOUNT)
        daily = await credit_reports.trends(tx, team_id, days=query.days)
    used = sum(day.credits for day in daily)
    return {
        "team_id": team_id,
        "days": query.days,
        "daily": [_day(day) for day in daily],
        "avg_daily_credits": round(used / query.days, 2),
        "projected_exhaustion_date": _exhausted_on(daily[-1].day, account.remaining, used, query.days),
    }


def _day(day: Day) -> dict[str, Any]:
    return {
        "date": day.day.isoformat(),
        "credits_used": day.credits,
        "jobs": day.jobs,
        "cost_usd": money.usd(day.client_cost_nanousd),
    }


def _exhausted_on(today: date, remaining: int, used: int, days: int) -> str | None:
    """The first day with nothing left at `used` credits per `days`; None when nothing is used, or never in this era."""
    if not used:
        return None
    left_days = -(-max(0, remaining) * days // used)
    if left_days > (date.max - today).days:
        return None
    return (today + timedelta(days=left_days)).isoformat()
