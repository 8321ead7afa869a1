"""How far jobs are that somebody wants to hear of, and the news of them that are out of date."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from shared.db import Tx, hot

RECENT_S = 15.0
"""A commit becomes readable later than the `updated_at` it writes: look back longer than a transaction may take."""

# `job.progress` is asked for by its exact name: partial indexes answer at once when nobody does. A claim changes calls
# and not their job, so the running calls of a subscribed team are looked at beside its jobs that changed.
WATCHED = """
with teams as materialized (
    select distinct team_id from webhook_endpoints where status = 'active' and 'job.progress' = any (events)
), watched as (
    select id from jobs where status in ('pending', 'in_progress') and 'job.progress' = any (callback_events)
    union
    select c.job_id from teams join calls c on c.team_id = teams.team_id and c.state = 'in_progress'
    union
    select j.id from jobs j
     where j.status in ('pending', 'in_progress') and j.updated_at > app_now() - make_interval(secs => %(recent_s)s)
       and j.team_id in (select team_id from teams)
)
select j.id, j.calls_total as total, j.calls_completed as completed, j.calls_failed as failed,
       j.calls_cancelled as cancelled,
       (select count(*) from calls c where c.job_id = j.id and c.state = 'in_progress')::int as in_progress
  from watched join jobs j using (id)
 where j.status in ('pending', 'in_progress')
"""

RUNNING = """
select job_id, count(*)::int as calls from calls where job_id = any(%s) and state = 'in_progress' group by job_id
"""

# What was asked for again by hand or by a replay is sent whatever came after it.
DROP = """
with late as (
    select d.id, d.queue_id from deliveries d join jobs j on j.id = d.job_id join events e on e.id = d.event_id
     where d.event_type = 'job.progress' and d.state in ('pending', 'failing')
       and d.trigger = 'scheduled' and d.replay_id is null
       and (d.lease_expires_at is null or d.lease_expires_at <= app_now())
       and (j.status in ('completed', 'failed', 'cancelled')
            or exists (select from events n where n.job_id = d.job_id and n.sequence > e.sequence
                          and n.type = 'job.progress'))
     order by d.id limit %(limit)s for update of d skip locked
)
update deliveries d set state = 'discarded', lease_expires_at = null, last_error = 'out_of_date'
  from late where d.id = late.id
returning d.id
"""


@dataclass(frozen=True, kw_only=True)
class JobCounts:
    """How many calls of a job stand where."""

    id: UUID
    total: int
    in_progress: int
    completed: int
    failed: int
    cancelled: int


async def watched(tx: Tx) -> list[JobCounts]:
    """Open jobs that somebody wants to hear of and that may have moved."""
    return [JobCounts(**row._asdict()) for row in await hot(tx, WATCHED, {"recent_s": RECENT_S})]


async def running(tx: Tx, job_ids: Iterable[UUID]) -> dict[UUID, int]:
    """Calls in progress by job; a job without any is left out."""
    return {row.job_id: row.calls for row in await hot(tx, RUNNING, (list(job_ids),))}


async def drop_out_of_date(tx: Tx, *, limit: int) -> int:
    """Discard progress that waits to be sent though newer one is there or its job has ended. Returns how many."""
    return len(await hot(tx, DROP, {"limit": limit}))
