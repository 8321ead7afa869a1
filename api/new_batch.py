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
from api.batch_objects import MONEY_CODES, batch_object, dry_run_object, find_batch
from api.desk import Desk
from api.gateway import headers
from api.once import Once
from api.prefer import Preference
from api.replies import Reply
from api.submission import Sealed
from api.waiting import NET_S
from shared import batch_lists, batches, clock, credit_accounts, facts, files, idempotency, ids, jobs, limits, outbox
from shared.batch_lists import BatchView
from shared.batches import Batch, NewBatch
from shared.db import Tx, is_down
from shared.errors import BudgetExceeded, InsufficientCredits, Unavailable, WaybillError
from shared.idempotency import Repeated
from shared.jobs import Job
from shared.keys import Key
from shared.messages import Deliver, TendBatches
from shared.runtime import Runtime
from shared.states import BatchStatus

JOB_TYPE = "batch"
VERDICT_S = 10.0
"""How long a client waits for its lines to be checked; the batch is `validating` after that."""
DRY_RUN_S = 60.0
"""The same of a dry run, which has nothing else to say."""

Read = TypeVar("Read", bound=Batch)
Check = Callable[[Tx], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A batch as it was asked for. check: what may refuse it in the transaction that makes it, before all else."""

    new: NewBatch
    lines: InputFile
    metadata: Mapping[str, Any]
    callback: Sealed
    check: Check | None = None


async def make(rt: Runtime, desk: Desk, request: Request, key: Key, wanted: Wanted, once: Once) -> None:
    """Take a batch, to be checked by a worker; of a dry run only the row that its verdict is written to.

    Rate limits count its lines when they are dispatched, and not this. Raises Unavailable, RateLimited (a limit is 0),
    Repeated, and what its lines and its check refuse.
    """
    new = wanted.new
    desk.door.check()
    headers.put(request, headers.of_key(key))
    await _check_limits(rt, key, new.id)
    async with rt.db.hot_transaction() as tx:
        queues = await _written(tx, key, wanted, once)
    rt.ring(Deliver(ids=tuple(queues)))
    rt.ring(TendBatches(ids=(new.id,)))


async def told(
    rt: Runtime, desk: Desk, caller: Caller, id_: UUID, wanted: Preference, once: Once, brought: UUID | None = None
) -> Reply:
    """A batch once its lines are checked, or as it stands when the time is up.

    brought: the file that came with it. Raises InsufficientCredits or BudgetExceeded when it is refused for that while
    its client waits; the file is removed and the Idempotency-Key free then, the refused batch can be read.
    """

    async def read() -> BatchView:
        async with rt.db.hot_statement() as tx:
            return await find_batch(tx, caller, ids.batch(id_))

    was_judged = once.is_repeat and (await read()).status != BatchStatus.VALIDATING
    batch = await judged(desk, id_, wanted, read)
    refused = None if was_judged else _refusal(batch)
    if refused is None:
        return Reply(body=batch_object(batch), headers=wanted.headers)
    refused.headers["X-Job-Id"] = str(id_)
    async with rt.db.hot_transaction() as tx:
        if once.scope is not None:
            await idempotency.free_job(tx, once.scope, id_)
        if brought is not None:
            await _hide(tx, caller.team.team_id, brought)
    raise refused


async def checked(rt: Runtime, desk: Desk, key: Key, id_: UUID, wanted: Preference, brought: UUID | None) -> Reply:
    """What a dry run found; brought: as `told` has it. Raises Unavailable when it takes too long."""

    async def read() -> Batch:
        async with rt.db.hot_statement() as tx:
            found = await batch_lists.dry_run(tx, id_, key.team_id)
        if found is None:
            raise Unavailable
        return found

    batch = await judged(desk, id_, wanted, read)
    async with rt.db.hot_transaction() as tx:
        account = await credit_accounts.balance(tx, key.team_id)
        if brought is not None:
            await _hide(tx, key.team_id, brought)
    if account is None or batch.status == BatchStatus.VALIDATING:
        raise Unavailable("The lines could not be checked in time", retry_after_s=10)
    return Reply(body=dry_run_object(batch, account), headers=wanted.headers)


async def judged(desk: Desk, id_: UUID, wanted: Preference, read: Callable[[], Awaitable[Read]]) -> Read:
    """The batch once it is checked, or as it stands when the time is up or this process closes.

    Trouble with the database is waited for too: the batch is taken, and its client is to be told so.
    """
    until = clock.monotonic() + (wanted.wait_s or 0)
    while True:
        finished = desk.waiters.expect(id_)
        try:
            over = clock.monotonic() >= until or desk.waiters.is_closed
            found = await _read(read, has_time=not over)
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
    """What a batch was refused for, when it is money: then it is told as every other request is told it."""
    first = batch.errors[0] if batch.status == BatchStatus.FAILED and batch.errors else None
    if first is None or first["code"] not in MONEY_CODES:
        return None
    if first["code"] == InsufficientCredits.code:
        return InsufficientCredits()
    return BudgetExceeded(first["owner"], in_flight=first["code"] == BudgetExceeded.code_in_flight)


async def _check_limits(rt: Runtime, key: Key, id_: UUID) -> None:
    """Refuse at once what could never run: a limit of 0. Raises RateLimited, Unavailable; nothing is ever counted."""
    barred = [subject for subject in submission.limits_of(key) if 0 in (subject.rpm, subject.tpm)]
    await limits.take(rt.redis, barred, requests=[(str(id_), 1)])


async def _hide(tx: Tx, team_id: str, file_id: UUID) -> None:
    """Remove lines that nobody will ask for: no batch runs them."""
    if await files.lock(tx, file_id, team_id):
        await files.hide(tx, [file_id])


async def _read(read: Callable[[], Awaitable[Read]], *, has_time: bool) -> Read | None:
    try:
        return await read()
    except Exception as error:
        if has_time and is_down(error):
            return None
        raise


async def _written(tx: Tx, key: Key, wanted: Wanted, once: Once) -> list[Any]:
    """Returns queues of deliveries, to be rung."""
    new, claim = wanted.new, once.claim(job_id=wanted.new.id)
    # A dry run is no effect: its answer is kept, once there is one.
    if claim is not None and not new.dry_run and not await idempotency.claim(tx, [claim]):
        raise Repeated
    if wanted.check is not None:
        await wanted.check(tx)
    await wanted.lines.finish(tx)
    if new.dry_run:
        await batches.create(tx, new)
        return []
    job = _job(key, wanted)
    created = facts.job_created(job, job.created_at)
    await jobs.create(tx, [(job, new.window_s)])
    await batches.create(tx, new)
    return list(await outbox.record(tx, [created]))


def _job(key: Key, wanted: Wanted) -> Job:
    return Job(
        id=wanted.new.id,
        team_id=key.team_id,
        organization_id=key.organization_id,
        job_type=JOB_TYPE,
        metadata=dict(wanted.metadata),
        auto_complete=True,
        is_batch=True,
        callback_url=wanted.callback.url,
        callback_events=list(wanted.callback.events),
        callback_secret_sealed=wanted.callback.secret,
        created_at=clock.now(),
    )
