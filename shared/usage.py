"""What work came to: the daily rollup of what ended, and the open jobs on top. Everything counts by its job's creation.

The rollup is written in the transaction that ends a call or a job, so a sum here equals the sum over the rows.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal, NamedTuple

from shared.db import Tx, hot

Dimension = Literal["team_id", "day", "job_type", "model", "provider"]

TODAY = "select (app_now() at time zone 'UTC')::date as today"

TEAMS = "select id from teams where organization_id = %s order by id"

UNFINISHED = "calls_total - calls_completed - calls_failed - calls_cancelled"

TOTALS = f"""
select team_id, sum(jobs)::bigint as total_jobs, sum(cost)::bigint as total_cost_nanousd,
       sum(calls)::bigint as total_calls, sum(tokens)::bigint as total_tokens
  from (select team_id, sum(jobs_completed + jobs_failed + jobs_cancelled) as jobs, sum(client_cost_nanousd) as cost,
               sum(calls_completed + calls_failed + calls_cancelled) as calls,
               sum(prompt_tokens + completion_tokens) as tokens
          from usage_daily where team_id = any(%(teams)s) group by team_id
        union all
        select team_id, count(*), 0, sum({UNFINISHED}), 0
          from jobs where status in ('pending', 'in_progress') and team_id = any(%(teams)s) group by team_id) u
 group by team_id
"""

MEASURES = {
    "jobs_pending": ("0", "count(*) filter (where status = 'pending')"),
    "jobs_in_progress": ("0", "count(*) filter (where status = 'in_progress')"),
    "jobs_completed": ("jobs_completed", "0"),
    "jobs_failed": ("jobs_failed", "0"),
    "jobs_cancelled": ("jobs_cancelled", "0"),
    "credits_charged": ("credits_charged", "0"),
    "calls_unfinished": ("0", f"sum({UNFINISHED})"),
    "calls_completed": ("calls_completed", "0"),
    "calls_failed": ("calls_failed", "0"),
    "calls_cancelled": ("calls_cancelled", "0"),
    "tokens": ("prompt_tokens + completion_tokens", "0"),
    "cost": ("client_cost_nanousd", "0"),
    "provider_cost": ("provider_cost_nanousd", "0"),
}
"""What can be summed up: of a line of the rollup, and of a group of open jobs."""

DAY = "(created_at at time zone 'UTC')::date"

# What the rollup would have kept of jobs that were made inside a day which is not wanted whole.
EDGES = """
 union all
select team_id, day, job_type, '', '', jobs_completed, jobs_failed, jobs_cancelled, credits_charged, 0, 0, 0, 0, 0, 0, 0
  from edge where status in ('completed', 'failed', 'cancelled')
 union all
select e.team_id, e.day, e.job_type, c.model, coalesce(a.provider, ''), 0, 0, 0, 0, (c.state = 'completed')::int,
       (c.state = 'failed')::int, (c.state = 'cancelled')::int, coalesce(c.prompt_tokens, 0),
       coalesce(c.completion_tokens, 0), c.client_cost_nanousd, 0
  from edge e join calls c on c.job_id = e.id left join attempts a on a.call_id = c.id and a.number = c.attempt
 where c.state in ('completed', 'failed', 'cancelled')
 union all
select e.team_id, e.day, e.job_type, c.model, coalesce(a.provider, ''), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
       a.provider_cost_nanousd
  from edge e join calls c on c.job_id = e.id join attempts a on a.call_id = c.id where a.ended_at is not null
"""

EDGE = f"""
with edge as (
    select id, team_id, {DAY} as day, job_type, status, (status = 'completed')::int as jobs_completed,
           (status = 'failed')::int as jobs_failed, (status = 'cancelled')::int as jobs_cancelled, credits_charged
      from jobs where team_id = any(%(teams)s)
       and ((created_at >= %(edge_1_since)s and created_at < %(edge_1_before)s)
         or (created_at >= %(edge_2_since)s and created_at < %(edge_2_before)s))
)
"""

SUMS = f"""
select {{dimensions}}, grouping({{dimensions}}) as level, {{sums}}
  from (select team_id, day, job_type, model, provider, {{ended}}
          from (select team_id, day, job_type, model, provider, jobs_completed, jobs_failed, jobs_cancelled,
                       credits_charged, calls_completed, calls_failed, calls_cancelled, prompt_tokens,
                       completion_tokens, client_cost_nanousd, provider_cost_nanousd
                  from usage_daily where team_id = any(%(teams)s) and {{days}}
                {{edges}}) lines
        union all
        select team_id, {DAY}, job_type, '', '', {{open}}
          from jobs where status in ('pending', 'in_progress') and team_id = any(%(teams)s) and {{times}}
         group by 1, 2, 3) u
 group by {{groups}}
"""

MOST_USERS = 1000
"""End users that a report names: a team may have as many as it has jobs."""

OF_USERS = f"""
select user_id, count(*) as jobs, sum(client_cost_nanousd)::bigint as cost
  from jobs where team_id = %(team_id)s and user_id is not null and {{times}}
 group by user_id order by cost desc, user_id limit {MOST_USERS}
"""

EMPTY = datetime.min.replace(tzinfo=UTC)
"""An interval that begins and ends here holds nothing."""


class Interval(NamedTuple):
    """From a moment up to, not including, another; None is open."""

    since: datetime | None = None
    before: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Sums over all jobs there ever were. Tokens and cost are those of calls that ended."""

    total_jobs: int = 0
    total_cost_nanousd: int = 0
    total_calls: int = 0
    total_tokens: int = 0


