"""Ending a batch's lines by the thousand: counted, settled and written as sums, in the caller's transaction.

Where somebody hears them, each line's event is made from the few columns that it shows.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from shared import closing, facts, outbox, unfinished_calls
from shared.closing import Aftermath, Ending
from shared.db import Tx
from shared.event_types import CALL_DEFAULT
from shared.failures import message
from shared.jobs import Job
from shared.settling import Spent
from shared.states import CallState
from shared.unfinished_calls import LineGroup
from shared.usage_sums import UsageSums

NIL = UUID(int=0)


@dataclass(frozen=True, kw_only=True)
class LinesEnded:
    """What ended, and what is to be rung. last: where the next step may begin, if it is known."""

    groups: list[LineGroup]
    aftermath: Aftermath
    last: UUID


async def are_heard(tx: Tx, team_id: str) -> bool:
    """Whether somebody wants the events of this team's calls; only then do lines of batches make any."""
    return bool(await outbox.subscribed(tx, [team_id], CALL_DEFAULT))


async def end_lines(
    tx: Tx,
    job: Job,
    *,
    code: str,
    limit: int,
    finish: Ending | None,
    now: datetime,
    heard: bool = False,
    after: UUID = NIL,
) -> LinesEnded:
    """End up to `limit` unfinished lines of a locked batch, and finish its job if these are the last.

    code: what the lines end with. heard: each makes its event. after: a line up to which all have ended. Who waits for
    one of them is not told: 50,000 ids for nobody.
    """
    state = CallState.CANCELLED if code == "cancelled" else CallState.FAILED
    ended_before = job.ended
    groups = await unfinished_calls.end_lines(
        tx, job.id, ended_before, after=after, state=state, code=code, message=message(code), limit=limit
    )
    told = await unfinished_calls.told(tx, job.id, ended_before) if heard else []
    usage = UsageSums()
    for group in groups:
        _count(job, group, state, code)
        usage.count_unrun(job, state, group)
    spent = [
        Spent(budget_ids=group.budget_ids, held_nanousd=group.estimate_nanousd) for group in groups if group.budget_ids
    ]
    recorded = [facts.call_ended(job, line, now) for line in told]
    ends = {} if finish is None else {job.id: finish}
    aftermath = await closing.end_jobs(tx, {job.id: job}, ends, spent, recorded, usage, now=now)
    aftermath.ended = list(ends)
    aftermath.stopped = [id_ for group in groups for id_ in group.running]
    return LinesEnded(groups=groups, aftermath=aftermath, last=told[-1].id if told else after)


def _count(job: Job, group: LineGroup, state: CallState, code: str) -> None:
    job.estimate_nanousd -= group.estimate_nanousd
    job.estimate_tokens -= group.estimated_tokens
    if state == CallState.FAILED:
        job.calls_failed += group.lines
        job.calls_expired += group.lines if code == "deadline_exceeded" else 0
    else:
        job.calls_cancelled += group.lines
