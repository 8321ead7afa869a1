"""A call of the gateway: routed, accepted with a job of its own or into the client's, waited for or streamed."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from starlette.requests import Request

from api import event_stream, one_call, submission
from api.access import parse_id
from api.auth import Caller
from api.call_failures import failure, last_provider
from api.desk import Desk
from api.event_stream import OPENAI, OPENAI_WITH_USAGE, EventStream
from api.gateway import headers
from api.once import Once
from api.one_call import Prepared
from api.replies import Reply
from shared import calls, clock, ids, intake, jobs
from shared.calls import Call
from shared.db import Tx
from shared.errors import CallFailed, CallGoesOn, NotFound
from shared.failures import FAILURES, message
from shared.jobs import Job
from shared.keys import Key
from shared.models import Route
from shared.new_calls import NewCall
from shared.routing import with_fallbacks
from shared.runtime import Runtime
from shared.sizing import sized
from shared.states import CallState
from shared.wire.gateway import ChatIn, CompletionIn, EmbeddingIn, Streamed

Body = ChatIn | CompletionIn | EmbeddingIn
Written = Callable[[Call], Awaitable[dict[str, Any] | bytes]]
"""How a completed call is answered in one piece."""

JOB_TYPE = "gateway"
OWN_ID = re.compile(r"[\x21-\x7e]{1,256}")
GRACE_S = 1.0
"""How long after its deadline a call's end is waited for, so that the client hears what is on record."""
CLOSING = "The server is closing. The call goes on: read it at /api/jobs/{job_id}/calls/{call_id}"


async def answered(
    rt: Runtime, desk: Desk, request: Request, caller: Caller, body: Body, once: Once, written: Written
) -> Reply | EventStream:
    """The answer to a request that asks a model. A client that leaves does not end its call.

    Raises what `submission` and intake refuse; CallFailed when the call failed, was cancelled or ran out of time;
    CallGoesOn when this process closes.
    """
    key = caller.team
    headers.put(request, {**headers.asked(body.model), **headers.of_key(key)})
    if once.job_id is not None and once.call_id is not None:
        if _is_streamed(body):
            async with rt.db.hot_statement() as tx:
                headers.put(request, headers.accepted(await _found(tx, once.job_id, once.call_id)))
            return await _streamed(rt, desk, request, body, once.job_id, once.call_id)
        return await _whole(rt, desk, request, once.job_id, once.call_id, written, is_repeat=True)
    prepared = await _prepared(rt, desk, request, key, body)
    call = prepared.call
    submitted = await one_call.accept(rt, desk, request, key, prepared, once)
    headers.put(request, {**headers.accepted(call), **headers.of_limits(submitted.windows)})
    if call.stream:
        return await _streamed(rt, desk, request, body, call.job_id, call.id, submitted.finished)
    await desk.waiters.wait(call.id, submitted.finished, call.deadline_s + GRACE_S)
    return await _whole(rt, desk, request, call.job_id, call.id, written)


async def _prepared(rt: Runtime, desk: Desk, request: Request, key: Key, body: Body) -> Prepared:
    """The call and, unless the client names one, its job. Raises NotFound, Forbidden, Conflict (job), as `_route`."""
    named = await _named_job(rt, request, key)
    route = await _route(rt, desk, request, key, body)
    job = named or _new_job(key, body)
    longest_s = rt.settings.gateway_deadline_s
    own_id = request.headers.get("x-litellm-call-id", "")
    call = NewCall(
        id=ids.new(),
        job_id=job.id,
        created_at=clock.now(),
        deadline_s=longest_s if body.timeout is None else min(longest_s, body.timeout),
        endpoint=body.endpoint,
        stream=_is_streamed(body),
        retries=body.num_retries,
        client_call_id=own_id if OWN_ID.fullmatch(own_id) else None,
        priority=job.priority,
        metadata=body.labels,
        **sized(rt, key, route, body.provider_request()),
    )
    return Prepared(call=call, new_job=None if named else job)


async def _named_job(rt: Runtime, request: Request, key: Key) -> Job | None:
    """The job that the client puts its call into."""
    name = request.headers.get("x-job-id")
    if name is None:
        return None
    async with rt.db.hot_statement() as tx:
        return intake.check_open(await jobs.read(tx, parse_id(name, "Job not found")), key.team_id)


def _new_job(key: Key, body: Body) -> Job:
    return Job(
        id=ids.new(),
        team_id=key.team_id,
        organization_id=key.organization_id,
        job_type=JOB_TYPE,
        user_id=body.user or None,
        auto_complete=True,
        created_at=clock.now(),
    )


async def _route(rt: Runtime, desk: Desk, request: Request, key: Key, body: Body) -> Route:
    """The candidates of the model, then those of the client's own fallbacks. Raises as `submission.route`."""

    async def find(name: str) -> Route:
        found = submission.known(desk, key, name)
        if found is None:
            async with rt.db.hot_statement() as tx:
                found = await submission.route(rt, desk, tx, key, name)
        return found

    with headers.deciding(request, body.model):
        return await with_fallbacks(find, body.model, body.fallbacks or ())


def _is_streamed(body: Body) -> bool:
    return isinstance(body, Streamed) and bool(body.stream)


async def _streamed(
    rt: Runtime,
    desk: Desk,
    request: Request,
    body: Body,
    job_id: UUID,
    call_id: UUID,
    finished: "asyncio.Future[None] | None" = None,
) -> EventStream:
    """The answer in pieces: live, or of a call that an earlier request made again from the first chunk."""
    dialect = OPENAI_WITH_USAGE if isinstance(body, Streamed) and body.shows_usage else OPENAI
    return await event_stream.answer(
        rt, desk, request, job_id=job_id, call_id=call_id, dialect=dialect, headers={}, finished=finished
    )


async def _found(tx: Tx, job_id: UUID, call_id: UUID) -> Call:
    call = await calls.get(tx, job_id, call_id)
    if call is None:
        raise NotFound("Call not found")
    return call


async def _whole(
    rt: Runtime, desk: Desk, request: Request, job_id: UUID, call_id: UUID, written: Written, *, is_repeat: bool = False
) -> Reply:
    """The answer in one piece, from the call's row."""
    async with rt.db.hot_statement() as tx:
        call = await _found(tx, job_id, call_id)
        has_failed = call.completed_at is not None and call.state != CallState.COMPLETED
        provider = await last_provider(tx, call_id) if has_failed else None
    headers.put(request, {**headers.accepted(call), **headers.answered(request, call, is_repeat=is_repeat)})
    if call.state == CallState.COMPLETED:
        return Reply(body=await written(call))
    if has_failed:
        raise failure(call, {}, provider)
    if desk.waiters.is_closed:
        raise CallGoesOn(CLOSING.format(job_id=job_id, call_id=call_id))
    late = "deadline_exceeded"
    raise CallFailed(FAILURES[late].http_status, message(late), headers={}, failure=late)
