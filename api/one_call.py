"""One call, for an open job or with a job of its own: prepared, accepted, waited for."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from starlette.requests import Request

from api import prefer, submission, views
from api.call_failures import failure, last_provider
from api.desk import Desk
from api.once import Once
from api.replies import Reply
from api.request_id import tell
from api.submission import Submitted
from api.wire.calls import CallIn
from api.wire.create_and_call import CreateAndCallIn
from shared import calls, clock, ids, intake, jobs, queue_positions
from shared.calls import Call
from shared.db import Tx
from shared.errors import NotFound
from shared.jobs import Job
from shared.keys import Key
from shared.new_calls import NewCall
from shared.runtime import Runtime
from shared.states import CallState

Shown = Callable[[Tx, Call], Awaitable[dict[str, Any]]]
"""The body of the 200 for a completed call."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A call that can be accepted; new_job: its own, where there is none to add it to."""

    call: NewCall
    new_job: Job | None = None

    @property
    def streamed(self) -> "Prepared":
        """The same, its answer told in pieces."""
        return replace(self, call=replace(self.call, stream=True))


async def for_job(rt: Runtime, desk: Desk, key: Key, job_id: UUID, body: CallIn) -> Prepared:
    """A call for an open job of the team. Raises NotFound, Forbidden, Conflict, and what `submission.resolve` does."""
    now, call_id = clock.now(), ids.new()
    callback = await submission.checked_callback(rt, "call", call_id, body)
    async with rt.db.hot_statement() as tx:
        job = intake.check_open(await jobs.read(tx, job_id), key.team_id)
        route = await submission.resolve(rt, desk, tx, key, body)
    call = submission.new_call(
        rt, body, route, job_id=job_id, key=key, now=now, call_id=call_id, callback=callback, priority=job.priority
    )
    return Prepared(call=call)


async def with_job(rt: Runtime, desk: Desk, key: Key, body: CreateAndCallIn) -> Prepared:
    """A call with a job that ends when it does. Raises Invalid, and what `submission.resolve` does."""
    now, call_id = clock.now(), ids.new()
    metadata = intake.merged_metadata({}, body.job_metadata or {}, loc=("body", "job_metadata"))
    intake.merged_metadata(metadata, body.call_metadata or {}, loc=("body", "call_metadata"))
    callback = await submission.checked_callback(rt, "call", call_id, body)
    async with rt.db.hot_statement() as tx:
        route = await submission.resolve(rt, desk, tx, key, body)
    job = Job(
        id=ids.new(),
        team_id=key.team_id,
        organization_id=key.organization_id,
        job_type=body.job_type,
        user_id=body.user_id,
        metadata=metadata,
        auto_complete=True,
        created_at=now,
    )
    call = submission.new_call(rt, body, route, job_id=job.id, key=key, now=now, call_id=call_id, callback=callback)
    return Prepared(call=call, new_job=job)


async def accept(
    rt: Runtime,
    desk: Desk,
    request: Request,
    key: Key,
    prepared: Prepared,
    once: Once,
    *,
    answer: Reply | None = None,
) -> Submitted:
    """Accept the call. answer: what a repeat of this request is answered with, where that is known already."""
    call, job = prepared.call, prepared.new_job
    claim = once.claim(job_id=call.job_id, call_id=call.id, answer=answer)
    submitted = await submission.submit(
        rt, desk, key, job_id=call.job_id, new_job=job, calls=[call], waits_for=call.id, claim=claim
    )
    tell(request, job_id=str(call.job_id), call_id=str(call.id))
    return submitted


async def accept_and_wait(
    rt: Runtime, desk: Desk, request: Request, key: Key, prepared: Prepared, once: Once, shown: Shown
) -> Reply:
    """Accept the call and wait for its answer as long as the client wants, else 202: the call goes on."""
    call, wanted = prepared.call, prefer.preference(request)
    headers = {**wanted.headers, **links(call.job_id, call.id)}
    wait_s = rt.settings.default_wait_s if wanted.wait_s is None else wanted.wait_s
    at_once = _still_waiting(desk, call.job_id, call.id, CallState.PENDING, clock.iso(call.created_at), headers)
    submitted = await accept(rt, desk, request, key, prepared, once, answer=None if wait_s else at_once)
    if not wait_s:
        desk.waiters.forget(call.id, submitted.finished)
        return replace(at_once, headers={**submitted.headers, **at_once.headers})
    await desk.waiters.wait(call.id, submitted.finished, wait_s)
    reply = await answered(rt, desk, call.job_id, call.id, {**submitted.headers, **headers}, shown)
    return reply if reply.status == 200 else await once.store(reply, call_id=call.id)


async def answered(
    rt: Runtime, desk: Desk, job_id: UUID, call_id: UUID, headers: Mapping[str, str], shown: Shown
) -> Reply:
    """What is said of a call as it stands. Raises CallFailed, NotFound."""
    async with rt.db.hot_statement() as tx:
        call = await calls.get(tx, job_id, call_id)
        if call is None:
            raise NotFound("Call not found")
        if call.completed_at is None:
            place = await queue_positions.of_call(tx, call.team_id, call_id)
            return _still_waiting(desk, job_id, call_id, call.state, clock.iso(call.created_at), headers, place=place)
        if call.state == CallState.COMPLETED:
            return Reply(body=await shown(tx, call), headers=headers)
        provider = await last_provider(tx, call_id)
    raise failure(call, headers, provider)


def links(job_id: UUID, call_id: UUID) -> dict[str, str]:
    """Where a call is read; every answer that is about one says so."""
    return {"Location": f"/api/jobs/{job_id}/calls/{call_id}", "X-Call-Id": str(call_id)}


def _still_waiting(
    desk: Desk,
    job_id: UUID,
    call_id: UUID,
    status: str,
    created_at: str | None,
    headers: Mapping[str, str],
    *,
    place: int | None = None,
) -> Reply:
    """place: in the queue; not known of a call that is only about to be accepted."""
    wait_s = desk.door.wait_s
    body = views.waiting_object(str(call_id), str(job_id), status, created_at, queue_position=place, wait_s=wait_s)
    return Reply(body=body, status=202, headers={**headers, "Retry-After": str(wait_s)})
