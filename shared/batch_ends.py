"""Where a job's end and its batch's meet: the lines are over, the files are still to be written."""

from collections.abc import Mapping
from uuid import UUID

from shared.db import Tx, hot

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


async def jobs_ended(tx: Tx, was_cancelled: Mapping[UUID, bool]) -> list[UUID]:
    """These batches' jobs ended, and are locked: the files come next. Returns those that are to be tended."""
    if not was_cancelled:
        return []
    rows = await hot(tx, JOBS_ENDED, (list(was_cancelled), list(was_cancelled.values())))
    return [row.id for row in rows]


async def left_behind(tx: Tx, *, limit: int) -> list[UUID]:
    """Batches that stand as if lines were still to run, though their last one or their job has ended."""
    return [row.id for row in await hot(tx, LEFT_BEHIND, (limit,))]
