"""Calls that wait: what a limited team may run, whose bell was lost, whose lease or deadline has passed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from shared.db import Tx, hot
from shared.sql_terms import BUSY, IS_PENDING, MAY_START, RUNNING

MOST_RUNG = 4096

UNFINISHED_OF_TEAMS = """
select t.team_id, (
       select count(*) from (select 1 from calls c where c.team_id = t.team_id and c.state in ('pending', 'in_progress')
                             and not c.batched limit %s) u) as calls
  from unnest(%s::text[]) as t(team_id)
"""

WAITING_OF_TEAMS = """
select t.team_id, (
       select count(*) from (select 1 from calls c where c.team_id = t.team_id and c.state = 'pending'
                             and not c.batched limit t.most) w) as calls
  from unnest(%s::text[], %s::bigint[]) as t(team_id, most)
"""

LOCK_QUEUES = """
select id as team_id, max_queued_calls as most from teams
 where id = any(%s) and max_queued_calls is not null order by id for no key update
"""

LIMITED = f"""
select c.id, c.team_id from calls c join teams t on t.id = c.team_id
 where c.id = any(%s) and {IS_PENDING} and c.run_at <= app_now() and t.max_parallel_calls is not null
   and {MAY_START}
"""

LOCK_LIMITED = """
select id from teams
 where id in (select team_id from calls where id = any(%s)) and max_parallel_calls is not null
 order by id for no key update
"""

# A statement of its own, after the lock: its snapshot sees what those who held the lock before us claimed.
FITTING = f"""
with due as (
    select c.id, c.team_id, c.batched, c.priority from calls c
     where c.id = any(%(ids)s) and c.team_id = any(%(teams)s) and {IS_PENDING} and c.run_at <= app_now()
     order by c.id for update skip locked
), room as (
    select t.id as team_id, t.max_parallel_calls - {RUNNING} as calls
      from teams t where t.id = any(%(teams)s)
), ranked as (
    select d.id, row_number() over (partition by d.team_id order by d.batched, d.priority desc, d.id) <= r.calls as fits
      from due d join room r using (team_id)
), held as (
    update calls c set rung_at = null from ranked r where c.id = r.id and not r.fits
)
select id from ranked where fits
"""

# What is rung now has been held until now: run_at says since when a call lacks nothing but a worker. Lines of batches
# are left to the dispatcher, which counts them against rate limits first.
NEXT = f"""
with room as (
    select t.id as team_id, greatest(0, least(t.max_parallel_calls, %(most)s) - ({BUSY})) as calls
      from teams t where t.id = any(%(teams)s) and t.max_parallel_calls is not null
), picked as (
    select c.id from room r cross join lateral (
           select id from calls c where c.team_id = r.team_id and c.state = 'pending' and c.rung_at is null
              and not c.batched order by c.priority desc, c.id limit r.calls for update skip locked) c
)
update calls c set rung_at = app_now(), run_at = app_now() from picked where c.id = picked.id returning c.id
"""

# Lines that may not start any more go back to the dispatcher.
LOST = f"""
with lost as (
    select id from calls
     where state = 'pending' and batched = %(batched)s and run_at <= app_now()
       and rung_at < app_now() - make_interval(secs => %(rung_before_s)s)
     order by rung_at limit %(limit)s for update skip locked
), looked_at as (
    update calls c set rung_at = case when {MAY_START} then app_now() end
      from lost, teams t where c.id = lost.id and t.id = c.team_id returning c.id, c.rung_at
)
select id from looked_at where rung_at is not null
"""

# Rung long ago first. Beyond MOST_RUNG bells none is rung again (workers/sweeper.py), so the oldest is among these.
# Of the calls nobody rang yet, the one whose turn is next in each team; those of a limited team are held by its limit.
# Lines of batches are not looked at: they wait by design, behind every live call.
LACKING_A_WORKER = f"""
with recursive waiting(team_id) as (
    (select team_id from calls where state = 'pending' and rung_at is null and not batched
      order by team_id limit 1)
    union all
    select (select c.team_id from calls c where c.state = 'pending' and c.rung_at is null and not c.batched
               and c.team_id > w.team_id order by c.team_id limit 1)
      from waiting w where w.team_id is not null
), lacking as (
    (select run_at from calls where state = 'pending' and not batched and rung_at is not null
      order by rung_at limit {MOST_RUNG})
    union all
    select h.run_at
      from (select team_id from waiting where team_id is not null limit 100) w
      join teams t on t.id = w.team_id and t.max_parallel_calls is null
      cross join lateral (select run_at from calls c where c.team_id = w.team_id and c.state = 'pending'
                             and c.rung_at is null and not c.batched order by priority desc, id limit 1) h
)
select extract(epoch from app_now() - min(run_at))::float8 as age_s from lacking where run_at <= app_now()
"""

EXPIRED = """
select c.id, c.job_id, c.batched, c.attempt as number, c.candidates, c.candidate, c.candidate_attempts, c.failures,
       c.deaths, c.estimated_prompt_tokens, c.estimated_output_tokens, c.candidates[c.candidate + 1] as alias,
       extract(epoch from c.deadline_at - app_now())::float8 as deadline_in_s,
       o.litellm_model, o.input_nanousd_per_mtok, o.output_nanousd_per_mtok, o.cached_input_nanousd_per_mtok,
       coalesce(a.on_unknown, 'retry') as on_unknown, o.first_chunk_at is not null as has_delivered
  from calls c
  left join attempts o on o.call_id = c.id and o.number = c.attempt
  left join model_aliases a on a.alias = c.candidates[c.candidate + 1]
 where c.state = 'in_progress' and c.lease_expires_at <= app_now() order by c.lease_expires_at limit %s
