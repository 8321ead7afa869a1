"""Making a batch: its job, its row and its file in one transaction; then what a worker finds in its lines."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from starlette.requests import Request

from api import prefer, submission
from api.auth import Caller
from api.batch_inputs import InputFile
from api.batch_objects import REFUSED_WHOLE, batch_object, dry_run_object, find_batch
from api.desk import Desk
from api.gateway import headers
from api.once import Once
from api.prefer import Preference
from api.replies import Reply
from api.submission import Sealed
from api.waiting import NET_S
from shared import (
    batch_bounds,
    batch_lists,
    batches,
    clock,
    credit_accounts,
    facts,
    files,
    idempotency,
    ids,
    jobs,
    limits,
    log,
    outbox,
)
from shared.batch_lists import BatchView
from shared.batches import Batch, NewBatch
from shared.db import Tx, is_down
from shared.errors import BudgetExceeded, InsufficientCredits, TooManyRequests, Unavailable, WaybillError
from shared.idempotency import Repeated
from shared.jobs import Job
from shared.keys import Key
from shared.messages import Deliver, TendBatches
from shared.runtime import Runtime
from shared.states import BatchStatus

logger = log.get(__name__)

JOB_TYPE = "batch"
VERDICT_S = 10.0
"""How long a client waits for its lines to be checked; the batch is `validating` after that."""
DRY_RUN_S = 60.0
"""The same of a dry run, which has nothing else to say."""

NONE_YET = (
    "cost_nanousd", "credits_charged", "total", "completed", "failed", "expired", "cancelled", "in_progress",
    "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens",
)  # fmt: skip
"""What is counted of a batch's lines."""

