"""Accepting work: holds, jobs, calls and events of a group in one transaction; the bells ring after it.

Locks: in the order of docs/states.md. On the locked rows a group is decided in memory, one submission after the other;
the statements that follow write the outcome.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from shared import charging, clock, facts, gates, idempotency, jobs, new_calls, outbox, team_queue
from shared.charging import JOB_BASED, Terms
from shared.db import Tx
from shared.errors import Conflict, Forbidden, Invalid, NotFound, WaybillError
from shared.events import Event
from shared.gates import Gates
from shared.idempotency import Claim, Repeated
from shared.jobs import Job
from shared.messages import Deliver, RunCalls
from shared.new_calls import NewCall
from shared.runtime import Runtime
from shared.states import JobStatus
from shared.team_queue import Depths, Queues

MAX_METADATA_BYTES = 10_240


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A new job, or calls for a job, or both. Accepted whole or refused whole.

    terms: the team's, for a job whose first calls these are. limited_key: the key that brings the calls, where it has a
    limit of unfinished calls.
    """

    job_id: UUID
    team_id: str
    new_job: Job | None = None
    deadline_s: float | None = None
    calls: Sequence[NewCall] = ()
    terms: Terms = JOB_BASED
    limited_key: UUID | None = None
    claim: Claim | None = None
    max_parallel_calls: int | None = None
    max_queued_calls: int | None = None


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """The job as it is now, and its new calls."""

    job: Job
    calls: Sequence[NewCall]


@dataclass(kw_only=True)
class _Writing:
    """What one group writes."""

    recorded: list[Event] = field(default_factory=list)
    deadlines_s: dict[UUID, float | None] = field(default_factory=dict)
    jobs: dict[UUID, Job] = field(default_factory=dict)
    calls: list[NewCall] = field(default_factory=list)


async def accept(
    rt: Runtime, group: Sequence[Submission], depths: Depths | None = None, *, lock_s: float | None = None
) -> list[Accepted | Exception]:
    """Accept a group of submissions; one that is refused leaves nothing behind and refuses no other.

    lock_s: as for `hot_transaction`.

    Refusals: Repeated (idempotency key), NotFound, Forbidden, Conflict (job), Invalid (metadata), TooManyRequests
    (queue of the team, parallel requests of the key), BudgetExceeded, InsufficientCredits.
    """
    now = clock.now()
    async with rt.db.hot_transaction(lock_s=lock_s) as tx:
        refused = await _repeated(tx, group)
        known = await jobs.lock(tx, [s.job_id for s in group if s.new_job is None])
        left = [s for n, s in enumerate(group) if n not in refused]
        queues = await team_queue.look(tx, left, depths or Depths())
        passing = await _gates(tx, left, known)
        writing = _Writing()
        results = [
            refused[n] if n in refused else _decided(s, known, queues, passing, writing, now)
            for n, s in enumerate(group)
        ]
        await idempotency.forget(tx, _given_up(group, results))
        writing.recorded.extend(await passing.write(tx, writing.jobs, now=now))
        rung = queues.rung(writing.calls)
        delivery_queues = await _write(tx, writing, rung=rung, store_payloads=rt.settings.store_payloads)
    rt.ring(RunCalls(ids=tuple(rung)))
    rt.ring(Deliver(ids=tuple(delivery_queues)))
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


def _given_up(group: Sequence[Submission], results: Sequence[Accepted | Exception]) -> list[bytes]:
    return [
        s.claim.scope
        for s, result in zip(group, results, strict=True)
        if s.claim is not None and isinstance(result, Exception) and not isinstance(result, Repeated)
    ]


async def _gates(tx: Tx, group: Sequence[Submission], known: Mapping[UUID, Job]) -> Gates:
    """Lock only what can refuse: keys with a limit, budgets that apply, accounts of jobs that may need a hold."""
    return await gates.lock(
        tx,
        limited_keys=[s.limited_key for s in group if s.limited_key is not None and s.calls],
        budget_ids=[id_ for s in group for call in s.calls for id_ in call.budget_ids or ()],
        team_ids=[s.team_id for s in group if s.calls and _may_hold(known.get(s.job_id))],
    )


