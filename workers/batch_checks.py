"""Checking a batch: its whole file is read once, and its lines are accepted together or not at all.

The lines are copied in by one long transaction while they are checked. At the first fault it is rolled back, and the
rest is only checked. In the end job, batch, budgets and account are locked, in this order and for milliseconds. Its key
is read again then: on other terms than it was checked with the batch is checked anew.
"""

from collections.abc import Sequence
from uuid import UUID

from shared import (
    batch_bounds,
    batch_facts,
    batch_retries,
    batch_verdicts,
    batches,
    charging,
    clock,
    closing,
    facts,
    files,
    gates,
    ids,
    jobs,
    keys,
    log,
    new_lines,
    outbox,
    planner_statistics,
)
from shared.batch_verdicts import Sums
from shared.batches import MOST_INPUT_BYTES, Batch
from shared.charging import Terms
from shared.db import Tx, is_down
from shared.ending import ring
from shared.errors import BudgetExceeded, InsufficientCredits, TooManyRequests
from shared.files import FileGone
from shared.gates import Gates
from shared.jobs import Job
from shared.keys import Key
from shared.line_checks import Fault
from shared.messages import Deliver, Ended
from shared.new_lines import OfBatch
from shared.runtime import Runtime
from shared.states import BatchStatus, Endpoint, JobStatus
from shared.usage_sums import UsageSums
from workers.batch_endings import forget_unstored
from workers.batch_reading import Reading

logger = log.get(__name__)

LIMIT_S = 900
"""The largest file takes twenty seconds of CPU, of which a niced unit beside much live work gets a twentieth."""
MANY_LINES = 2_000
"""So many make plans bad that were good while next to nothing waited. For fewer the timer looks soon enough."""

NO_LINES = Fault("empty_file", "The input file has no lines", "input_file_id")
NONE_LEFT = Fault("empty_file", "None of the lines is left to be run again", "input_file_id")
FILE_GONE = Fault("invalid_request", "The input file was deleted or has expired", "input_file_id")
TOO_LARGE = Fault("invalid_request", f"The input file is over {MOST_INPUT_BYTES >> 20} MB", "input_file_id")
OUR_FAULT = Fault("internal_error", "The batch could not be checked: internal error")


class _Refused(Exception):
    """The transaction is to be rolled back: lines are not in order, or as a whole they may not run (`fault`)."""

    def __init__(self, fault: Fault | None = None) -> None:
        super().__init__()
        self.fault = fault


class Overrun(TimeoutError):
    """The check of a batch took longer than LIMIT_S."""


class _Left(Exception):
    """It was cancelled, or somebody else checks it: what is written here is rolled back and nothing is said."""


class _Outdated(Exception):
    """Its key's terms or budgets changed while it was checked: what is written is rolled back, and repeated."""


async def check(rt: Runtime, batch: Batch, worker: str) -> None:
    """Accept a leased batch, or refuse it, and tell whoever waits. What was cancelled or lost meanwhile is left.

    A dry run gets its verdict only. Raises what the database does in trouble; then nothing is written.
    """
    reading = await _open(rt, batch)
    if isinstance(reading, Fault):
        await _refuse(rt, batch, worker, Sums(), [reading])
        return
    try:
        judge = _judge_dry_run if batch.dry_run else _accept
        faults = await judge(rt, batch, worker, reading)
    except FileGone:
        faults = [FILE_GONE]
    except _Outdated:
        await check(rt, batch, worker)
        return
    except _Left:
        return
    if faults is not None:
        await _refuse(rt, batch, worker, reading.sums, faults)


async def give_up(rt: Runtime, batch: Batch, worker: str) -> None:
    """Refuse a batch at which the check itself fails."""
    await _refuse(rt, batch, worker, Sums(), [OUR_FAULT])


async def _open(rt: Runtime, batch: Batch) -> Reading | Fault:
    """The pass over the file, or why there can be none."""
    only = None
    async with rt.db.hot_statement() as tx:
        key = await _permitted(tx, batch)
        # Held since the batch was made, and so whole even where it has expired.
        size = await files.size(tx, batch.input_file_id)
        if batch.retry_of is not None:
            statuses, codes = batch.retry_statuses, batch.retry_codes
            only = frozenset(await batch_retries.positions(tx, batch.retry_of, statuses=statuses, codes=codes))
    if isinstance(key, Fault):
        return key
    if size is None:
        return FILE_GONE
    return TOO_LARGE if size > MOST_INPUT_BYTES else Reading(rt, batch, key, only=only)


