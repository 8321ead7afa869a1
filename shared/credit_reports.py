"""Reports on credits: how all teams stand, and what one team used day by day."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from shared.db import Tx, hot

UTILIZATION = """
with account as (
    select c.team_id, c.allocated, c.used, c.allocated - c.used as remaining,
           case when c.allocated > 0 then 100.0 * (c.allocated - c.used) / c.allocated else 0 end as percentage
      from credit_accounts c join teams t on t.id = c.team_id and t.status <> 'deleted'
), standing as (
    select *, case when percentage > 50 then 'healthy' when percentage >= 20 then 'warning' else 'critical' end
           as health
      from account
)
select count(*) as teams, coalesce(sum(allocated), 0)::bigint as allocated, coalesce(sum(used), 0)::bigint as used,
       coalesce(avg(100 - percentage) filter (where allocated > 0), 0)::float8 as average_percentage,
       count(*) filter (where health = 'healthy') as healthy, count(*) filter (where health = 'warning') as warning,
       count(*) filter (where health = 'critical') as critical,
       (select coalesce(json_agg(needy), '[]')
          from (select team_id, remaining, percentage, health from standing where health <> 'healthy'
                 order by percentage, team_id limit %s) needy) as needy
  from standing
"""

TRENDS = """
select d.day, coalesce(sum(u.credits_charged), 0)::bigint as credits,
       coalesce(sum(u.jobs_completed + u.jobs_failed + u.jobs_cancelled), 0)::bigint as jobs,
       coalesce(sum(u.client_cost_nanousd), 0)::bigint as client_cost_nanousd
  from (select (app_now() at time zone 'UTC')::date - n as day from generate_series(0, %(days)s - 1) as n) d
  left join usage_daily u on u.team_id = %(team_id)s and u.day = d.day
 group by d.day order by d.day
"""


@dataclass(frozen=True, kw_only=True)
class Utilization:
    """How all teams stand, by the percentage of their credits that is left: of no credits, none is.

    average_percentage: the mean of what each team with credits has used of them. needy: team_id, remaining, percentage
    left and health of those that are not healthy, the neediest first.
    """

    teams: int
    allocated: int
    used: int
    average_percentage: float
    healthy: int
    warning: int
    critical: int
    needy: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Day:
    """What came of the jobs created on a UTC day, as far as they have ended."""

    day: date
    credits: int
    jobs: int
    client_cost_nanousd: int


async def utilization(tx: Tx, *, needy: int) -> Utilization:
    """How all teams stand, with up to `needy` of those in need."""
    rows = await hot(tx, UTILIZATION, (needy,))
    return Utilization(**rows[0]._asdict())


async def trends(tx: Tx, team_id: str, *, days: int) -> list[Day]:
    """The last `days` days, today included, oldest first; a day without jobs is there too."""
    return [Day(**row._asdict()) for row in await hot(tx, TRENDS, {"team_id": team_id, "days": days})]
