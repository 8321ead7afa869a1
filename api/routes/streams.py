"""Calls whose answer is streamed, and jobs that are made with their one call."""

import re
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request

from api import event_stream, one_call, views
from api.access import find_call, find_job, parse_id
from api.auth import Caller
from api.desk import Desk
from api.event_stream import JOBS, EventStream
from api.http import endpoint
from api.once import Once
from api.one_call import Prepared, links
from api.replies import Reply
from api.wire.call_answers import WaitingOut
from api.wire.calls import CallIn
from api.wire.create_and_call import CreateAndCallIn, CreatedAndCalledOut
from api.wire.media import EVENTS
from shared import jobs
from shared.calls import Call
from shared.db import Tx
from shared.errors import BadRequest, Forbidden, NotFound
from shared.keys import Key
from shared.runtime import Runtime
from shared.states import Endpoint

NUMBER = re.compile(r"[0-9]{1,15}")


class StreamQuery(BaseModel):
    """`?after=n`: the last chunk that the client has, where it cannot send `Last-Event-ID`."""

    model_config = ConfigDict(extra="ignore")

    after: str | None = None


@endpoint("team", answers=EVENTS)
async def llm_call_stream(
    rt: Runtime, desk: Desk, caller: Caller, request: Request, job_id: str, body: CallIn, once: Once
) -> EventStream:
    """Accept a call and stream its answer; when the client leaves, the call goes on."""
    id_ = parse_id(job_id, "Job not found")
    if once.call_id is not None:
        return await _repeated(rt, desk, request, id_, once.call_id)
    prepared = await one_call.for_job(rt, desk, caller.team, id_, body)
    return await _accepted(rt, desk, request, caller.team, prepared, once)


@endpoint("any", answers=EVENTS)
async def call_stream(
    rt: Runtime, desk: Desk, caller: Caller, request: Request, job_id: str, call_id: str, query: StreamQuery
) -> EventStream:
    """The stream of a call: live while it runs, again when it ended, from the chunk after `Last-Event-ID`."""
    after = _position(request.headers.get("last-event-id") or query.after)
    async with rt.db.hot_statement() as tx:
        job = await find_job(tx, caller, job_id)
        call = await find_call(tx, job.id, call_id)
    if call.endpoint == Endpoint.EMBEDDING:
        raise BadRequest("Embeddings have no stream")
    headers = _headers(job.id, call.id)
    return await event_stream.answer(
        rt,
        desk,
        request,
        job_id=job.id,
        call_id=call.id,
        dialect=JOBS,
        headers=headers,
        after=after,
        needs_texts=True,
    )


@endpoint("team", answers={200: CreatedAndCalledOut, 202: WaitingOut})
async def create_and_call(
    rt: Runtime, desk: Desk, caller: Caller, request: Request, body: CreateAndCallIn, once: Once
) -> Reply:
    """Make a job with one call and wait for the answer; the job ends with its call."""
    key = _own(caller, body)
    if once.job_id is not None and once.call_id is not None:
        return await one_call.answered(rt, desk, once.job_id, once.call_id, links(once.job_id, once.call_id), _shown)
    prepared = await one_call.with_job(rt, desk, key, body)
    return await one_call.accept_and_wait(rt, desk, request, key, prepared, once, _shown)


@endpoint("team", answers=EVENTS)
async def create_and_call_stream(
    rt: Runtime, desk: Desk, caller: Caller, request: Request, body: CreateAndCallIn, once: Once
) -> EventStream:
    """Make a job with one call and stream the answer; the job ends with its call."""
    key = _own(caller, body)
    if once.job_id is not None and once.call_id is not None:
        return await _repeated(rt, desk, request, once.job_id, once.call_id)
    prepared = await one_call.with_job(rt, desk, key, body)
    return await _accepted(rt, desk, request, key, prepared, once)


async def _accepted(rt: Runtime, desk: Desk, request: Request, key: Key, prepared: Prepared, once: Once) -> EventStream:
    call = prepared.call
    submitted = await one_call.accept(rt, desk, request, key, prepared.streamed, once)
    return await event_stream.answer(
        rt,
        desk,
        request,
        job_id=call.job_id,
        call_id=call.id,
        dialect=JOBS,
        headers={**submitted.headers, **_headers(call.job_id, call.id)},
        finished=submitted.finished,
    )


async def _repeated(rt: Runtime, desk: Desk, request: Request, job_id: UUID, call_id: UUID) -> EventStream:
    """The stream of a call that an earlier request with this key made."""
    headers = _headers(job_id, call_id)
    return await event_stream.answer(rt, desk, request, job_id=job_id, call_id=call_id, dialect=JOBS, headers=headers)


def _headers(job_id: UUID, call_id: UUID) -> dict[str, str]:
    return {**links(job_id, call_id), "X-Job-Id": str(job_id)}


async def _shown(tx: Tx, call: Call) -> dict[str, Any]:
    job = await jobs.read(tx, call.job_id)
    if job is None:
        raise NotFound("Job not found")
    return views.created_object(call, job)


def _own(caller: Caller, body: CreateAndCallIn) -> Key:
    """The key, where the body names its team."""
    if body.team_id != caller.team.team_id:
        raise Forbidden(f"API key does not belong to team '{body.team_id}'")
    return caller.team


def _position(given: str | None) -> int:
    if given is None:
        return 0
    if not NUMBER.fullmatch(given):
        raise BadRequest("Invalid Last-Event-ID")
    return int(given)