async def _permitted(tx: Tx, batch: Batch) -> Key | Fault:
    """The batch's key as it is now, or why nothing of it is accepted any more.

    What was asked before a pause is accepted, and runs after it.
    """
    key, now = await keys.read(tx, batch.key_id), clock.now()
    if key is None:
        return Fault("unauthorized", "The API key of this batch is no longer valid")
    if key.blocked:
        return Fault("key_blocked", "API key is blocked")
    if key.expires_at is not None and key.expires_at <= now:
        return Fault("expired_key", "API key has expired")
    if "suspended" in (key.team_status, key.organization_status):
        return Fault("forbidden", "Team access is suspended. Please contact support.")
    return key


async def _judge_dry_run(rt: Runtime, batch: Batch, worker: str, reading: Reading) -> list[Fault]:
    """What is wrong, with nothing written: the gates are asked, and let go as they were."""
    await _read_on(rt, batch, worker, reading)
    job = Job(
        id=batch.id,
        team_id=batch.team_id,
        organization_id=reading.key.organization_id,
        job_type="batch",
        is_batch=True,
        created_at=batch.created_at,
    )
    _count(job, reading)
    found = _wrong(batch, reading)
    if not found:
        async with rt.db.hot_transaction() as tx:
            try:
                await _set_aside(rt, tx, job, reading)
            except _Refused as refused:
                found = [refused.fault] if refused.fault else []
    return found


async def _accept(rt: Runtime, batch: Batch, worker: str, reading: Reading) -> list[Fault] | None:
    """Accept it. Returns what is wrong instead; None when it runs. Raises _Left."""
    began = clock.monotonic()
    try:
        queues = await _write_lines(rt, batch, worker, reading)
    except TimeoutError as error:
        raise Overrun if clock.monotonic() - began >= LIMIT_S else error from None
    except _Refused as refused:
        if refused.fault is not None:
            return [refused.fault]
        await _read_on(rt, batch, worker, reading)
        return _wrong(batch, reading)
    logger.info("batch_accepted", batch=ids.batch(batch.id), team_id=batch.team_id, lines=reading.sums.lines)
    rt.ring(Deliver(ids=tuple(queues)))
    rt.ring(Ended(ids=(batch.id,)))
    await _renew_statistics(rt, reading.sums.lines)
    return None


async def _renew_statistics(rt: Runtime, lines: int) -> None:
    """Let the planner know of so many new lines; they are accepted, whether or not that succeeds."""
    if lines < MANY_LINES:
        return
    try:
        await planner_statistics.renew(rt.db, new_lines.TABLES)
    except Exception as error:
        if not is_down(error):
            raise
        logger.warning("statistics_not_renewed", error=type(error).__name__)


async def _write_lines(rt: Runtime, batch: Batch, worker: str, reading: Reading) -> list[UUID]:
    """Write the lines while they are read, then let them run, or nothing at all. Returns queues, to be rung."""
    async with rt.db.long_transaction(LIMIT_S) as tx:
        job = await jobs.read(tx, batch.id)
        if job is None or job.is_final:
            raise _Left
        lines = OfBatch(
            job_id=batch.id,
            priority=job.priority,
            endpoint=Endpoint(batch.endpoint),
            deadline_at=batch.expires_at,
            erase_at=await new_lines.erase_at(tx, batch.team_id, store=rt.settings.store_payloads),
        )
        while (group := await reading.group()) is not None:
            if reading.faults:
                raise _Refused
            # Also what keeps the transaction from standing idle for long, where the file has nothing to copy.
            if not await batches.is_checked_by(tx, batch.id, worker=worker):
                raise _Left
            await new_lines.copy(tx, lines, group)
        if reading.faults or not reading.sums.lines:
            raise _Refused
        return await _start(rt, tx, batch, worker, reading)


async def _read_on(rt: Runtime, batch: Batch, worker: str, reading: Reading) -> None:
    """Read the file to its end and write nothing. Raises _Left."""
    while await reading.group() is not None:
        async with rt.db.hot_statement() as tx:
            if not await batches.is_checked_by(tx, batch.id, worker=worker):
                raise _Left


