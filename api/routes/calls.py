"""Calls: submit one and wait for it, read it, list a job's, cancel."""

from dataclasses import replace
from typing import Any
from uuid import UUID

from starlette.requests import Request

from api import prefer, submission, views
from api.access import find_call, find_job, parse_id
from api.auth import Caller
from api.desk import Desk
from api.held_read import held_read
from api.http import endpoint
from api.lists import next_link
from api.once import Once
from api.replies import Reply
from api.request_id import tell
from api.wire.call_answers import CallOut, CallResultOut, CallsOut, WaitingOut
from api.wire.calls import CallIn
from api.wire.jobs import CallsQuery, WaitQuery
from shared import attempts, audit, calls, clock, closing, ids, intake, jobs
from shared.calls import Call
from shared.db import Tx
from shared.ending import free_tokens
from shared.errors import BadRequest, CallFailed, NotFound
from shared.failures import FAILURES
from shared.messages import Stop
from shared.runtime import Runtime
from shared.states import CallState

STATES = tuple(CallState)
ORDERS = {
    (column, direction): f"c.{column} {direction} nulls last, c.position {direction}"
    for column in ("created_at", "completed_at")
    for direction in ("asc", "desc")
}


@endpoint("team", answers={200: CallResultOut, 202: WaitingOut})
async def llm_call(
    rt: Runtime, desk: Desk, caller: Caller, request: Request, job_id: str, body: CallIn, once: Once
) -> Reply:
    """Accept a call, wait for its answer as long as the client wants, else answer 202: the call goes on."""
    key, id_, now = caller.team, parse_id(job_id, "Job not found"), clock.now()
    if once.call_id is not None:
        return await _answered(rt, desk, id_, once.call_id, _links(id_, once.call_id))
    call_id = ids.new()
    callback = await submission.checked_callback(rt, "call", call_id, body)
    async with rt.db.statement() as tx:
        job = intake.check_open(await jobs.read(tx, id_), key.team_id)
        route = await submission.resolve(rt, desk, tx, key, body)
    call = submission.new_call(
        rt, body, route, job_id=id_, key=key, now=now, call_id=call_id, callback=callback, priority=job.priority
    )
    wanted = prefer.preference(request)
    headers = {**wanted.headers, **_links(id_, call.id)}
    wait_s = rt.settings.default_wait_s if wanted.wait_s is None else wanted.wait_s
    at_once = _still_waiting(desk, str(call.id), str(id_), CallState.PENDING, clock.iso(now), headers)
    claim = once.claim(job_id=id_, call_id=call.id, answer=None if wait_s else at_once)
    submitted = await submission.submit(rt, desk, key, job_id=id_, calls=[call], waits_for=call.id, claim=claim)
    tell(request, job_id=str(id_), call_id=str(call.id))
    if not wait_s:
        desk.waiters.forget(call.id, submitted.finished)
        return replace(at_once, headers={**submitted.headers, **at_once.headers})
    await desk.waiters.wait(call.id, submitted.finished, wait_s)
    reply = await _answered(rt, desk, id_, call.id, {**submitted.headers, **headers})
    return reply if reply.status == 200 else await once.store(reply, call_id=call.id)


@endpoint("any", answers=CallOut)
async def read_call(
    rt: Runtime, desk: Desk, caller: Caller, request: Request, job_id: str, call_id: str, query: WaitQuery
) -> Reply:
    """A call as it stands; with a wait, once it ended or (If-None-Match) changed."""
    wanted = prefer.preference(request, query.wait)
    job, call = parse_id(job_id, "Job not found"), parse_id(call_id, "Call not found")

    async def read() -> tuple[dict[str, Any], bool]:
        return await _shown(rt, caller, job, call)

    return await held_read(desk.waiters, request, call, wanted, read)