Read = TypeVar("Read", bound=Batch)
Check = Callable[[Tx], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A batch as it was asked for. check: what may refuse it in the transaction that makes it, before all else."""

    new: NewBatch
    lines: InputFile
    metadata: Mapping[str, Any]
    callback: Sealed
    check: Check | None = None


@dataclass(frozen=True, kw_only=True)
class Made:
    """A batch that this request made: as it was written, and the file that came with it and is nobody else's."""

    view: BatchView
    brought: UUID | None


async def make(rt: Runtime, desk: Desk, request: Request, key: Key, asked: Asked, once: Once) -> Made:
    """Take a batch, to be checked by a worker; of a dry run only the row that its verdict is written to.

    Rate limits count its lines when they are dispatched, and not this. Raises Unavailable, RateLimited (a limit is 0),
    TooManyRequests (the team has as much as it may have), Repeated, and what its lines and its check refuse.
    """
    new = asked.new
    desk.door.check()
    headers.put(request, headers.of_key(key))
    await _check_limits(rt, key, new.id)
    async with rt.db.hot_transaction() as tx:
        batch, queues = await _written(rt, tx, key, asked, once)
    rt.ring(Deliver(ids=tuple(queues)))
    rt.ring(TendBatches(ids=(new.id,)))
    return Made(view=_unchecked(batch, asked), brought=asked.lines.brought)


async def told(
    rt: Runtime, desk: Desk, caller: Caller, id_: UUID, wanted: Preference, once: Once, made: Made | None = None
) -> Reply:
    """A batch once its lines are checked, or as it stands when the time is up.

    made: what this request made; None: it is a repeat. Once it is made nothing invites its client to send it again:
    what cannot be read is told as it was written. Raises InsufficientCredits, BudgetExceeded or TooManyRequests when it
    is refused for that while its client waits; the file that came with it is removed then, the refused batch can be
    read. The Idempotency-Key is free after such a refusal, however it was told.
    """

    async def read() -> BatchView:
        async with rt.db.hot_statement() as tx:
            return await find_batch(tx, caller, ids.batch(id_))

    was_judged = once.is_repeat and (await read()).status != BatchStatus.VALIDATING
    batch = await judged(desk, id_, wanted, read, None if made is None else made.view)
    refused = _refusal(batch)
    if refused is None:
        return Reply(body=batch_object(batch), headers=wanted.headers)
    await _free(rt, once, batch, None if made is None else made.brought)
    if was_judged:
        return Reply(body=batch_object(batch), headers=wanted.headers)
    refused.headers["X-Job-Id"] = str(id_)
    raise refused


async def checked(rt: Runtime, desk: Desk, key: Key, id_: UUID, wanted: Preference, brought: UUID | None) -> Reply:
    """What a dry run found. brought: the file that came with it.

    Raises Unavailable when it takes too long; the check ends then.
    """

    async def read() -> Batch:
        async with rt.db.hot_statement() as tx:
            found = await batch_lists.dry_run(tx, id_, key.team_id)
        if found is None:
            raise Unavailable
        return found

    batch = await judged(desk, id_, wanted, read)
    async with rt.db.hot_transaction() as tx:
        account = await credit_accounts.balance(tx, key.team_id)
        await batches.abandon(tx, id_)
        if brought is not None:
            await _hide(tx, key.team_id, brought)
    if account is None or batch.status == BatchStatus.VALIDATING:
        raise Unavailable("The lines could not be checked in time", retry_after_s=10)
    return Reply(body=dry_run_object(batch, account), headers=wanted.headers)


async def judged(
    desk: Desk,
    id_: UUID,
    wanted: Preference,
    read: Callable[[], Awaitable[Read]],
    otherwise: Read | None = None,
) -> Read:
    """The batch once it is checked, or as it stands when the time is up or this process closes.

    Trouble with the database is waited for too: the batch is taken, and its client is to be told so. otherwise: what is
    told when it cannot be read in the end.
    """
    until = clock.monotonic() + (wanted.wait_s or 0)
    while True:
        finished = desk.waiters.expect(id_)
        try:
            over = clock.monotonic() >= until or desk.waiters.is_closed
            found = await _read(read, has_time=not over, otherwise=otherwise)
            if found is not None and (over or found.status != BatchStatus.VALIDATING):
                return found
            await asyncio.wait({finished}, timeout=max(0.0, min(until - clock.monotonic(), NET_S)))
        finally:
            desk.waiters.forget(id_, finished)


def within(rt: Runtime, request: Request, most_s: float) -> Preference:
    """How long a client waits for a verdict: so long, unless it asks for less, or nothing waits so long here."""
    asked = prefer.preference(request, most_s=most_s)
    if asked.wait_s is not None:
        return asked
    return Preference(wait_s=min(most_s, rt.settings.default_wait_s), applied=None)


def _refusal(batch: Batch) -> WaybillError | None:
    """What a batch was refused for, when it is no line's fault: then it is told as every other request is told it."""
    first = batch.errors[0] if batch.status == BatchStatus.FAILED and batch.errors else None
    if first is None or first["code"] not in REFUSED_WHOLE:
        return None
    if first["code"] == InsufficientCredits.code:
        return InsufficientCredits()
    if first["code"] == TooManyRequests.code:
        return TooManyRequests(first["message"], retry_after_s=batch_bounds.LINES_AGAIN_S)
    return BudgetExceeded(first["owner"], in_flight=first["code"] == BudgetExceeded.code_in_flight)


async def _free(rt: Runtime, once: Once, batch: Batch, brought: UUID | None) -> None:
    """Nothing of a batch that was refused whole is kept but itself: its key is free, and nobody has its lines."""
    try:
        async with rt.db.hot_transaction() as tx:
            if once.scope is not None:
                await idempotency.free_job(tx, once.scope, batch.id)
            if brought is not None:
                await _hide(tx, batch.team_id, brought)
    except Exception as error:  # the repeat frees the key
        if not is_down(error):
            raise
        logger.warning("refused_batch_not_freed", batch=ids.batch(batch.id), error=type(error).__name__)


async def _check_limits(rt: Runtime, key: Key, id_: UUID) -> None:
    """Refuse at once what could never run: a limit of 0. Raises RateLimited, Unavailable; nothing is ever counted."""
    barred = [subject for subject in submission.limits_of(key) if 0 in (subject.rpm, subject.tpm)]
    await limits.take(rt.redis, barred, requests=[(str(id_), 1)])


async def _hide(tx: Tx, team_id: str, file_id: UUID) -> None:
    """Remove lines that nobody will ask for: no batch runs them."""
    if await files.lock(tx, file_id, team_id):
        await files.hide(tx, [file_id])


async def _read(read: Callable[[], Awaitable[Read]], *, has_time: bool, otherwise: Read | None) -> Read | None:
    try:
        return await read()
    except Exception as error:
        if not is_down(error) or not (has_time or otherwise):
            raise
        return None if has_time else otherwise


async def _written(rt: Runtime, tx: Tx, key: Key, asked: Asked, once: Once) -> tuple[Batch, list[UUID]]:
    """The batch, and queues of deliveries, to be rung."""
    new, claim = asked.new, once.claim(job_id=asked.new.id)
    # A dry run is no effect: its answer is kept, once there is one.
    if claim is not None and not new.dry_run and not await idempotency.claim(tx, [claim]):
        raise Repeated
    if asked.check is not None:
        await asked.check(tx)
    most = rt.settings
    underway = await batch_bounds.read(tx, key.team_id)
    underway.check_new(most_checks=most.team_batch_checks, most_lines=most.team_batch_lines)
    await asked.lines.finish(tx)
    if new.dry_run:
        return await batches.create(tx, new), []
    job = _job(key, asked)
    created = facts.job_created(job, job.created_at)
    await jobs.create(tx, [(job, new.window_s)])
    batch = await batches.create(tx, new)
    return batch, await outbox.record(tx, [created])


def _unchecked(batch: Batch, asked: Asked) -> BatchView:
    """A batch as its POST leaves it: no line of it is known."""
    none: dict[str, Any] = dict.fromkeys(NONE_YET, 0)
    return BatchView(
        **vars(batch),
        **none,
        metadata=dict(asked.metadata),
        failures=None,
        read_at=batch.created_at,
        callback_url=asked.callback.url,
        callback_events=list(asked.callback.events),
    )


def _job(key: Key, asked: Asked) -> Job:
    return Job(
        id=asked.new.id,
        team_id=key.team_id,
        organization_id=key.organization_id,
        job_type=JOB_TYPE,
        metadata=dict(asked.metadata),
        auto_complete=True,
        is_batch=True,
        callback_url=asked.callback.url,
        callback_events=list(asked.callback.events),
        callback_secret_sealed=asked.callback.secret,
        created_at=clock.now(),
    )
