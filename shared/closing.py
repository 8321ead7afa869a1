"""Ending calls and jobs: result, cost, counters, credits, usage and events in the caller's one transaction.

Locks: in the order of docs/states.md.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from shared import attempt_reports, attempts, batch_ends, calls, facts, jobs, outbox, rollup, settling, unfinished_calls
from shared.attempt_reports import Report
from shared.attempts import Booked
from shared.calls import Call, Late
from shared.db import Tx
from shared.event_types import CALL_DEFAULT
from shared.events import Event
from shared.failures import message
from shared.ids import Fence
from shared.jobs import Job
from shared.messages import Deliver, Ended, Message, Stop, TendBatches
from shared.settling import Spent
from shared.states import FINAL, CallState, JobStatus
from shared.usage_sums import UsageSums


class Ending(NamedTuple):
    """How a job ends. reason: its `failure_reason`. error: its `error_message`; None: what `reason` says by itself."""

    status: JobStatus
    reason: str | None = None
    error: str | None = None


ENDED_BY_CLOCK = {
    "deadline_exceeded": "The job's deadline passed before it had ended",
    "idle_timeout": "The job had no call under way for too long",
}
"""What a job says that failed by the clock."""


@dataclass(kw_only=True)
class Aftermath:
    """What to ring once the transaction is committed, and which attempts turned out to be still in charge.

    tended: batches whose files are to be written now.
    """

    mine: set[Fence] = field(default_factory=set)
    ended: list[UUID] = field(default_factory=list)
    stopped: list[UUID] = field(default_factory=list)
    delivery_queues: list[UUID] = field(default_factory=list)
    tended: list[UUID] = field(default_factory=list)

    def messages(self) -> list[Message]:
        """The bells of this transaction."""
        return [
            Ended(ids=tuple(self.ended)),
            Stop(ids=tuple(self.stopped)),
            Deliver(ids=tuple(self.delivery_queues)),
            TendBatches(ids=tuple(self.tended)),
        ]


async def close_attempts(tx: Tx, reports: Sequence[Report], *, now: datetime) -> Aftermath:
    """Close attempts: the attempt's row always, the call only where its attempt still holds it, then job and money.

    A repeat of the same report changes nothing. `now` stamps the events.
    """
    locked = await jobs.lock(tx, (report.job_id for report in reports))
    rows = {report.fence: attempt_reports.call_row(report, locked[report.job_id]) for report in reports}
    closed = await calls.close(tx, list(rows.values()))
    mine = {(call.id, call.attempt) for call in closed}
    ours = [report for report in reports if report.fence in mine]
    await calls.store_responses(tx, [(r.call_id, r.response) for r in ours if r.response is not None])
    heard = [report for report in reports if report.fence in mine or not report.swept]
    booked = await attempts.close(tx, [attempt_reports.attempt_row(report) for report in heard])
    usage = UsageSums()
    await _book_late(tx, locked, reports, [attempt for attempt in booked if attempt.fence not in mine], usage)
    tried = _tried(closed, booked)
    for attempt in booked:
        if attempt.fence in mine:
            _book(locked[tried[attempt.call_id].job_id], tried[attempt.call_id], attempt, usage)
    aftermath = await end_calls(tx, locked, list(tried.values()), now=now, usage=usage)
    aftermath.mine = mine
    return aftermath


def _tried(closed: Sequence[Call], booked: Sequence[Booked]) -> dict[UUID, Call]:
    """The closed calls, each with the provider of the attempt that closed it."""
    providers = {attempt.fence: attempt.provider for attempt in booked}
    return {call.id: replace(call, provider=providers.get((call.id, call.attempt))) for call in closed}


async def book_abandoned(tx: Tx, reports: Sequence[Report]) -> None:
    """Close attempts whose call went on without them; what they may have cost is booked on call, job and usage."""
    locked = await jobs.lock(tx, (report.job_id for report in reports))
    booked = await attempts.close(tx, [attempt_reports.attempt_row(report) for report in reports])
    usage = UsageSums()
    await _book_late(tx, locked, reports, booked, usage)
    await jobs.save(tx, locked.values())
    await rollup.add(tx, usage)


async def _book_late(
    tx: Tx, locked: Mapping[UUID, Job], reports: Sequence[Report], late: Sequence[Booked], usage: UsageSums
) -> None:
    """What attempts that no longer hold their call may have cost stands on call, job and usage all the same."""
    billed = {report.fence: report.maybe_billed for report in reports}
    costs = [(attempt.call_id, attempt.more, billed[attempt.fence]) for attempt in late]
    of = {call.id: call for call in await calls.add_provider_cost(tx, costs)}
    for attempt in late:
        call = of[attempt.call_id]
        _book(locked[call.job_id], call, attempt, usage)


def _book(job: Job, call: Call | Late, attempt: Booked, usage: UsageSums) -> None:
    job.provider_cost_nanousd += attempt.more
    usage.book(job, call.model, call.key_id, attempt.provider, attempt.more)


async def cancel_calls(
    tx: Tx, locked: Mapping[UUID, Job], *, limit: int, call_ids: Iterable[UUID] | None = None, code: str = "cancelled"
) -> list[Call]:
    """End up to `limit` unfinished calls of locked jobs: cancelled, or failed with another code. Not yet counted."""
    state = CallState.CANCELLED if code == "cancelled" else CallState.FAILED
    ended_before = {id_: job.ended if job.is_batch else None for id_, job in locked.items()}
    return await unfinished_calls.end(
        tx, ended_before, state=state, code=code, message=message(code), limit=limit, call_ids=call_ids
    )


async def end_calls(
    tx: Tx,
    locked: dict[UUID, Job],
    changed: Sequence[Call],
    *,
    now: datetime,
    finishing: Mapping[UUID, Ending] | None = None,
    usage: UsageSums | None = None,
) -> Aftermath:
    """Count calls that ended into their locked jobs, finish the jobs this ends, record the events, fan them out.

    finishing: jobs to finish whatever their calls did. usage: what the caller booked already. The last statement adds
    to lines that many transactions share: nothing should come after it.
    """
    recorded: list[Event] = []
    usage = UsageSums() if usage is None else usage
    final = sorted((call for call in changed if call.state in FINAL), key=lambda call: call.id)
    silent = await _unheard(tx, final)
    for call in final:
        job = locked[call.job_id]
        _count(job, call)
        usage.count_call(job, call)
        if not (call.batched and call.team_id in silent):
            recorded.append(facts.call_ended(job, call, now))
    spent = [
        Spent(budget_ids=call.budget_ids, held_nanousd=call.estimate_nanousd, spent_nanousd=call.client_cost_nanousd)
        for call in final
        if call.budget_ids
    ]
    ends = {**_auto_completed(locked, final), **(finishing or {})}
    aftermath = await end_jobs(tx, locked, ends, spent, recorded, usage, now=now)
    aftermath.ended = [*(call.id for call in final), *ends]
    return aftermath


async def _unheard(tx: Tx, final: Iterable[Call]) -> set[str]:
    """The teams among those of lines that ended to which nobody listens; asked only when there are lines."""
    teams = {call.team_id for call in final if call.batched}
    return teams - await outbox.subscribed(tx, teams, CALL_DEFAULT) if teams else teams


async def end_jobs(
    tx: Tx,
    locked: Mapping[UUID, Job],
    ends: Mapping[UUID, Ending],
    spent: Sequence[Spent],
    recorded: list[Event],
    usage: UsageSums,
    *,
    now: datetime,
) -> Aftermath:
    """Finish jobs whose calls are counted, settle the money of all, and write jobs, events and usage.

    locked: all that changed; ends: those of them that end. spent: of the calls that ended. recorded: events that come
    before those of the jobs.
    """
    for job_id, end in ends.items():
        job = locked[job_id]
        job.status, job.failure_reason, job.completed_at = end.status, end.reason, now
        job.error_message = end.error or ENDED_BY_CLOCK.get(end.reason or "")
    ended = [locked[job_id] for job_id in ends]
    tended = await batch_ends.jobs_ended(tx, {job.id: _was_cancelled(job) for job in ended if job.is_batch})
    warnings = await settling.settle(tx, locked, spent, ended, now=now)
    for job in ended:
        usage.count_job(job)
        recorded.append(facts.job_ended(job, now))
    recorded.extend(warnings)
    await jobs.save(tx, locked.values())
    queues = await outbox.record(tx, recorded)
    await rollup.add(tx, usage)
    return Aftermath(delivery_queues=queues, tended=tended)


async def end_left_behind(tx: Tx, locked: dict[UUID, Job], *, now: datetime) -> Aftermath:
    """End locked batches' jobs whose last line has ended, and move on the batches of those that are final."""
    over = {job.id: _was_cancelled(job) for job in locked.values() if job.is_final}
    tended = await batch_ends.jobs_ended(tx, over)
    ends = {job.id: _batch_end(job) for job in locked.values() if not job.is_final and not job.unfinished}
    aftermath = await end_calls(tx, {id_: locked[id_] for id_ in ends}, [], now=now, finishing=ends)
    aftermath.tended.extend(tended)
    return aftermath


