"""The end of a batch: its files are written, then it is final, its files are readable and its event is recorded, all at
once.

A crash before that leaves files that nobody sees, which retention removes; whoever takes the batch next begins again.
"""

from dataclasses import dataclass
from uuid import UUID

from shared import (
    batch_ends,
    batch_facts,
    batch_output,
    batch_results,
    batches,
    clock,
    ending,
    files,
    ids,
    jobs,
    log,
    new_lines,
    outbox,
)
from shared.batches import Batch
from shared.db import Tx, is_down
from shared.ending import End
from shared.file_writing import FileWriter
from shared.files import KEPT_S, FileGone
from shared.jobs import Job
from shared.messages import Deliver, Ended
from shared.runtime import Runtime
from shared.states import BatchStatus, CallState, FilePurpose, JobStatus

logger = log.get(__name__)


@dataclass(frozen=True, kw_only=True)
class Written:
    """A file that is whole, but not seen yet."""

    id: UUID
    bytes: int


async def end(rt: Runtime, batch: Batch, worker: str) -> None:
    """Make a batch final that is `finalizing` or `cancelling`, once. worker: who holds its lease.

    Nothing happens while its job is open, or when somebody else holds it by now. Raises what the database raises.
    """
    ended = await _ended(rt, batch)
    if ended is None:
        return
    output, errors = _writer(rt, batch, "output"), _writer(rt, batch, "error")
    try:
        made = await _write(rt, batch, ended, output, errors)
        is_final = await _finish(rt, batch, worker, *made)
    except Exception:
        await _discard(output, errors)
        raise
    if not is_final:
        await _discard(output, errors)


async def _ended(rt: Runtime, batch: Batch) -> int | None:
    """How many lines it has, once its job is final. A cancelled one's is ended here if its api process died before."""
    job = await _job(rt, batch)
    if job is not None and not job.is_final and batch.status == BatchStatus.CANCELLING:
        await ending.end_job(rt, batch.id, End(status=JobStatus.CANCELLED), _is_open)
        job = await _job(rt, batch)
    return job.ended if job is not None and job.is_final else None


async def _job(rt: Runtime, batch: Batch) -> Job | None:
    async with rt.db.hot_statement() as tx:
        return await jobs.read(tx, batch.id)


def _is_open(job: Job | None) -> bool:
    return job is not None and not job.is_final


def _writer(rt: Runtime, batch: Batch, what: str) -> FileWriter:
    return FileWriter(
        rt.db,
        file_id=ids.new(),
        team_id=batch.team_id,
        purpose=FilePurpose.BATCH_OUTPUT,
        filename=f"{ids.batch(batch.id)}_{what}.jsonl",
        expires_after_s=KEPT_S if batch.output_expires_after_s is None else batch.output_expires_after_s,
    )


async def _write(
    rt: Runtime, batch: Batch, ended: int, output: FileWriter, errors: FileWriter
) -> tuple[Written, Written | None]:
    """Every line into one file or the other, page by page: no transaction is open while they are written."""
    after = 0
    while after < ended:
        async with rt.db.hot_statement() as tx:
            page = await batch_results.page(tx, batch.id, after)
        async for line, text in batch_output.written(page):
            await (output if line.state == CallState.COMPLETED else errors).write(text)
        after = page[-1].ended_number if page else after + batch_results.PAGE
    whole = Written(id=output.file_id, bytes=await output.flush())
    return whole, Written(id=errors.file_id, bytes=await errors.flush()) if errors.bytes else None


async def _finish(rt: Runtime, batch: Batch, worker: str, output: Written, errors: Written | None) -> bool:
    """The one moment in which the batch ends. False when it is not this worker's any more."""
    async with rt.db.hot_transaction() as tx:
        job = (await jobs.lock(tx, [batch.id]))[batch.id]
        held = (await batches.lock(tx, [batch.id]))[batch.id]
        status = final_status(held, job)
        summary = await batch_results.error_summary(tx, batch.id)
        error_id = None if errors is None else errors.id
        if not await batch_ends.finish(
            tx,
            batch.id,
            worker=worker,
            status=status,
            output_file_id=output.id,
            error_file_id=error_id,
            error_summary=summary,
        ):
            return False
        await _show(tx, output, errors)
        await forget_unstored(rt, tx, batch, *(one.id for one in (output, errors) if one is not None))
        event = batch_facts.batch_ended(
            job,
            held,
            status,
            clock.now(),
            output_file_id=output.id,
            error_file_id=error_id,
            error_summary=summary,
        )
        await jobs.save(tx, [job])
        queues = await outbox.record(tx, [event])
    rt.ring(Deliver(ids=tuple(queues)))
    rt.ring(Ended(ids=(batch.id,)))
    logger.info(
        "batch_ended",
        batch=ids.batch(batch.id),
        team_id=batch.team_id,
        status=status,
        lines=job.calls_total,
        completed=job.calls_completed,
        failed=job.calls_failed - job.calls_expired,
        expired=job.calls_expired,
        cancelled=job.calls_cancelled,
        output_bytes=output.bytes,
    )
    return True


def final_status(batch: Batch, job: Job) -> BatchStatus:
    """What the end of its job makes of a batch. One whose lines all failed has run to its end all the same."""
    if batch.status == BatchStatus.CANCELLING or job.status == JobStatus.CANCELLED:
        return BatchStatus.CANCELLED
    if job.failure_reason == "deadline_exceeded":
        return BatchStatus.EXPIRED
    if job.status == JobStatus.COMPLETED or job.failure_reason == "all_calls_failed":
        return BatchStatus.COMPLETED
    return BatchStatus.CANCELLED


async def _show(tx: Tx, *written: Written | None) -> None:
    """Let the files be read. Raises FileGone when one was swept away: it took longer than an hour."""
    for one in written:
        if one is not None and not await files.finish(tx, one.id, one.bytes):
            raise FileGone("A file of the batch was removed before all of it was written")


async def forget_unstored(rt: Runtime, tx: Tx, batch: Batch, *written: UUID) -> None:
    """Where texts are not to be stored, the files that we made of them expire an hour after the end of the batch.

    written: the files of its lines; where the client said how long they are kept, they are. tx: its batch is locked.
    """
    at = await new_lines.erase_at(tx, batch.team_id, store=rt.settings.store_payloads)
    if at is not None:
        made = written if batch.output_expires_after_s is None else ()
        await files.forget(tx, [batch.input_file_id, *made], at=at)


async def _discard(*writers: FileWriter) -> None:
    """Take what was written out of the way; what a fault leaves, retention finds after an hour."""
    try:
        for writer in writers:
            await writer.discard()
    except Exception as error:
        if not is_down(error):
            raise
        logger.info("batch_files_left", files=[ids.file(w.file_id) for w in writers], error=type(error).__name__)
