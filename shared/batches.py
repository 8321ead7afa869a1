"""Batches: a job's row of its own for what is checked before it starts and written after it ends.

A batch has its job's id. Counts, tokens, money, metadata and callback are the job's; `status` here is what clients see.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from shared.db import Tx, hot
from shared.states import FINAL_BATCHES, Endpoint

COLUMNS = """
b.id, b.team_id, b.key_id, b.endpoint, b.status, b.dry_run, b.input_file_id, b.completion_window, b.retry_of,
b.retry_statuses, b.retry_codes, b.errors, b.lines, b.models, b.estimated_tokens, b.estimated_nanousd,
b.credits_needed, b.output_expires_after_s, b.output_file_id, b.error_file_id, b.error_summary, b.created_at,
b.expires_at, b.in_progress_at, b.finalizing_at, b.completed_at, b.failed_at, b.expired_at, b.cancelling_at,
b.cancelled_at
"""

MOST_INPUT_BYTES = 200 * 1024 * 1024
"""Of the file that a batch's lines are in."""

LONGEST_PAUSE_S = 60
"""Between two tries of what fails."""


# Nobody waits any longer for what a dry run finds.
IS_ABANDONED = "b.dry_run and b.expires_at <= app_now()"

IS_FREE = "(b.lease_expires_at is null or b.lease_expires_at <= app_now())"

# Its times are its job's, to the microsecond: one deadline ends both. A dry run has no job.
CREATE = f"""
insert into batches as b
       (id, team_id, key_id, endpoint, dry_run, input_file_id, completion_window, retry_of, retry_statuses, retry_codes,
        output_expires_after_s, created_at, expires_at)
select %(id)s, %(team_id)s, %(key_id)s, %(endpoint)s, %(dry_run)s, %(input_file_id)s, %(completion_window)s,
       %(retry_of)s, %(retry_statuses)s, %(retry_codes)s, %(output_expires_after_s)s, over.at - waits, over.at
  from make_interval(secs => %(window_s)s) as waits,
       lateral (select coalesce((select deadline_at from jobs where id = %(id)s), app_now() + waits) as at) as over
returning {COLUMNS}
"""

READ = f"select {COLUMNS} from batches b where b.id = %s"

LOCK = f"select {COLUMNS} from batches b where b.id = any(%s) order by b.id for no key update"

# Whoever finds it without a living worker takes it; the status decides what there is to do.
LEASE = f"""
update batches b set worker = %(worker)s, lease_expires_at = app_now() + make_interval(secs => %(lease_s)s)
 where b.id = %(id)s and b.status in ('validating', 'finalizing', 'cancelling')
   and ({IS_FREE} or b.worker = %(worker)s)
returning {COLUMNS}
"""

# Ends before checks: they are short, and somebody has paid for them. Then teams by turns: the fewest under lease, the
# longest without a turn here, the oldest. A unit checks one batch of a team at a time: two would not go faster on its
# one core, and the next team would have no place.
LEASE_NEXT = f"""
with leased as materialized (
    select team_id, count(*) as batches from batches
     where status in ('validating', 'finalizing', 'cancelling') and lease_expires_at > app_now() and worker is not null
     group by team_id
), next as materialized (
    select b.id from batches b left join leased l on l.team_id = b.team_id
     where b.status in ('validating', 'finalizing', 'cancelling') and {IS_FREE} and not ({IS_ABANDONED})
       and (b.status <> 'validating' or not exists (
            select from batches o where o.team_id = b.team_id and o.status = 'validating' and o.worker = %(worker)s
               and o.lease_expires_at > app_now()))
     order by b.status = 'validating', coalesce(l.batches, 0),
              coalesce(array_position(%(served)s::text[], b.team_id), 0), b.created_at
     limit 1 for no key update of b skip locked
)
update batches b set worker = %(worker)s, lease_expires_at = app_now() + make_interval(secs => %(lease_s)s)
  from next n where b.id = n.id
returning {COLUMNS}
"""

RENEW = """
update batches set lease_expires_at = app_now() + make_interval(secs => %(lease_s)s)
 where id = %(id)s and worker = %(worker)s and status in ('validating', 'finalizing', 'cancelling')
returning id
"""

IS_ANOTHERS = "select id from batches where id = %s and worker <> %s"

IS_CHECKED = f"""
select b.id from batches b where b.id = %s and b.worker = %s and b.status = 'validating' and not ({IS_ABANDONED})
"""

RELEASE = "update batches set worker = null, lease_expires_at = null where id = %s and worker = %s"

# Longer, the longer it has been tried in vain: a tenth of the time since it came, or since its lines were over.
PUT_OFF = f"""
update batches
   set worker = null, lease_expires_at = app_now() + least(
           make_interval(secs => {LONGEST_PAUSE_S}), greatest(make_interval(secs => 1),
           (app_now() - greatest(created_at, cancelling_at, finalizing_at)) / 10))
 where id = %s and worker = %s
"""

# What was put off is not to be checked any more, but cancelled.
CANCEL = """
update batches b
   set status = 'cancelling', cancelling_at = app_now(),
       lease_expires_at = case when b.worker is not null then b.lease_expires_at end
  from jobs j
 where b.id = %s and b.status in ('validating', 'in_progress') and j.id = b.id and j.completed_at is null
returning b.id
"""

UNATTENDED = f"""
select b.id from batches b
 where b.status in ('validating', 'finalizing', 'cancelling') and {IS_FREE} and not ({IS_ABANDONED})
 order by b.lease_expires_at nulls first limit %s
"""

ABANDON = "delete from batches where id = %s and dry_run and status = 'validating' returning id"