async def end_held_open(tx: Tx, locked: dict[UUID, Job], *, now: datetime) -> Aftermath:
    """Let locked jobs go that somebody held open and then did not end; those whose calls have all ended end now."""
    for job_id in locked:
        await jobs.let_go(tx, job_id)
    ends = {
        job.id: _batch_end(job) if job.is_batch else _job_end(job)
        for job in locked.values()
        if job.auto_complete and not job.is_final and not job.unfinished
    }
    return await end_calls(tx, {id_: locked[id_] for id_ in ends}, [], now=now, finishing=ends)


def _was_cancelled(job: Job) -> bool:
    """Whether a client or an admin ended it: its batch is then on its way to `cancelled`."""
    return job.status == JobStatus.CANCELLED or job.failure_reason == "client"


def _count(job: Job, call: Call) -> None:
    job.estimate_nanousd -= call.estimate_nanousd
    job.estimate_tokens -= call.estimated_tokens
    job.total_tokens += call.total_tokens or 0
    job.prompt_tokens += call.prompt_tokens or 0
    job.completion_tokens += call.completion_tokens or 0
    job.cached_tokens += call.cached_tokens or 0
    job.reasoning_tokens += call.reasoning_tokens or 0
    job.client_cost_nanousd += call.client_cost_nanousd
    if call.state == CallState.COMPLETED:
        job.calls_completed += 1
        job.latency_sum_ms += call.latency_ms or 0
    elif call.state == CallState.FAILED:
        job.calls_failed += 1
        job.calls_expired += call.batched and call.error_code == "deadline_exceeded"
    else:
        job.calls_cancelled += 1