def _may_hold(job: Job | None) -> bool:
    """Whether more calls may need credits; a job_based job sets them aside with its first calls only."""
    return job is None or job.budget_mode != "job_based" or not job.credits_held


def merged_metadata(
    old: dict[str, Any], new: dict[str, Any], *, loc: Sequence[str | int] = ("body", "metadata")
) -> dict[str, Any]:
    """A shallow merge. Raises Invalid at this place when what it makes is over 10,240 bytes of compact JSON."""
    merged = {**old, **new}
    # A batch's may be longer as it is.
    if new and len(orjson.dumps(merged)) > MAX_METADATA_BYTES:
        raise Invalid.at(
            loc,
            f"metadata exceeds {MAX_METADATA_BYTES} bytes",
            "value_error.metadata_too_large",
        )
    return merged


def check_open(job: Job | None, team_id: str) -> Job:
    """The job, when calls may be added to it: one that is open and no batch. Raises NotFound, Forbidden, Conflict."""
    if job is None:
        raise NotFound("Job not found")
    if job.team_id != team_id:
        raise Forbidden("Job does not belong to your team")
    if job.is_final:
        raise Conflict(f"Job is already {job.status}")
    if job.is_batch:
        raise Conflict("Job is a batch: it takes no calls")
    return job


def _decided(
    s: Submission, known: dict[UUID, Job], queues: Queues, passing: Gates, writing: _Writing, now: datetime
) -> Accepted | WaybillError:
    try:
        # A copy: a refusal leaves the job as it was, and a group that fails is tried again one by one.
        job = replace(s.new_job or check_open(known.get(s.job_id), s.team_id))
        for call in s.calls:
            place = ("body",) if s.new_job is None else ("body", "calls", call.position)
            job.metadata = merged_metadata(job.metadata, call.call_metadata or {}, loc=(*place, "call_metadata"))
        starts = bool(s.calls) and job.started_at is None
        if starts:
            charging.agree(job, s.terms)
        new = _on_terms(job, s)
        job.calls_total += len(new)
        job.estimate_nanousd += sum(call.estimate_nanousd for call in new)
        job.estimate_tokens += sum(call.estimated_tokens for call in new)
        queues.check(s.team_id, len(new))
        passing.take(job, new)
        queues.add(s.team_id, len(new))
    except WaybillError as error:
        return error
    if s.new_job is not None:
        writing.deadlines_s[job.id] = s.deadline_s
        writing.recorded.append(facts.job_created(job, now))
    if starts:
        job.status, job.started_at = JobStatus.IN_PROGRESS, now
        writing.recorded.append(facts.job_started(job, now))
    known[job.id] = writing.jobs[job.id] = job
    writing.calls.extend(new)
    return Accepted(job=job, calls=new)


def _on_terms(job: Job, s: Submission) -> Sequence[NewCall]:
    """Its calls, estimated at the markup that the job keeps, where the team has another one by now."""
    kept, now = job.cost_markup_percentage, s.terms.cost_markup_percentage
    if kept is None or kept == now:
        return s.calls
    return [
        replace(call, estimate_nanousd=charging.at_markup(call.estimate_nanousd, kept, sized_at=now))
        for call in s.calls
    ]


async def _write(tx: Tx, writing: _Writing, *, rung: Sequence[UUID], store_payloads: bool) -> list[UUID]:
    """Write jobs, calls and events. rung: the calls that are rung after the commit. Returns queues, to be rung."""
    made = [(job, writing.deadlines_s[id_]) for id_, job in writing.jobs.items() if id_ in writing.deadlines_s]
    await jobs.create(tx, made)
    await jobs.save(tx, [job for id_, job in writing.jobs.items() if id_ not in writing.deadlines_s])
    await new_calls.create(tx, writing.calls, rung=set(rung), store_payloads=store_payloads)
    return await outbox.record(tx, writing.recorded)
