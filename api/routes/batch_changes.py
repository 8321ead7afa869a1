"""What is done with a batch once it is there: it is cancelled, or the lines that did not succeed are run again."""

from typing import Any
from uuid import UUID

from starlette.requests import Request

from api import new_batch
from api.auth import Caller
from api.batch_inputs import uploaded
from api.batch_objects import batch_object, find_batch
from api.desk import Desk
from api.gateway.face import GATEWAY
from api.http import endpoint
from api.new_batch import VERDICT_S, Asked
from api.once import Once
from api.replies import Reply
from api.submission import Sealed
from api.wire.batches import BatchOut, RetryIn, window_s
from shared import batch_retries, batches, callbacks, clock, ids, jobs
from shared.batch_lists import BatchView
from shared.batches import NewBatch
from shared.db import Tx
from shared.ending import End, end_job
from shared.errors import BadRequest, Conflict
from shared.jobs import Job
from shared.messages import TendBatches
from shared.runtime import Runtime
from shared.sealer import CannotOpen
from shared.states import BatchStatus, Endpoint, JobStatus

CANCEL_S = 10.0
"""How long a client waits for its lines to end; a worker ends what is left of them."""
GONE = "The input file of this batch is gone: send the lines as a new batch"


@endpoint("team", answers=BatchOut, face=GATEWAY)
async def cancel_batch(rt: Runtime, caller: Caller, batch_id: str, once: Once) -> dict[str, Any]:
    """Cancel a batch: no other line is started, running ones are stopped, what succeeded is kept and charged.

    It is `cancelling` until its files are written; a batch that is past its last line stays as it is.
    """
    async with rt.db.hot_statement() as tx:
        batch = await find_batch(tx, caller, batch_id)
    if not batch.is_final:
        await _cancel(rt, batch.id)
    async with rt.db.hot_statement() as tx:
        batch = await find_batch(tx, caller, batch_id)
    return await once.store(batch_object(batch))


@endpoint("team", answers=BatchOut, face=GATEWAY)
async def retry_batch(
    rt: Runtime, desk: Desk, caller: Caller, request: Request, batch_id: str, body: RetryIn, once: Once
) -> Reply:
    """Run lines of a final batch again: a new batch of those that failed or expired, from the same file.

    Lines that succeeded, here or in another retry, are never run again; while one retry runs there is no other. The
    new batch has the endpoint, window, metadata and callback of the first.
    """
    waits = new_batch.within(rt, request, VERDICT_S)
    if once.job_id is not None:
        return await new_batch.told(rt, desk, caller, once.job_id, waits, once)
    async with rt.db.hot_statement() as tx:
        parent = await find_batch(tx, caller, batch_id)
        job = await jobs.read(tx, parent.id)
    _check_retried(parent)
    key, id_ = caller.team, ids.new()
    codes = [batch_retries.CODES_IN_FILES.get(code, code) for code in body.error_codes or ()]
    new = NewBatch(
        id=id_,
        team_id=key.team_id,
        key_id=key.id,
        endpoint=Endpoint(parent.endpoint),
        input_file_id=parent.input_file_id,
        completion_window=parent.completion_window,
        window_s=window_s(parent.completion_window),
        retry_of=parent.id,
        retry_statuses=body.statuses,
        retry_codes=codes,
        output_expires_after_s=parent.output_expires_after_s,
    )

    async def check(tx: Tx) -> None:
        running = await batch_retries.lock_family(tx, parent.id)
        if running is not None:
            raise Conflict(f"A retry of this batch is not final yet: {ids.batch(running)}")
        if not await batch_retries.any_left(tx, parent.id, statuses=body.statuses, codes=codes):
            raise BadRequest("No line of this batch is left to be retried with these statuses and error codes")

    asked = Asked(
        new=new,
        lines=uploaded(parent.input_file_id, key.team_id, gone=GONE),
        metadata=parent.metadata,
        callback=_callback(rt, job, id_),
        check=check,
    )
    made = await new_batch.make(rt, desk, request, key, asked, once)
    return await new_batch.told(rt, desk, caller, id_, waits, once, made)


async def _cancel(rt: Runtime, id_: UUID) -> None:
    """Say first that it is being cancelled: a worker does the rest where this process cannot."""
    async with rt.db.hot_transaction() as tx:
        await jobs.lock(tx, [id_])
        await batches.ask_to_cancel(tx, id_)
        batch = (await batches.lock(tx, [id_])).get(id_)
    if batch is None or batch.status != BatchStatus.CANCELLING:
        return

    until = clock.monotonic() + CANCEL_S

    def is_open(job: Job | None) -> bool:
        return job is not None and not job.is_final and clock.monotonic() < until

    await end_job(rt, id_, End(status=JobStatus.CANCELLED), is_open)
    rt.ring(TendBatches(ids=(id_,)))


def _check_retried(parent: BatchView) -> None:
    """Raises Conflict, BadRequest."""
    if not parent.is_final:
        raise Conflict(f"Batch is {parent.status}: it can be retried when it is final")
    if not parent.total:
        raise BadRequest("No line of this batch was ever accepted: send it anew")


def _callback(rt: Runtime, job: Job | None, id_: UUID) -> Sealed:
    """The first batch's callback, its secret sealed anew for this one."""
    if job is None or job.callback_url is None:
        return Sealed()
    secret = job.callback_secret_sealed
    if secret is not None:
        try:
            opened = rt.sealer.open(secret, purpose=callbacks.secret_purpose("batch", job.id))
        except CannotOpen:
            raise Conflict("The callback's secret can no longer be read: send the lines as a new batch") from None
        secret = rt.sealer.seal(opened, purpose=callbacks.secret_purpose("batch", id_))
    return Sealed(url=job.callback_url, events=tuple(job.callback_events), secret=secret)
