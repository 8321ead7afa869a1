"""Ending a job from outside: completed, failed or cancelled, its unfinished calls with it, in bounded transactions.

Calls end row by row, each with its event; lines of a batch by the thousand as sums, with events where they are heard.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from shared import (
    audit,
    clock,
    closing,
    idempotency,
    intake,
    jobs,
    limits,
    line_ends,
    unfinished_calls,
)
from shared.audit import Admin
from shared.calls import Call
from shared.closing import Aftermath, Ending
from shared.db import Tx
from shared.idempotency import Claim
from shared.jobs import Job
from shared.line_ends import NIL
from shared.messages import Deliver, Stop
from shared.runtime import Runtime
from shared.states import JobStatus
from shared.unfinished_calls import LineGroup

HELD_OPEN_S = 30.0
"""Longer than what follows may take: the streams' end, and the job's."""
STOP_S = 2.0
"""How long a worker may take to end a stream that is cancelled; after that it is ended without it."""
LOOK_S = 0.02
STEP = 500
"""Calls ended in one transaction: a job of many thousands must not hold its locks, or the event loop, for seconds."""
LINES_STEP, HEARD_STEP = 5_000, 2_000
"""The same for lines that end as sums, and for those that make events: a tenth of a second."""


Unused = Mapping[tuple[str, UUID | None], list[str]]
"""Calls, by team and key, for which limits set tokens aside in vain."""


@dataclass(frozen=True, kw_only=True)
class End:
    """How a job is to end. code: what its unfinished calls end with (shared/failures.py). by: the admin who asked."""

    status: JobStatus
    reason: str | None = None
    error: str | None = None
    code: str = "cancelled"
    metadata: dict[str, Any] | None = None
    claim: Claim | None = None
    by: Admin | None = None


async def end_job(
    rt: Runtime, job_id: UUID, end: End, check: Callable[[Job | None], bool], *, lines: int = LINES_STEP
) -> None:
    """End an open job, then ring.

    check: sees the locked job before each step; it raises to refuse, and returns False to leave the job as it is.
    lines: how many of them end in one transaction.
    """
    held_open = await _stop_job_streams(rt, job_id, end, check) if _may_cut(end) else False
    queues: dict[UUID, None] = {}
    try:
        await _end_in_steps(rt, job_id, end, check, lines=lines, held_open=held_open, queues=queues)
    finally:
        # What is heard of many lines is sent once all have ended: sending takes the machine from ending them.
        rt.ring(Deliver(ids=tuple(queues)))


async def _end_in_steps(
    rt: Runtime,
    job_id: UUID,
    end: End,
    check: Callable[[Job | None], bool],
    *,
    lines: int,
    held_open: bool,
    queues: dict[UUID, None],
) -> None:
    """queues: takes those that were given deliveries."""
    first, after = True, NIL
    while True:
        async with rt.db.hot_transaction() as tx:
            locked = await jobs.lock(tx, [job_id])
            if not check(locked.get(job_id)):
                return
            job = locked[job_id]
            # Before anything ends: what is refused leaves all of it as it was.
            merged = intake.merged_metadata(job.metadata, end.metadata or {})
            if first:
                await audit.record(tx, end.by, f"{end.status}_job", "job", str(job_id))
            step = await _step(tx, job, lines, after)
            if step.is_last:
                job.metadata = merged
                await _claim(tx, end)
                if held_open:
                    await jobs.let_go(tx, job_id)
            aftermath, unused, after = await (_end_lines if job.is_batch else _end_calls)(tx, job, end, step)
        queues.update(dict.fromkeys(aftermath.delivery_queues))
        aftermath.delivery_queues = []
        ring(rt, aftermath)
        await _free(rt, unused)
        if step.is_last:
            return
        first = False


@dataclass(frozen=True, kw_only=True)
class _Step:
    """What one transaction ends: up to `limit` calls, or lines behind `after`, the job with the last of them."""

    limit: int
    heard: bool
    after: UUID
    is_last: bool


async def _step(tx: Tx, job: Job, lines: int, after: UUID) -> _Step:
    heard = job.is_batch and await line_ends.are_heard(tx, job.team_id)
    limit = STEP if not job.is_batch else min(lines, HEARD_STEP) if heard else lines
    return _Step(limit=limit, heard=heard, after=after, is_last=job.unfinished <= limit)


async def _end_calls(tx: Tx, job: Job, end: End, step: _Step) -> tuple[Aftermath, Unused, UUID]:
    """End a stepful of the locked job's calls, the job with the last of them."""
    locked = {job.id: job}
    ended = await closing.cancel_calls(tx, locked, code=end.code, limit=step.limit)
    finishing = {job.id: _ending(end)} if step.is_last else {}
    aftermath = await closing.end_calls(tx, locked, ended, now=clock.now(), finishing=finishing)
    aftermath.stopped = [call.id for call in ended]
    return aftermath, _of_calls(ended), step.after


