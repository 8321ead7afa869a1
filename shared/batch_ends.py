"""The end of a batch: with its job's its lines are over; it is final itself once its files are written."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import orjson

from shared.db import Tx, hot
from shared.states import BatchStatus

# A batch that was refused is final already: its job's end changes nothing of it.
JOBS_ENDED = """
update batches b
   set status = case when b.status = 'cancelling' or e.was_cancelled then 'cancelling' else 'finalizing' end,
       cancelling_at = case when b.status <> 'cancelling' and e.was_cancelled then app_now() else b.cancelling_at end,
       finalizing_at = case when b.status <> 'cancelling' and not e.was_cancelled then app_now()
                            else b.finalizing_at end
  from unnest(%s::uuid[], %s::boolean[]) as e(id, was_cancelled)
 where b.id = e.id and b.status in ('validating', 'in_progress', 'cancelling')
returning b.id
"""

# The transaction that ends a batch's last line ends its job and moves the batch on: there are none unless that broke.
LEFT_BEHIND = """
select b.id from batches b join jobs j using (id)
 where b.status in ('validating', 'in_progress', 'cancelling')
   and case when j.status in ('completed', 'failed', 'cancelled') then b.status <> 'cancelling'
            else j.calls_total > 0 and j.calls_completed + j.calls_failed + j.calls_cancelled = j.calls_total end
 limit %s
"""

# Whoever still holds it ends it, once.
FINISH = """
update batches
   set status = %(status)s, output_file_id = %(output_file_id)s, error_file_id = %(error_file_id)s,
       error_summary = %(error_summary)s::jsonb, worker = null, lease_expires_at = null,
       completed_at = case when %(status)s = 'completed' then app_now() end,
       expired_at = case when %(status)s = 'expired' then app_now() end,
       cancelled_at = case when %(status)s = 'cancelled' then app_now() end
 where id = %(id)s and worker = %(worker)s and status in ('finalizing', 'cancelling')
returning id
"""


async def jobs_ended(tx: Tx, was_cancelled: Mapping[UUID, bool]) -> list[UUID]:
    """These batches' jobs ended, and are locked: the files come next. Returns those that are to be tended."""
    if not was_cancelled:
        return []
    rows = await hot(tx, JOBS_ENDED, (list(was_cancelled), list(was_cancelled.values())))
    return [row.id for row in rows]


async def left_behind(tx: Tx, *, limit: int) -> list[UUID]:
    """Batches that stand as if lines were still to run, though their last one or their job has ended."""
    return [row.id for row in await hot(tx, LEFT_BEHIND, (limit,))]


async def finish(
    tx: Tx,
    batch_id: UUID,
    *,
    worker: str,
    status: BatchStatus,
    output_file_id: UUID,
    error_file_id: UUID | None,
    error_summary: Sequence[Mapping[str, Any]],
) -> bool:
    """Make a batch final. False when it is not this worker's any more, or final already."""
    given = {
        "id": batch_id,
        "worker": worker,
        "status": status,
        "output_file_id": output_file_id,
        "error_file_id": error_file_id,
        "error_summary": orjson.dumps(error_summary).decode(),
    }
    return bool(await hot(tx, FINISH, given))
