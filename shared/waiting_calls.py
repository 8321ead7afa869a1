"""Calls that wait: whose turn it is, whose bell was lost, whose lease or deadline has passed."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from shared.db import Tx, hot

UNFINISHED_OF_TEAMS = """
select t.team_id, (
       select count(*) from (select 1 from calls c where c.team_id = t.team_id and c.state in ('pending', 'in_progress')
                             limit %s) u) as calls
  from unnest(%s::text[]) as t(team_id)
"""

LOST = """
with lost as (
    select id from calls
     where state = 'pending' and rung_at < app_now() - make_interval(secs => %s) and run_at <= app_now()
     order by rung_at limit %s for update skip locked
)
update calls c set rung_at = app_now() from lost where c.id = lost.id returning c.id
"""

# Teams take turns: a team's n-th waiting call has turn n / weight; priority and age order calls inside a team only.
DISPATCH = """
with recursive waiting(team_id) as (
    (select team_id from calls where state = 'pending' and rung_at is null order by team_id limit 1)
    union all
    select (select c.team_id from calls c where c.state = 'pending' and c.rung_at is null and c.team_id > w.team_id
             order by c.team_id limit 1)
      from waiting w where w.team_id is not null
), room as (
    select greatest(0, %(window)s - count(*)) as calls from (
        select 1 from calls where state = 'pending' and rung_at is not null and run_at <= app_now()
         limit %(window)s) rung
), candidate as (
    select q.id, q.n::float8 / t.weight as turn
      from waiting w join teams t on t.id = w.team_id
      cross join lateral (
           select id, row_number() over (order by priority desc, id) as n
             from (select id, priority from calls c
                    where c.team_id = w.team_id and c.state = 'pending' and c.rung_at is null
                    order by priority desc, id limit (select calls from room)) first) q
), chosen as (
    select id, turn from candidate order by turn, id limit (select calls from room)
), picked as (
    select id from calls where id in (select id from chosen) and state = 'pending' and rung_at is null
     order by id for update skip locked
), rung as (
    update calls c set rung_at = app_now() from picked where c.id = picked.id returning c.id
)
select id from rung join chosen using (id) order by turn, id
"""

EXPIRED = """
select c.id, c.job_id, c.attempt as number, c.candidates, c.candidate, c.candidate_attempts, c.failures, c.deaths,
       c.estimated_prompt_tokens, c.estimated_output_tokens, c.candidates[c.candidate + 1] as alias,
       extract(epoch from c.deadline_at - app_now())::float8 as deadline_in_s,
       a.litellm_model, a.input_nanousd_per_mtok, a.output_nanousd_per_mtok, a.cached_input_nanousd_per_mtok,
       coalesce(a.on_unknown, 'retry') as on_unknown
  from calls c left join model_aliases a on a.alias = c.candidates[c.candidate + 1]
 where c.state = 'in_progress' and c.lease_expires_at <= app_now() order by c.lease_expires_at limit %s
"""

OVERDUE = """
select id, job_id from calls where state = 'pending' and deadline_at <= app_now() order by deadline_at limit %s
"""


@dataclass(frozen=True, kw_only=True)
class Expired:
    """A call whose worker let the lease run out."""

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
    on_unknown: str


async def unfinished_of_teams(tx: Tx, team_ids: Iterable[str], *, most: int) -> dict[str, int]:
    """How many calls of each team have not ended, counted up to `most`."""
    return {row.team_id: row.calls for row in await hot(tx, UNFINISHED_OF_TEAMS, (most, sorted(set(team_ids))))}


async def lost(tx: Tx, *, rung_before_s: float, limit: int) -> list[UUID]:
    """Pending due calls rung longer ago than this; they count as rung now."""
    return [row.id for row in await hot(tx, LOST, (rung_before_s, limit))]


async def dispatch(tx: Tx, *, window: int) -> list[UUID]:
    """Waiting calls whose turn it is, so that at most `window` rung calls wait for a worker; they count as rung now."""
    return [row.id for row in await hot(tx, DISPATCH, {"window": window})]


async def expired(tx: Tx, *, limit: int) -> list[Expired]:
    """Calls in progress whose lease ran out."""
    return [Expired(**row._asdict()) for row in await hot(tx, EXPIRED, (limit,))]


async def overdue(tx: Tx, *, limit: int) -> list[tuple[UUID, UUID]]:
    """(call, job) of pending calls whose deadline passed."""
    return [(row.id, row.job_id) for row in await hot(tx, OVERDUE, (limit,))]
