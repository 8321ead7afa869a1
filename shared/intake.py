"""Accepting work: holds, jobs, calls and events of a group in one transaction; the bells ring after it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from shared import calls, clock, events, facts, idempotency, jobs, ledger, waiting_calls, webhooks
from shared.calls import NewCall
from shared.db import Tx
from shared.errors import Conflict, Forbidden, InsufficientCredits, Invalid, NotFound, WaybillError
from shared.events import Event
from shared.idempotency import Claim, Repeated
from shared.jobs import Job
from shared.messages import Deliver, RunCalls
from shared.runtime import Runtime
from shared.states import JobStatus

RUNG_DIRECTLY = 64
"""A team's first unfinished calls are rung at once; the rest wait for the dispatcher: no team fills the queue."""

MAX_METADATA_BYTES = 10_240
JOB_BASED_HOLD = 1


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A new job, or calls for a job, or both. Accepted whole or refused whole."""

    job_id: UUID
    team_id: str
    new_job: Job | None = None
    deadline_s: float | None = None
    calls: Sequence[NewCall] = ()
    budget_mode: str = "job_based"
    charge_failed_calls: bool = False
    claim: Claim | None = None


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """The job as it is now, and its new calls."""

    job: Job
    calls: Sequence[NewCall]


@dataclass(kw_only=True)
class _Writing:
    """What one group writes."""

    recorded: list[Event] = field(default_factory=list)
    new_jobs: list[tuple[Job, float | None]] = field(default_factory=list)
    changed: dict[UUID, Job] = field(default_factory=dict)
    new_calls: list[NewCall] = field(default_factory=list)


async def accept(rt: Runtime, group: Sequence[Submission]) -> list[Accepted | Exception]:
    """Accept a group of submissions; one that is refused leaves nothing behind and refuses no other.

    Refusals: Repeated (idempotency key), NotFound, Forbidden, Conflict (job), Invalid (metadata), InsufficientCredits.
    """
    now = clock.now()
    async with rt.db.transaction() as tx:
        refused = await _repeated(tx, group)
        known = await jobs.lock(tx, [s.job_id for s in group if s.new_job is None])
        refused |= {
            n: error
            for n, s in enumerate(group)
            if n not in refused and (error := _refusal(s, known.get(s.job_id))) is not None
        }
        wanted = _holds([s for n, s in enumerate(group) if n not in refused], known)
        granted = await ledger.hold(tx, wanted)
        without = {hold.job_id for hold in wanted} - granted
        refused |= {n: InsufficientCredits() for n, s in enumerate(group) if n not in refused and s.job_id in without}
        await idempotency.forget(tx, _given_up(group, refused))
        writing = _Writing()
        results: list[Accepted | Exception] = [
            refused[n] if n in refused else _take(s, known, writing, held=s.job_id in granted, now=now)
            for n, s in enumerate(group)
        ]
        await jobs.create(tx, writing.new_jobs)
        await jobs.save(tx, writing.changed.values())
        rung = await _rung_directly(tx, writing.new_calls)
        await calls.create(tx, writing.new_calls, rung=set(rung))
        await events.record(tx, writing.recorded)
        deliveries = await webhooks.fan_out(tx, [event.id for event in writing.recorded])
    rt.ring(RunCalls(ids=tuple(rung)))
    rt.ring(Deliver(ids=tuple(deliveries)))
    return results


async def _repeated(tx: Tx, group: Sequence[Submission]) -> dict[int, Exception]:
    """Those whose idempotency key somebody else took first, also within this group."""
    left = await idempotency.claim(tx, [s.claim for s in group if s.claim is not None])
    refused: dict[int, Exception] = {}
    for n, s in enumerate(group):
        if s.claim is not None:
            if s.claim.scope in left:
                left.remove(s.claim.scope)
            else:
                refused[n] = Repeated()
    return refused


def _given_up(group: Sequence[Submission], refused: Mapping[int, Exception]) -> list[bytes]:
    return [
        s.claim.scope
        for n, s in enumerate(group)
        if s.claim is not None and n in refused and not isinstance(refused[n], Repeated)
    ]


def merged_metadata(old: dict[str, Any], new: dict[str, Any], *, field: str = "metadata") -> dict[str, Any]:
    """A shallow merge. Raises Invalid at this body field when the result is over 10,240 bytes of compact JSON."""
    merged = {**old, **new}
    if len(orjson.dumps(merged)) > MAX_METADATA_BYTES:
        raise Invalid.at(
            ["body", field],
            f"metadata exceeds {MAX_METADATA_BYTES} bytes",
            "value_error.metadata_too_large",
        )
    return merged


def check_open(job: Job | None, team_id: str) -> Job:
    """The job, when calls may be added to it. Raises NotFound, Forbidden, Conflict."""
    if job is None:
        raise NotFound("Job not found")
    if job.team_id != team_id:
        raise Forbidden("Job does not belong to your team")
    if job.is_final:
        raise Conflict(f"Job is already {job.status}")
    return job


def _refusal(submission: Submission, job: Job | None) -> WaybillError | None:
    try:
        metadata = (submission.new_job or check_open(job, submission.team_id)).metadata
        for call in submission.calls:
            metadata = merged_metadata(metadata, call.call_metadata or {}, field="call_metadata")
    except WaybillError as error:
        return error
    return None


def _holds(group: Sequence[Submission], known: dict[UUID, Job]) -> list[ledger.Hold]:
    """One credit for every job whose first call this is."""
    wanted = {
        s.job_id: ledger.Hold(job_id=s.job_id, team_id=s.team_id, credits=JOB_BASED_HOLD)
        for s in group
        if s.calls and (s.new_job is not None or known[s.job_id].calls_total == 0)
    }
    return list(wanted.values())


def _take(s: Submission, known: dict[UUID, Job], writing: _Writing, *, held: bool, now: datetime) -> Accepted:
    if s.new_job is not None:
        # A copy: a group that fails is tried again one by one, from what was submitted.
        job = known[s.job_id] = replace(s.new_job)
        writing.new_jobs.append((job, s.deadline_s))
        job.calls_total = len(s.calls)
        writing.recorded.append(facts.job_created(job, now))
    else:
        job = known[s.job_id]
        writing.changed[job.id] = job
        job.calls_total += len(s.calls)
    for call in s.calls:
        job.metadata = merged_metadata(job.metadata, call.call_metadata or {})
    if s.calls and job.started_at is None:
        job.status, job.started_at = JobStatus.IN_PROGRESS, now
        job.budget_mode, job.charge_failed_calls = s.budget_mode, s.charge_failed_calls
        job.credits_held = JOB_BASED_HOLD if held else 0
        writing.recorded.append(facts.job_started(job, now))
    writing.new_calls.extend(s.calls)
    return Accepted(job=job, calls=s.calls)


async def _rung_directly(tx: Tx, new: Sequence[NewCall]) -> list[UUID]:
    if not new:
        return []
    counts = await waiting_calls.unfinished_of_teams(tx, {call.team_id for call in new}, most=RUNG_DIRECTLY)
    rung = []
    for call in new:
        if counts[call.team_id] < RUNG_DIRECTLY:
            rung.append(call.id)
        counts[call.team_id] += 1
    return rung