"""

# A batch's lines have its job's deadline and end with it, all at once.
OVERDUE = """
select id, job_id from calls
 where state = 'pending' and deadline_at <= app_now() and not batched order by deadline_at limit %s
"""


@dataclass(frozen=True, kw_only=True)
class Expired:
    """A call whose worker let the lease run out. has_delivered: clients have seen chunks of this attempt.

    litellm_model and prices are those the attempt began with, whatever the alias says now. on_unknown is the alias's.
    """

    id: UUID
    job_id: UUID
    number: int
    candidates: list[str]
    candidate: int
    candidate_attempts: int
    failures: int
    deaths: int
    estimated_prompt_tokens: int
    estimated_output_tokens: int
    alias: str
    deadline_in_s: float
    litellm_model: str | None
    input_nanousd_per_mtok: int | None
    output_nanousd_per_mtok: int | None
    cached_input_nanousd_per_mtok: int | None
    on_unknown: Literal["retry", "fail"]
    has_delivered: bool = False
    batched: bool = False


async def unfinished_of_teams(tx: Tx, team_ids: Iterable[str], *, most: int) -> dict[str, int]:
    """How many calls of each team have not ended, counted up to `most`; lines of batches are not counted."""
    wanted = sorted(set(team_ids))
    rows = await hot(tx, UNFINISHED_OF_TEAMS, (most, wanted)) if wanted else []
    return {row.team_id: row.calls for row in rows}


async def waiting_of_teams(tx: Tx, most: Mapping[str, int]) -> dict[str, int]:
    """How many calls of each team wait (none running, no lines of batches), counted up to so many."""
    rows = await hot(tx, WAITING_OF_TEAMS, (list(most), list(most.values()))) if most else []
    return {row.team_id: row.calls for row in rows}


async def lock_queues(tx: Tx, team_ids: Iterable[str]) -> dict[str, int]:
    """Lock teams by id, before any call or account. Returns each one's `max_queued_calls`, where it has one."""
    wanted = sorted(set(team_ids))
    return {row.team_id: row.most for row in await hot(tx, LOCK_QUEUES, (wanted,))} if wanted else {}


async def limited(tx: Tx, call_ids: Iterable[UUID]) -> dict[UUID, str]:
    """Those of these calls that could be claimed, if it were not for `max_parallel_calls` of their team, and that."""
    return {row.id: row.team_id for row in await hot(tx, LIMITED, (list(call_ids),))}


async def lock_limited(tx: Tx, call_ids: Iterable[UUID]) -> list[str]:
    """Lock these calls' teams that have `max_parallel_calls`, before any call: what they run can be counted now."""
    return [row.id for row in await hot(tx, LOCK_LIMITED, (list(call_ids),))]


async def fitting(tx: Tx, call_ids: Iterable[UUID], locked_teams: Iterable[str]) -> list[UUID]:
    """Those of these calls that their locked teams may run now; the others wait for their turn again."""
    return [row.id for row in await hot(tx, FITTING, {"ids": list(call_ids), "teams": list(locked_teams)})]


async def next_of(tx: Tx, team_ids: Iterable[str], *, most: int) -> list[UUID]:
    """Waiting calls, no lines, that limited teams may run now; they count as rung. most: running and rung of a team."""
    return [row.id for row in await hot(tx, NEXT, {"teams": list(team_ids), "most": most})]


async def lacking_a_worker_s(tx: Tx) -> float:
    """For how long the oldest due call has lacked nothing but a worker, so not what a limit holds; 0: there is none."""
    [row] = await hot(tx, LACKING_A_WORKER)
    return max(0.0, row.age_s or 0.0)


async def lost(tx: Tx, *, batched: bool, rung_before_s: float, limit: int) -> list[UUID]:
    """Pending due calls, or lines of batches, rung longer ago than this; they count as rung now.

    Lines whose key, team or organization is stopped meanwhile are not among them, and count as rung no longer.
    """
    given = {"batched": batched, "rung_before_s": rung_before_s, "limit": limit}
    return [row.id for row in await hot(tx, LOST, given)]


async def expired(tx: Tx, *, limit: int) -> list[Expired]:
    """Calls in progress whose lease ran out."""
    return [Expired(**row._asdict()) for row in await hot(tx, EXPIRED, (limit,))]


async def overdue(tx: Tx, *, limit: int) -> list[tuple[UUID, UUID]]:
    """(call, job) of pending calls whose deadline passed."""
    return [(row.id, row.job_id) for row in await hot(tx, OVERDUE, (limit,))]