def _auto_completed(locked: Mapping[UUID, Job], final: Sequence[Call]) -> dict[UUID, Ending]:
    ends: dict[UUID, Ending] = {}
    for call in final:
        job = locked[call.job_id]
        if not job.auto_complete or job.is_held_open or job.is_final or job.unfinished:
            continue
        if job.is_batch:
            ends[job.id] = _batch_end(job)
        elif call.error_code == "deadline_exceeded" and call.deadline_at == job.deadline_at:
            ends[job.id] = Ending(JobStatus.FAILED, "deadline_exceeded")
        elif job.id not in ends:
            ends[job.id] = _job_end(job, call)
    return ends


def _job_end(job: Job, last: Call | None = None) -> Ending:
    """How a job ends that completes by itself. last: the call that ended last, where that is known."""
    if job.calls_completed:
        return Ending(JobStatus.COMPLETED)
    told = "" if last is None else f". The last one: {last.error_code}: {last.error_message}"
    return Ending(JobStatus.FAILED, "all_calls_failed", f"No call of the job completed ({_counted(job)}){told}")


def _batch_end(job: Job) -> Ending:
    """How a batch's job ends when all its lines have. Its counts decide: its lines end in any order, even at once."""
    if job.calls_expired:
        return Ending(JobStatus.FAILED, "deadline_exceeded")
    if job.calls_completed:
        return Ending(JobStatus.COMPLETED)
    return Ending(JobStatus.FAILED, "all_calls_failed", f"No line of the batch completed ({_counted(job)})")


def _counted(job: Job) -> str:
    return f"{job.calls_failed} failed, {job.calls_cancelled} cancelled"
