"""Calls that have not ended and are ended from outside: one by one, or a batch's lines by the thousand as sums."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from shared.calls import COLUMNS, Call
from shared.db import Tx, hot

END = f"""
with open as (
    select id, job_id from calls
     where job_id = any(%(job_ids)s) and (%(call_ids)s::uuid[] is null or id = any(%(call_ids)s))
       and state in ('pending', 'in_progress') order by id limit %(limit)s for update
), numbered as (
    select o.id, b.ended_before + row_number() over (partition by o.job_id order by o.id) as ended_number
      from open o join unnest(%(job_ids)s::uuid[], %(ended_before)s::int[]) as b(job_id, ended_before) using (job_id)
)
update calls c set state = %(state)s, completed_at = app_now(), error_code = %(code)s, error_message = %(message)s,
       maybe_billed = c.maybe_billed or c.state = 'in_progress', ended_number = n.ended_number
  from numbered n where c.id = n.id
returning {COLUMNS}, null::text as response,
       (select a.provider from attempts a where a.call_id = c.id and a.number = c.attempt) as provider
"""

# A statement of its own: what the next one reads has then no newer version, and can be updated where it lies. There
# is one good plan for that, and it is left no other: where statistics are, it would read the whole table for each step.
LOCK_LINES = """
select count(*), set_config('enable_hashjoin', 'off', true) as hash_join,
       set_config('enable_mergejoin', 'off', true) as merge_join
  from (
    select from calls where job_id = %(job_id)s and id > %(after)s and state in ('pending', 'in_progress')
     order by id limit %(limit)s for update) locked
"""

# By ctid: a planner that takes a young table for empty would look through all calls for each line. What follows in the
# transaction is planned as ever. Only lines that were rung can have tokens of a limit set aside, and only few are at a
# time.
END_LINES = """
with usual as materialized (
    select set_config('enable_hashjoin', 'on', true), set_config('enable_mergejoin', 'on', true)
), open as (
    select ctid, id, state, rung_at from calls
     where job_id = %(job_id)s and id > %(after)s and state in ('pending', 'in_progress') order by id limit %(limit)s
), numbered as (
    select ctid, state, rung_at, %(ended_before)s + row_number() over (order by id) as ended_number from open
), ended as (
    update calls c set state = %(state)s, completed_at = app_now(), error_code = %(code)s, error_message = %(message)s,
           maybe_billed = c.maybe_billed or n.state = 'in_progress', ended_number = n.ended_number
      from numbered n where c.ctid = n.ctid
    returning c.id, c.model, c.key_id, c.budget_ids, c.attempt, c.estimate_nanousd,
              c.estimated_prompt_tokens::bigint + c.estimated_output_tokens as estimated_tokens,
              n.state = 'in_progress' as ran, c.attempt = 0 and n.rung_at is not null as was_rung,
              case when c.attempt > 0 then
                   (select a.provider from attempts a where a.call_id = c.id and a.number = c.attempt) end as provider
)
select model, key_id, budget_ids, provider, count(*)::int as lines, sum(estimate_nanousd)::bigint as estimate_nanousd,
       sum(estimated_tokens)::bigint as estimated_tokens,
       coalesce(array_agg(id) filter (where ran), '{}') as running,
       coalesce(array_agg(id) filter (where was_rung), '{}') as rung
  from usual, ended group by model, key_id, budget_ids, provider order by model, key_id, provider
"""

DELIVERING = """
select c.id from calls c join attempts a on a.call_id = c.id and a.number = c.attempt
 where c.job_id = %(job_id)s and (%(call_id)s::uuid is null or c.id = %(call_id)s) and c.state = 'in_progress'
   and c.stream and a.first_chunk_at is not null and c.lease_expires_at > app_now()
 limit %(limit)s
"""


@dataclass(frozen=True, kw_only=True)
class LineGroup:
    """Lines that ended together and are counted together. provider: of their last attempt, where they had one.

    running: those that a worker runs. rung: those that wait for a worker that was rung for them.
    """

    model: str
    key_id: UUID | None
    budget_ids: list[UUID] | None
    provider: str | None
    lines: int
    estimate_nanousd: int
    estimated_tokens: int
    running: list[UUID]
    rung: list[UUID]


class ToldLine(NamedTuple):
    """A line that ended, as far as its event tells of it. See `Call`."""

    id: UUID
    state: str
    purpose: str | None
    model: str
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    client_cost_nanousd: int
    latency_ms: int | None
    attempt: int
    metadata: dict[str, Any] | None
    custom_id: str | None
    error_code: str | None
    error_message: str | None
    maybe_billed: bool


TOLD = f"""
select {", ".join(ToldLine._fields)} from calls
 where job_id = %(job_id)s and ended_number > %(ended_before)s order by ended_number
"""


async def end(
    tx: Tx,
    jobs: Mapping[UUID, int | None],
    *,
    state: str,
    code: str,
    message: str,
    limit: int,
    call_ids: Iterable[UUID] | None = None,
) -> list[Call]:
    """Cancel or fail up to `limit` unfinished calls of locked jobs; a worker that still runs one loses the fence.

    jobs: of a batch how many of its lines have ended, of any other None.
    """
    params = {
        "job_ids": list(jobs),
        "ended_before": list(jobs.values()),
        "call_ids": None if call_ids is None else list(call_ids),
        "state": state,
        "code": code,
        "message": message,
        "limit": limit,
    }
    return [Call(**row._asdict()) for row in await hot(tx, END, params)]


async def end_lines(
    tx: Tx, job_id: UUID, ended_before: int, *, after: UUID, state: str, code: str, message: str, limit: int
) -> list[LineGroup]:
    """The same for the lines of one locked batch, of which so many have ended; told as sums.

    after: an id up to which all of them have.
    """
    params = {
        "job_id": job_id,
        "ended_before": ended_before,
        "after": after,
        "state": state,
        "code": code,
        "message": message,
        "limit": limit,
    }
    await hot(tx, LOCK_LINES, {name: params[name] for name in ("job_id", "after", "limit")})
    return [LineGroup(**row._asdict()) for row in await hot(tx, END_LINES, params)]


async def told(tx: Tx, job_id: UUID, ended_before: int) -> list[ToldLine]:
    """The lines of a locked batch that have ended since so many had, in the order of their numbers."""
    return [ToldLine._make(row) for row in await hot(tx, TOLD, {"job_id": job_id, "ended_before": ended_before})]


async def delivering(tx: Tx, job_id: UUID, call_id: UUID | None = None, *, limit: int = 1000) -> list[UUID]:
    """Calls of the job, or this one, of which a worker that lives delivers chunks."""
    rows = await hot(tx, DELIVERING, {"job_id": job_id, "call_id": call_id, "limit": limit})
    return [row.id for row in rows]
