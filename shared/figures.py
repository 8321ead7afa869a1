"""What there is to do and what was done, summed over all teams, for who watches Waybill: no team is named."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from shared import ids
from shared.db import Tx, hot
from shared.sql_terms import UNFINISHED_BATCH
from shared.states import FINAL_BATCHES, BatchStatus

MOST_ATTEMPTS = 2000
"""The newest attempts are looked at, so that it costs the same however many there are."""

# Each part reads the one partial index that holds nothing else, never the waiting lines of batches: what those are is
# known from their jobs' counters. `offset 0` looks up a job by its key for each of the few open batches. What runs has
# a lease: naming it leaves no other index to the planner.
UNFINISHED = f"""
select (select count(*) from calls where state = 'pending' and rung_at is null and not batched)
       + (select count(*) from calls where state = 'pending' and rung_at is not null and not batched) as calls_waiting,
       running.calls as calls_running,
       greatest(0, open.lines - running.lines) as lines_waiting,
       running.lines as lines_running
  from (select count(*) filter (where not batched) as calls, count(*) filter (where batched) as lines
          from calls where state = 'in_progress' and lease_expires_at > '-infinity') running,
       (select coalesce(sum(j.lines), 0)::bigint as lines
          from batches b
         cross join lateral (select calls_total - calls_completed - calls_failed - calls_cancelled as lines
                               from jobs where id = b.id offset 0) j
         where b.status in {UNFINISHED_BATCH}) open
"""

BATCHES = f"""
select status, count(*) as batches from batches
 where status in {UNFINISHED_BATCH} group by status
"""
OPEN_BATCHES = tuple(status for status in BatchStatus if status not in FINAL_BATCHES)

# From the primary key alone, newest calls first.
ATTEMPTS_PER_CALL = """
select count(*)::float8 / nullif(count(distinct call_id), 0) as mean
  from (select call_id from attempts where call_id >= %(first_id)s order by call_id desc limit %(most)s) newest
"""

SUMS = """
       sum(jobs_completed)::bigint as jobs_completed, sum(jobs_failed)::bigint as jobs_failed,
       sum(jobs_cancelled)::bigint as jobs_cancelled, sum(credits_charged)::bigint as credits_charged,
       sum(calls_completed)::bigint as calls_completed, sum(calls_failed)::bigint as calls_failed,
       sum(calls_cancelled)::bigint as calls_cancelled, sum(prompt_tokens)::bigint as prompt_tokens,
       sum(completion_tokens)::bigint as completion_tokens, sum(client_cost_nanousd)::bigint as client_cost_nanousd,
       sum(provider_cost_nanousd)::bigint as provider_cost_nanousd, sum(latency_sum_ms)::bigint as latency_sum_ms
"""

# A line's model is the name that was asked for, which may be a key's own: whoever makes keys makes those. Only what an
# admin made is told apart; the sums by provider hold everything.
USAGE = f"""
with summed as materialized (select model, provider, {SUMS} from usage_daily group by model, provider)
select null as model, provider, {SUMS} from summed group by provider
 union all
select * from summed s
 where model <> '' and (exists (select from model_aliases a where a.alias = s.model)
                        or exists (select from model_access_groups g where g.group_name = s.model))
 order by provider, model nulls first
"""


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """Calls that have not ended: live ones and lines of batches, waiting (for whatever) and running."""

    calls_waiting: int
    calls_running: int
    lines_waiting: int
    lines_running: int


@dataclass(frozen=True, kw_only=True)
class Used:
    """What ended jobs and calls have come to since the beginning, as of one moment; each number only grows.

    model: None on the sum of a provider, which is over all names. provider: empty for calls that were never sent; the
    jobs and their credits are there. latency_sum_ms: of completed calls.
    """

    model: str | None
    provider: str
    jobs_completed: int
    jobs_failed: int
    jobs_cancelled: int
    credits_charged: int
    calls_completed: int
    calls_failed: int
    calls_cancelled: int
    prompt_tokens: int
    completion_tokens: int
    client_cost_nanousd: int
    provider_cost_nanousd: int
    latency_sum_ms: int


async def unfinished(tx: Tx) -> Unfinished:
    """What there is to do, however much of it waits in batches."""
    [row] = await hot(tx, UNFINISHED)
    return Unfinished(**row._asdict())


async def open_batches(tx: Tx) -> dict[str, int]:
    """Batches by status, of those that are not final; checks of dry runs are among them."""
    found = {row.status: row.batches for row in await hot(tx, BATCHES)}
    return {status: found.get(status, 0) for status in OPEN_BATCHES}


async def attempts_per_call(tx: Tx, since: datetime) -> float | None:
    """How many attempts a call takes: of the newest 2,000, at calls accepted since then. None: there are none."""
    rows = await hot(tx, ATTEMPTS_PER_CALL, {"first_id": ids.earliest(since), "most": MOST_ATTEMPTS})
    mean: float | None = rows[0].mean
    return mean


async def used(tx: Tx) -> Sequence[Used]:
    """Sums by provider, and by model and provider for models and groups that exist. Reads the whole rollup."""
    return [Used(**row._asdict()) for row in await hot(tx, USAGE)]