async def _start(rt: Runtime, tx: Tx, batch: Batch, worker: str, reading: Reading) -> list[UUID]:
    """The last step of the transaction: the lines are there, the job holds what they need, and it begins.

    Raises _Left, _Refused, _Outdated.
    """
    now = clock.now()
    locked = await jobs.lock(tx, [batch.id])
    job = locked.get(batch.id)
    if job is None or job.is_final:
        raise _Left
    key = await _permitted(tx, batch)
    if isinstance(key, Fault):
        raise _Refused(key)
    if _terms(key) != _terms(reading.key):
        raise _Outdated
    _count(job, reading)
    if not await batch_verdicts.accept(tx, batch.id, reading.sums, worker=worker):
        raise _Left
    passing = await _set_aside(rt, tx, job, reading)
    job.status, job.started_at = JobStatus.IN_PROGRESS, now
    recorded = [facts.job_started(job, now), *await passing.write(tx, locked, now=now)]
    await jobs.save(tx, [job])
    return await outbox.record(tx, recorded)


def _terms(key: Key) -> tuple[Terms, list[UUID]]:
    """What was reckoned with when the lines were sized, and is written on them."""
    return charging.terms_of(key), key.budget_ids


def _count(job: Job, reading: Reading) -> None:
    """The lines are the job's, on its team's terms."""
    sums = reading.sums
    charging.agree(job, charging.terms_of(reading.key))
    job.calls_total = sums.lines
    job.estimate_nanousd, job.estimate_tokens = sums.nanousd, sums.tokens
    sums.credits = charging.should_hold(job)


async def _set_aside(rt: Runtime, tx: Tx, job: Job, reading: Reading) -> Gates:
    """Budgets and account, locked last, with what the lines need set aside in memory. Raises _Refused.

    The account's lock is also what lets only one batch of a team count its lines at a time.
    """
    budget_ids = reading.key.budget_ids if reading.sums.nanousd else []
    passing = await gates.lock(tx, limited_keys=[], budget_ids=budget_ids, team_ids=[job.team_id])
    try:
        passing.take_lines(job, budget_ids, reading.sums.nanousd)
        underway = await batch_bounds.read(tx, job.team_id)
        underway.check_lines(reading.sums.lines, most_lines=rt.settings.team_batch_lines)
    except (InsufficientCredits, TooManyRequests) as error:
        raise _Refused(Fault(error.code, str(error.detail))) from None
    except BudgetExceeded as error:
        code = error.code_in_flight if error.in_flight else error.code
        raise _Refused(Fault(code, str(error.detail), owner=error.owner)) from None
    return passing


def _wrong(batch: Batch, reading: Reading) -> list[Fault]:
    """What is wrong with the lines, once all are read."""
    if reading.faults or reading.sums.lines:
        return reading.faults
    return [NO_LINES if batch.retry_of is None else NONE_LEFT]


async def _refuse(rt: Runtime, batch: Batch, worker: str, sums: Sums, faults: Sequence[Fault]) -> None:
    """End it before it began; a dry run so too when nothing is wrong, but nobody is told of that."""
    errors = [fault.stored() for fault in faults]
    if batch.dry_run:
        async with rt.db.hot_statement() as tx:
            await batch_verdicts.refuse(tx, batch.id, sums, errors, worker=worker)
        rt.ring(Ended(ids=(batch.id,)))
        return
    now = clock.now()
    async with rt.db.hot_transaction() as tx:
        locked = await jobs.lock(tx, [batch.id])
        job = locked.get(batch.id)
        if job is None or job.is_final:
            return
        if not await batch_verdicts.refuse(tx, batch.id, sums, errors, worker=worker):
            return
        await forget_unstored(rt, tx, batch)
        ending = closing.Ending(JobStatus.FAILED, error=_sentence(faults))
        aftermath = await closing.end_jobs(tx, locked, {job.id: ending}, [], [], UsageSums(), now=now)
        # The batch's own event is the last of its job, as at every other end: streams of the job end with it.
        summary = batch_facts.refusals(errors)
        told = batch_facts.batch_ended(job, batch, BatchStatus.FAILED, now, error_summary=summary)
        await jobs.save(tx, [job])
        aftermath.delivery_queues.extend(await outbox.record(tx, [told]))
    logger.info("batch_refused", batch=ids.batch(batch.id), team_id=batch.team_id, code=errors[0]["code"])
    ring(rt, aftermath)
    rt.ring(Ended(ids=(batch.id,)))


def _sentence(faults: Sequence[Fault]) -> str:
    first, others = faults[0], len(faults) - 1
    where = "" if first.line is None else f"line {first.line}: "
    return f"The batch was refused: {where}{first.message}" + (f" ({others} more)" if others else "")
