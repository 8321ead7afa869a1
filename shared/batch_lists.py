"""Batches as clients read them: a batch, its job and what runs of it in one statement, so that its counts add up."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from shared.batches import COLUMNS, Batch
from shared.db import Tx, hot
from shared.sql_terms import FAILURES

# Of the lines only those in progress and, until the batch is final, the failed ones are looked at, in their indexes.
# A dry run has no job; that it is left out is said for the index too.
SHOWN = f"""
select {COLUMNS}, j.metadata, j.client_cost_nanousd as cost_nanousd, j.credits_charged, j.calls_total as total,
       j.calls_completed as completed, j.calls_failed - j.calls_expired as failed, j.calls_expired as expired,
       j.calls_cancelled as cancelled, j.prompt_tokens, j.completion_tokens, j.cached_tokens, j.reasoning_tokens,
       app_now() as read_at, j.callback_url, j.callback_events, d.state as callback_state, d.last_status,
       case when b.in_progress_at is null or j.completed_at is not null then 0 else
           (select count(*) from calls c where c.job_id = b.id and c.state = 'in_progress') end as in_progress,
       case when b.in_progress_at is null or b.error_summary is not null or j.calls_failed = j.calls_expired then '[]'
            else (select json_agg(e) from ({FAILURES.format(batch_id="b.id")}) e) end as failures
  from batches b join jobs j on j.id = b.id
  left join lateral (
       select d.state, d.last_status from deliveries d
        where j.callback_url is not null and d.job_id = j.id and d.callback = 'job'
        order by d.created_at desc, d.id desc limit 1) d on true
 where b.team_id = %(team_id)s and not b.dry_run
"""

GET = f"{SHOWN} and b.id = %(id)s"

# Ids sort by time.
LIST = f"{SHOWN} and (%(after)s::uuid is null or b.id < %(after)s) order by b.id desc limit %(limit)s"

DRY_RUN = f"select {COLUMNS} from batches b where b.id = %s and b.team_id = %s and b.dry_run"


@dataclass(frozen=True, kw_only=True)
class BatchView(Batch):
    """A batch as one statement read it.

    total: its lines, none before it was accepted; failed, expired: by themselves, unlike the job's. in_progress: with a
    worker now. failures: [{code, count}] of the failed lines while it is not final. read_at: the database's time.
    callback_state, last_status: of the latest delivery to its own callback; None before the first.
    """

    metadata: dict[str, Any]
    cost_nanousd: int
    credits_charged: int
    total: int
    completed: int
    failed: int
    expired: int
    cancelled: int
    in_progress: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    failures: list[dict[str, Any]] | None
    read_at: datetime
    callback_url: str | None = None
    callback_events: list[str] | None = None
    callback_state: str | None = None
    last_status: int | None = None

    @property
    def ended(self) -> int:
        """Lines that are over, however they ended."""
        return self.completed + self.failed + self.expired + self.cancelled


async def get(tx: Tx, batch_id: UUID, team_id: str) -> BatchView | None:
    """A team's batch; None for a dry run too."""
    rows = await hot(tx, GET, {"id": batch_id, "team_id": team_id})
    return BatchView(**rows[0]._asdict()) if rows else None


async def list_of_team(tx: Tx, team_id: str, *, after: UUID | None, limit: int) -> list[BatchView]:
    """A team's batches, newest first. after: of the page before, the last one's id."""
    rows = await hot(tx, LIST, {"team_id": team_id, "after": after, "limit": limit})
    return [BatchView(**row._asdict()) for row in rows]


async def dry_run(tx: Tx, batch_id: UUID, team_id: str) -> Batch | None:
    """The row that a team's dry run is judged on."""
    rows = await hot(tx, DRY_RUN, (batch_id, team_id))
    return Batch(**rows[0]._asdict()) if rows else None
