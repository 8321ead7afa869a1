"""How far the callbacks of jobs and calls are, as answers echo them: the state of the latest delivery."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from shared.db import Tx, hot

# By the time first: by the id alone the newest deliveries of all jobs might be searched for one of this job.
OF_JOB = """
select state, last_status from deliveries
 where job_id = %s and callback = 'job' order by created_at desc, id desc limit 1
"""

OF_CALLS = """
with told as (
    select distinct on (e.subject_id) e.subject_id as call_id, d.state, d.last_status
      from deliveries d join events e on e.id = d.event_id
     where d.job_id = %(job_id)s and d.callback = 'call' and e.subject_id = any(%(call_ids)s)
     order by e.subject_id, d.id desc
)
select c.id, c.callback_url as url, c.callback_events as events, coalesce(t.state, 'pending') as state, t.last_status
  from calls c left join told t on t.call_id = c.id
 where c.id = any(%(call_ids)s) and c.callback_url is not null
"""


async def of_job(tx: Tx, job_id: UUID) -> dict[str, Any] | None:
    """How the latest delivery to a job's own callback stands: `{state, last_status}`; None before the first."""
    rows = await hot(tx, OF_JOB, (job_id,))
    return rows[0]._asdict() if rows else None


async def of_calls(tx: Tx, job_id: UUID, call_ids: Sequence[UUID]) -> dict[UUID, dict[str, Any]]:
    """`{url, events, state, last_status}` by call of this job; calls without a callback are left out.

    The state is that of the latest delivery, `pending` before the first.
    """
    if not call_ids:
        return {}
    rows = await hot(tx, OF_CALLS, {"job_id": job_id, "call_ids": list(call_ids)})
    names = ("url", "events", "state", "last_status")
    return {row.id: {name: getattr(row, name) for name in names} for row in rows}