@endpoint("any", answers=CallsOut)
async def list_calls(rt: Runtime, caller: Caller, job_id: str, query: CallsQuery, request: Request) -> Reply:
    """A page of a job's calls, oldest first, without their texts."""
    states = [word.lower() for word in request.query_params.getlist("status")] or None
    unknown = next((word for word in states or () if word not in STATES), None)
    if unknown is not None:
        raise BadRequest(f"Invalid status: {unknown}. Must be one of: {', '.join(STATES)}")
    async with rt.db.statement() as tx:
        job = await find_job(tx, caller, job_id)
        page, total = await calls.list_of_job(
            tx,
            job.id,
            states=states,
            purpose=query.purpose,
            order=ORDERS[query.sort_by, query.order],
            limit=query.limit,
            offset=query.offset,
        )
    shown = [views.listed_call(call) for call in page]
    body = {"calls": shown, "total": total, "limit": query.limit, "offset": query.offset}
    return Reply(body=body, headers=next_link(request, query, total))


@endpoint("any:w", answers=CallOut)
async def cancel_call(rt: Runtime, caller: Caller, job_id: str, call_id: str, once: Once) -> dict[str, Any]:
    """End a call that has not ended; its provider connection is closed within a second."""
    async with rt.db.transaction() as tx:
        job = await find_job(tx, caller, job_id)
        call = await find_call(tx, job.id, call_id)
        locked = await jobs.lock(tx, [job.id])
        ended = await closing.cancel_calls(tx, locked, call_ids=[call.id], limit=1)
        aftermath = await closing.end_calls(tx, locked, ended, now=clock.now())
        shown, _ = await _read(tx, caller, job.id, call.id)
        if ended:
            await audit.record(tx, caller.actor, "cancelled_call", "call", call_id)
        await once.keep(tx, shown)
    for message in (*aftermath.messages(), Stop(ids=(call.id,))):
        rt.ring(message)
    await free_tokens(rt, ended)
    return shown


async def _answered(rt: Runtime, desk: Desk, job_id: UUID, call_id: UUID, headers: dict[str, str]) -> Reply:
    async with rt.db.statement() as tx:
        call = await calls.get(tx, job_id, call_id)
    if call is None:
        raise NotFound("Call not found")
    if call.completed_at is None:
        return _still_waiting(desk, str(call_id), str(job_id), call.state, clock.iso(call.created_at), headers)
    if call.state == CallState.COMPLETED:
        return Reply(body=views.result_object(call), headers=headers)
    raise failure(call, headers)


def _still_waiting(
    desk: Desk, call_id: str, job_id: str, status: str, created_at: str | None, headers: dict[str, str]
) -> Reply:
    body = views.waiting_object(call_id, job_id, status, created_at)
    return Reply(body=body, status=202, headers={**headers, "Retry-After": str(desk.door.wait_s)})


def failure(call: Call, headers: dict[str, str]) -> CallFailed:
    """The error a client that waited gets for a call that failed or was cancelled."""
    failed = FAILURES[call.error_code or "internal_error"]
    if failed.http_status in (429, 503):
        headers = {**headers, "Retry-After": str(max(1, call.retry_after_s or 1))}
    code = call.error_code or "internal_error"
    return CallFailed(failed.http_status, call.error_message or failed.text, headers=headers, failure=code)


async def _shown(rt: Runtime, caller: Caller, job_id: UUID, call_id: UUID) -> tuple[dict[str, Any], bool]:
    async with rt.db.statement() as tx:
        await find_job(tx, caller, str(job_id))
        return await _read(tx, caller, job_id, call_id)


async def _read(tx: Tx, caller: Caller, job_id: UUID, call_id: UUID) -> tuple[dict[str, Any], bool]:
    call = await find_call(tx, job_id, str(call_id))
    tried = (await attempts.of_calls(tx, [call_id])).get(call_id, []) if caller.is_admin else None
    return views.call_object(call, attempts=tried), call.completed_at is not None


def _links(job_id: UUID, call_id: UUID) -> dict[str, str]:
    return {"Location": f"/api/jobs/{job_id}/calls/{call_id}", "X-Call-Id": str(call_id)}