Measured = Counter[str]
"""The measures that were asked for, by name."""


class OfUser(NamedTuple):
    """What the jobs of one end user came to."""

    user_id: str
    jobs: int
    cost: int


async def today(tx: Tx) -> date:
    """The current UTC day."""
    found: date = (await hot(tx, TODAY))[0].today
    return found


async def teams_of(tx: Tx, organization_id: str) -> list[str]:
    """All its teams, deleted ones too: their books are kept."""
    return [row.id for row in await hot(tx, TEAMS, (organization_id,))]


async def totals_of_organization(tx: Tx, organization_id: str) -> Totals:
    """Of all its teams together."""
    teams = await teams_of(tx, organization_id)
    found = (await totals_of_teams(tx, teams)).values()
    return Totals(
        total_jobs=sum(each.total_jobs for each in found),
        total_cost_nanousd=sum(each.total_cost_nanousd for each in found),
        total_calls=sum(each.total_calls for each in found),
        total_tokens=sum(each.total_tokens for each in found),
    )


async def totals_of_teams(tx: Tx, team_ids: Iterable[str]) -> dict[str, Totals]:
    """Of each of these teams, in one statement; one without a job is there too."""
    teams = sorted(set(team_ids))
    found = {row.team_id: row._asdict() for row in await hot(tx, TOTALS, {"teams": teams})}
    return {team: Totals(**{k: v for k, v in found.get(team, {}).items() if k != "team_id"}) for team in teams}


async def sums(
    tx: Tx, teams: Sequence[str], within: Interval, *, by: Sequence[Dimension], measures: Sequence[str]
) -> dict[Dimension, dict[str, Measured]]:
    """Sums of these measures over jobs of these teams, once per dimension: `{"model": {"gpt-4": {"cost": 1}}}`.

    Jobs, and calls that never reached a provider, have the empty word as model or provider. Days read `2026-01-15`.
    """
    sql, params = sums_statement(teams, within, by=by, measures=measures)
    found: dict[Dimension, dict[str, Measured]] = {name: {} for name in by}
    for row in await hot(tx, sql, params):
        # `level` has a bit for each dimension, the first the highest; the one that is not set is the one grouped by.
        name = next(name for n, name in enumerate(by) if not row.level >> (len(by) - 1 - n) & 1)
        found[name][str(getattr(row, name))] = Counter({measure: int(getattr(row, measure)) for measure in measures})
    return found


def sums_statement(
    teams: Sequence[str], within: Interval, *, by: Sequence[Dimension], measures: Sequence[str]
) -> tuple[str, dict[str, Any]]:
    """What `sums` asks the database, with its parameters."""
    since, before, edges = whole_days(within)
    days, times = _within("day", "day", since, before), _within("created_at", "time", *within)
    sql = SUMS.format(
        dimensions=", ".join(by),
        sums=", ".join(f"sum({name})::bigint as {name}" for name in measures),
        ended=", ".join(f"{MEASURES[name][0]} as {name}" for name in measures),
        open=", ".join(MEASURES[name][1] for name in measures),
        days=days[0],
        times=times[0],
        edges=EDGES if edges else "",
        # A single dimension is grouped by in parallel; grouping sets never are.
        groups=by[0] if len(by) == 1 else f"grouping sets ({', '.join(f'({name})' for name in by)})",
    )
    params: dict[str, Any] = {"teams": list(teams), **days[1], **times[1]}
    if not edges:
        return sql, params
    for n, edge in enumerate([*edges, Interval(EMPTY, EMPTY)][:2], start=1):
        params |= {f"edge_{n}_since": edge.since, f"edge_{n}_before": edge.before}
    return EDGE + sql, params


async def of_users(tx: Tx, team_id: str, within: Interval) -> list[OfUser]:
    """What the jobs of a team's end users came to, the dearest first, at most MOST_USERS; read from the jobs."""
    return [OfUser(*row) for row in await hot(tx, *of_users_statement(team_id, within))]


def of_users_statement(team_id: str, within: Interval) -> tuple[str, dict[str, Any]]:
    """What `of_users` asks the database, with its parameters."""
    times, params = _within("created_at", "time", *within)
    return OF_USERS.format(times=times), {"team_id": team_id, **params}


def whole_days(within: Interval) -> tuple[date | None, date | None, list[Interval]]:
    """The whole UTC days of an interval (from, up to but not including), and what lies before and after them."""
    since, before = within
    first = None if since is None else since.astimezone(UTC).date()
    last = None if before is None else before.astimezone(UTC).date()
    edges = []
    if since is not None and first is not None and since != _midnight(first):
        if first == date.max:
            return first, first, [within]
        first += timedelta(days=1)
        end = _midnight(first)
        edges.append(Interval(since, end if before is None else min(end, before)))
    if before is not None and last is not None and before != _midnight(last):
        if first is not None and last < first:
            return first, first, [within]
        edges.append(Interval(_midnight(last), before))
    return first, last, edges


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _within(column: str, name: str, since: Any, before: Any) -> tuple[str, dict[str, Any]]:
    """A condition on a column that names only bounds which there are, so that a plan can use them."""
    bounds = {">=": ("since", since), "<": ("before", before)}
    given = {sign: (f"{name}_{word}", value) for sign, (word, value) in bounds.items() if value is not None}
    words = [f"{column} {sign} %({key})s" for sign, (key, _) in given.items()]
    return " and ".join(words) or "true", dict(given.values())
