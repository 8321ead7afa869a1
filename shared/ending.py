"""Ending a job from outside: completed, failed or cancelled, its unfinished calls with it, in bounded transactions."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from shared import audit, calls, clock, closing, idempotency, intake, jobs, limits
from shared.audit import Actor
from shared.calls import Call
from shared.closing import Aftermath
from shared.db import Tx
from shared.idempotency import Claim
from shared.jobs import Job
from shared.messages import Stop
from shared.runtime import Runtime
from shared.states import JobStatus

STOP_S = 2.0
"""How long a worker may take to end a stream that is cancelled; after that it is ended without it."""
LOOK_S = 0.02
STEP = 500
"""Calls ended in one transaction: a job of many thousands must not hold its locks, or the event loop, for seconds."""


@dataclass(frozen=True, kw_only=True)
class End:
    """How a job is to end. code: what its unfinished calls end with (shared/failures.py). by: the admin who asked."""

    status: JobStatus
    reason: str | None = None
    error: str | None = None
    code: str = "cancelled"
    metadata: dict[str, Any] | None = None
    claim: Claim | None = None
    by: Actor | None = None


async def end_job(rt: Runtime, job_id: UUID, end: End, check: Callable[[Job | None], bool]) -> None:
    """End an open job, then ring.

    check: sees the locked job before each step; it raises to refuse, and returns False to leave the job as it is.
    """
    held_open = await _stop_job_streams(rt, job_id, end, check) if _may_cut(end) else False
    first = True
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
            ended = await closing.cancel_calls(tx, locked, code=end.code, limit=STEP)
            last = len(ended) == job.unfinished
            if last:
                job.metadata = merged
                await _claim(tx, end)
                if held_open:
                    await jobs.set_auto_complete(tx, job_id, value=True)
            finishing = {job_id: (end.status, end.reason, end.error)} if last else {}
            aftermath = await closing.end_calls(tx, locked, ended, now=clock.now(), finishing=finishing)
        aftermath.stopped.extend(call.id for call in ended)
        ring(rt, aftermath)
        await free_tokens(rt, ended)
        if last:
            return
        first = False


async def stop_streams(rt: Runtime, job_id: UUID, call_id: UUID | None = None) -> bool:
    """Let their workers end the calls that are delivering, so that what was said until then is counted and paid for.

    Of a job, or one call of it. Returns whether there were any; one whose worker does not answer is left as it is.
    """
    until, rung = clock.monotonic() + STOP_S, False
    while True:
        async with rt.db.hot_statement() as tx:
            delivering = await calls.delivering(tx, job_id, call_id)
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
    """The same before a job is ended. Returns whether the job was kept from ending with the last of them."""
    async with rt.db.hot_statement() as tx:
        if not await calls.delivering(tx, job_id, limit=1):
            return False
    async with rt.db.hot_transaction() as tx:
        locked = await jobs.lock(tx, [job_id])
        if not check(locked.get(job_id)):
            return False
        # What the end would be refused for stops no stream.
        intake.merged_metadata(locked[job_id].metadata, end.metadata or {})
        held_open = locked[job_id].auto_complete
        if held_open:
            await jobs.set_auto_complete(tx, job_id, value=False)
    await stop_streams(rt, job_id)
    return held_open


def ring(rt: Runtime, aftermath: Aftermath) -> None:
    """Ring the bells of a committed transaction."""
    for message in aftermath.messages():
        rt.ring(message)


async def free_tokens(rt: Runtime, ended: Iterable[Call]) -> None:
    """Give back what token limits reserved for calls that ended before they ran."""
    unused: dict[tuple[str, UUID | None], list[str]] = {}
    for call in ended:
        if not call.attempt:
            unused.setdefault((call.team_id, call.key_id), []).append(str(call.id))
    for (team_id, key_id), ids in unused.items():
        await limits.free_tokens(rt.redis, team_id=team_id, key_id=key_id, ids=ids)


async def _claim(tx: Tx, end: End) -> None:
    """The idempotency key of the request that ends the job."""
    if end.claim is not None and not await idempotency.claim(tx, [end.claim]):
        raise idempotency.Repeated