DELETE_DRY_RUNS = """
delete from batches where id in (
    select id from batches where dry_run and created_at <= app_now() - make_interval(secs => %(older_than_s)s)
     limit %(limit)s for update skip locked)
returning id
"""


@dataclass(frozen=True, kw_only=True)
class NewBatch:
    """A batch that was asked for. retry_*: which lines of `retry_of` it runs.

    window_s: how long its lines may wait; of a dry run how long somebody waits for what it finds.
    """

    id: UUID
    team_id: str
    key_id: UUID
    endpoint: Endpoint
    input_file_id: UUID
    completion_window: str
    window_s: float
    dry_run: bool = False
    retry_of: UUID | None = None
    retry_statuses: Sequence[str] = ()
    retry_codes: Sequence[str] = ()
    output_expires_after_s: int | None = None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch's own row. errors: why it was refused. lines and estimates: as they were when it was checked."""

    id: UUID
    team_id: str
    key_id: UUID
    endpoint: str
    status: str
    dry_run: bool
    input_file_id: UUID
    completion_window: str
    retry_of: UUID | None
    retry_statuses: list[str]
    retry_codes: list[str]
    errors: list[dict[str, Any]] | None
    lines: int
    models: list[str] = field(default_factory=list)
    estimated_tokens: int
    estimated_nanousd: int
    credits_needed: int
    output_expires_after_s: int | None
    output_file_id: UUID | None
    error_file_id: UUID | None
    error_summary: list[dict[str, Any]] | None
    created_at: datetime
    expires_at: datetime
    in_progress_at: datetime | None
    finalizing_at: datetime | None
    completed_at: datetime | None
    failed_at: datetime | None
    expired_at: datetime | None
    cancelling_at: datetime | None
    cancelled_at: datetime | None

    @property
    def is_final(self) -> bool:
        """Whether nothing of it changes any more."""
        return self.status in FINAL_BATCHES


async def create(tx: Tx, new: NewBatch) -> Batch:
    """Insert a batch that is to be checked."""
    given = {**vars(new), "retry_statuses": list(new.retry_statuses), "retry_codes": list(new.retry_codes)}
    [row] = await hot(tx, CREATE, given)
    return Batch(**row._asdict())


async def read(tx: Tx, batch_id: UUID) -> Batch | None:
    """A batch's own row."""
    rows = await hot(tx, READ, (batch_id,))
    return Batch(**rows[0]._asdict()) if rows else None


async def lock(tx: Tx, batch_ids: Iterable[UUID]) -> dict[UUID, Batch]:
    """Lock batches in id order, after their jobs. Unknown ids are left out."""
    wanted = sorted(set(batch_ids))
    return {row.id: Batch(**row._asdict()) for row in await hot(tx, LOCK, (wanted,))} if wanted else {}


async def lease(tx: Tx, batch_id: UUID, *, worker: str, lease_s: float) -> Batch | None:
    """Take a batch that is to be checked, cancelled or finished; None when it is somebody's, or needs nothing."""
    rows = await hot(tx, LEASE, {"id": batch_id, "worker": worker, "lease_s": lease_s})
    return Batch(**rows[0]._asdict()) if rows else None


async def lease_next(tx: Tx, *, worker: str, lease_s: float, served: Sequence[str]) -> Batch | None:
    """Take the batch whose turn it is; None when no batch waits, or those that do are locked just now.

    served: teams that had a turn here, the one whose turn was the longest ago first.
    """
    rows = await hot(tx, LEASE_NEXT, {"worker": worker, "lease_s": lease_s, "served": list(served)})
    return Batch(**rows[0]._asdict()) if rows else None


async def renew(tx: Tx, batch_id: UUID, *, worker: str, lease_s: float) -> bool:
    """Keep it. False when it is not ours any more."""
    return bool(await hot(tx, RENEW, {"id": batch_id, "worker": worker, "lease_s": lease_s}))


async def is_anothers(tx: Tx, batch_id: UUID, *, worker: str) -> bool:
    """Whether another worker has taken it over."""
    return bool(await hot(tx, IS_ANOTHERS, (batch_id, worker)))


async def is_checked_by(tx: Tx, batch_id: UUID, *, worker: str) -> bool:
    """Whether this worker still checks it: nobody has cancelled it, or taken it over, and somebody waits for it."""
    return bool(await hot(tx, IS_CHECKED, (batch_id, worker)))


async def release(tx: Tx, batch_id: UUID, *, worker: str) -> None:
    """Give it up before its lease ends."""
    await hot(tx, RELEASE, (batch_id, worker))


async def put_off(tx: Tx, batch_id: UUID, *, worker: str) -> None:
    """Give it up, and let nobody take it for a while: it was tried in vain."""
    await hot(tx, PUT_OFF, (batch_id, worker))


async def unattended(tx: Tx, *, limit: int) -> list[UUID]:
    """Batches with work that nobody has taken, or whose worker is gone."""
    return [row.id for row in await hot(tx, UNATTENDED, (limit,))]


async def ask_to_cancel(tx: Tx, batch_id: UUID) -> bool:
    """Let a batch whose job is locked be cancelled. False when it is past that: finishing, final, or asked already."""
    return bool(await hot(tx, CANCEL, (batch_id,)))


async def abandon(tx: Tx, batch_id: UUID) -> None:
    """Delete a dry run that is not checked yet: nobody waits for it any more, and its check ends by itself."""
    await hot(tx, ABANDON, (batch_id,))


async def delete_dry_runs(tx: Tx, *, older_than_s: float, limit: int) -> int:
    """Delete what dry runs were judged on; whoever asked has heard it long ago. Returns how many."""
    return len(await hot(tx, DELETE_DRY_RUNS, {"older_than_s": older_than_s, "limit": limit}))
