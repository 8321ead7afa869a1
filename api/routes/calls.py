"""Calls: submit one and wait for it, read it, list a job's, cancel."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from starlette.requests import Request

from api import one_call, prefer, views
from api.access import find_call, find_job, parse_id
from api.auth import Caller
from api.desk import Desk
from api.held_read import held_read
from api.http import endpoint
from api.lists import next_link
from api.once import Once
from api.replies import Reply
from api.wire.call_answers import CallOut, CallResultOut, CallsOut, WaitingOut
from api.wire.calls import CallIn
from api.wire.jobs import CallsQuery, WaitQuery
from shared import attempts, audit, callback_states, calls, clock, closing, jobs, queue_positions
from shared.calls import Call
from shared.db import Tx
from shared.ending import free_tokens, stop_streams
from shared.errors import BadRequest
from shared.messages import Stop
from shared.runtime import Runtime
from shared.states import CallState

STATES = tuple(CallState)
GUESSES = ("queue_position",)
"""Of the object, what changes though nothing has happened to the call."""
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
    id_ = parse_id(job_id, "Job not found")
    if once.call_id is not None:
        return await one_call.answered(rt, desk, id_, once.call_id, one_call.links(id_, once.call_id), _result)
    prepared = await one_call.for_job(rt, desk, caller.team, id_, body)
    return await one_call.accept_and_wait(rt, desk, request, caller.team, prepared, once, _result)


@endpoint("any", answers=CallOut)
async def read_call(
    rt: Runtime, desk: Desk, caller: Caller, request: Request, job_id: str, call_id: str, query: WaitQuery
) -> Reply:
    """A call as it stands; with a wait, once it ended or (If-None-Match) changed."""
    wanted = prefer.preference(request, query.wait)
    job, call = parse_id(job_id, "Job not found"), parse_id(call_id, "Call not found")

    async def read() -> tuple[dict[str, Any], bool]:
        return await _shown(rt, caller, job, call)

    return await held_read(desk.waiters, request, call, wanted, read, GUESSES)


@endpoint("any", answers=CallsOut)
async def list_calls(rt: Runtime, caller: Caller, job_id: str, query: CallsQuery, request: Request) -> Reply:
    """A page of a job's calls, oldest first, without their texts."""
    states = [word.lower() for word in request.query_params.getlist("status")] or None
    unknown = next((word for word in states or () if word not in STATES), None)
    if unknown is not None:
        raise BadRequest(f"Invalid status: {unknown}. Must be one of: {', '.join(STATES)}")
    async with rt.db.hot_statement() as tx:
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
        told = await _callbacks(tx, job.id, page)
    shown = [views.listed_call(call, told.get(call.id)) for call in page]
    body = {"calls": shown, "total": total, "limit": query.limit, "offset": query.offset}
    return Reply(body=body, headers=next_link(request, query, total))


@endpoint("any:w", answers=CallOut)
async def cancel_call(rt: Runtime, caller: Caller, job_id: str, call_id: str, once: Once) -> dict[str, Any]:
    """End a call that has not ended; its provider connection is closed within a second.

    Of a stream that has begun, what was said until then is counted and charged.
    """
    if once.is_repeat:
        return await _as_it_stands(rt, caller, job_id, call_id)
    async with rt.db.hot_statement() as tx:
        job = await find_job(tx, caller, job_id)
        call = await find_call(tx, job.id, call_id)
    stopped = await stop_streams(rt, job.id, call.id) if call.stream and call.completed_at is None else False
    async with rt.db.hot_transaction() as tx:
        locked = await jobs.lock(tx, [job.id])
        # The job and not the answer, whose texts may be erased sooner than a key.
        await once.take(tx, job_id=job.id)
        ended = await closing.cancel_calls(tx, locked, call_ids=[call.id], limit=1)
        if ended or stopped:
            await audit.record(tx, caller.admin, "cancelled_call", "call", call_id)
        aftermath = await closing.end_calls(tx, locked, ended, now=clock.now())
    for message in (*aftermath.messages(), Stop(ids=(call.id,))):
        rt.ring(message)
    await free_tokens(rt, ended)
    return await _as_it_stands(rt, caller, job_id, call_id)


async def _result(tx: Tx, call: Call) -> dict[str, Any]:  # noqa: ARG001 - the call says it all
    return views.result_object(call)


async def _as_it_stands(rt: Runtime, caller: Caller, job_id: str, call_id: str) -> dict[str, Any]:
    shown, _ = await _shown(rt, caller, parse_id(job_id, "Job not found"), parse_id(call_id, "Call not found"))
    return shown


async def _shown(rt: Runtime, caller: Caller, job_id: UUID, call_id: UUID) -> tuple[dict[str, Any], bool]:
    async with rt.db.hot_statement() as tx:
        await find_job(tx, caller, str(job_id))
        return await _read(tx, caller, job_id, call_id)


async def _read(tx: Tx, caller: Caller, job_id: UUID, call_id: UUID) -> tuple[dict[str, Any], bool]:
    call = await find_call(tx, job_id, str(call_id))
    tried = (await attempts.of_calls(tx, [call_id])).get(call_id, []) if caller.is_admin else None
    told = await _callbacks(tx, job_id, [call])
    place = None
    if call.state == CallState.PENDING and not call.batched:
        place = await queue_positions.of_call(tx, call.team_id, call_id)
    shown = views.call_object(call, attempts=tried, callback=told.get(call.id), queue_position=place)
    return shown, call.completed_at is not None


async def _callbacks(tx: Tx, job_id: UUID, page: Sequence[Call]) -> dict[UUID, dict[str, Any]]:
    """The echo of each call that has a callback."""
    return await callback_states.of_calls(tx, job_id, [call.id for call in page if call.callback_url is not None])