async def _end_lines(tx: Tx, job: Job, end: End, step: _Step) -> tuple[Aftermath, Unused, UUID]:
    """The same of a batch's lines; the third is where the next step may begin."""
    finish = _ending(end) if step.is_last else None
    ended = await line_ends.end_lines(
        tx, job, code=end.code, limit=step.limit, finish=finish, now=clock.now(), heard=step.heard, after=step.after
    )
    return ended.aftermath, _of_lines(job.team_id, ended.groups), ended.last


def _ending(end: End) -> Ending:
    return Ending(end.status, end.reason, end.error)


async def stop_streams(rt: Runtime, job_id: UUID, call_id: UUID | None = None) -> bool:
    """Let their workers end the calls that are delivering, so that what was said until then is counted and paid for.

    Of a job, or one call of it. Returns whether there were any; one whose worker does not answer is left as it is.
    """
    until, rung = clock.monotonic() + STOP_S, False
    while True:
        async with rt.db.hot_statement() as tx:
            delivering = await unfinished_calls.delivering(tx, job_id, call_id)
        if not delivering or clock.monotonic() > until:
            return rung
        if not rung:
            rt.ring(Stop(ids=tuple(delivering)))
            rung = True
        await asyncio.sleep(LOOK_S)


def _may_cut(end: End) -> bool:
    """Whether calls may run that this ends: a job is completed without any, and a deadline is kept by their workers."""
    return end.status != JobStatus.COMPLETED and end.code == "cancelled"


async def _stop_job_streams(rt: Runtime, job_id: UUID, end: End, check: Callable[[Job | None], bool]) -> bool:
    """Stop a job's streams before it is ended.

    Returns whether it is held open now, so that the end of its last stream does not end it.
    """
    async with rt.db.hot_statement() as tx:
        if not await unfinished_calls.delivering(tx, job_id, limit=1):
            return False
    async with rt.db.hot_transaction() as tx:
        locked = await jobs.lock(tx, [job_id])
        if not check(locked.get(job_id)):
            return False
        # What the end would be refused for stops no stream.
        intake.merged_metadata(locked[job_id].metadata, end.metadata or {})
        held_open = locked[job_id].auto_complete
        if held_open:
            await jobs.hold_open(tx, job_id, HELD_OPEN_S)
    await stop_streams(rt, job_id)
    return held_open


def ring(rt: Runtime, aftermath: Aftermath) -> None:
    """Ring the bells of a committed transaction."""
    for message in aftermath.messages():
        rt.ring(message)


async def free_tokens(rt: Runtime, ended: Iterable[Call]) -> None:
    """Give back what token limits reserved for calls that ended before they ran."""
    await _free(rt, _of_calls(ended))


async def _free(rt: Runtime, unused: Unused) -> None:
    for (team_id, key_id), ids in unused.items():
        await limits.free_tokens(rt.redis, team_id=team_id, key_id=key_id, ids=ids)


def _of_calls(ended: Iterable[Call]) -> Unused:
    return _by_owner((call.team_id, call.key_id, [call.id]) for call in ended if not call.attempt)


def _of_lines(team_id: str, groups: Iterable[LineGroup]) -> Unused:
    """Limits count lines when they are rung."""
    return _by_owner((team_id, group.key_id, group.rung) for group in groups if group.rung)


def _by_owner(found: Iterable[tuple[str, UUID | None, Iterable[UUID]]]) -> Unused:
    unused: dict[tuple[str, UUID | None], list[str]] = {}
    for team_id, key_id, ids in found:
        unused.setdefault((team_id, key_id), []).extend(str(id_) for id_ in ids)
    return unused


async def _claim(tx: Tx, end: End) -> None:
    """The idempotency key of the request that ends the job."""
    if end.claim is not None and not await idempotency.claim(tx, [end.claim]):
        raise idempotency.Repeated
