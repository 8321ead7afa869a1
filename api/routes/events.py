"""The event log: pages of a team's or a job's events, the same as a stream, and what an endpoint has missed."""

from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from api import log_reading
from api.access import find_job
from api.accounts import team_asked
from api.auth import Caller
from api.desk import Desk
from api.fields import job_id_at
from api.http import endpoint
from api.lists import MILLISECOND
from api.log_reading import STREAM_READ, Reader
from api.once import Once
from api.replies import JSON
from api.team_objects import find_team
from api.webhook_access import find_endpoint
from api.wire.event_log import CursorQuery, EventPageOut, EventsQuery, JobEventsQuery
from api.wire.events import EventOut
from api.wire.media import EVENTS
from shared import batches, event_log, event_types, ids
from shared.db import Tx
from shared.errors import BadRequest, Forbidden, Invalid, NotFound
from shared.event_log import Entry, Filter
from shared.jobs import JobView
from shared.runtime import Runtime


@endpoint("any", answers=(EventPageOut, EVENTS))
async def list_events(rt: Runtime, desk: Desk, caller: Caller, request: Request, query: EventsQuery) -> Response:
    """A team's events, oldest first, behind a cursor that misses none; with `Accept: text/event-stream` as they come.

    A page may be short, or empty, and say that there is more; the next one starts at `next_after`.
    """
    team_id = team_asked(caller, query.team_id)
    if not caller.may_see(team_id):
        raise Forbidden(f"API key does not belong to team '{team_id}'")
    streams = _wants_stream(request)
    if streams and (query.delivered is not None or query.until is not None):
        raise _not_streamed("until" if query.delivered is None else "delivered")
    wanted = _wanted(query, job_id=job_id_at("query", query.job_id))
    async with log_reading.statement(rt, desk, streams=streams) as tx:
        if caller.is_admin:
            await find_team(tx, team_id)
        if query.delivered is not None or query.webhook_id is not None:
            wanted = await _undelivered(tx, caller, team_id, query, wanted)
        reader = Reader(rt=rt, team_id=team_id, wanted=wanted, limit=STREAM_READ if streams else query.limit)
        place = await reader.start(tx, _cursor(request, query) if streams else query.after)
        found = None if streams else await reader.read(tx, place)
    if found is None:
        return await log_reading.streamed(desk, reader, place)
    return await log_reading.held(desk, reader, request, query.wait_s, found)


@endpoint("any", answers=EventOut)
async def get_event(rt: Runtime, caller: Caller, event_id: str) -> Response:
    """One event, as every reader got it."""
    return JSON((await _find(rt, caller, event_id)).body.encode())


async def _find(rt: Runtime, caller: Caller, event_id: str) -> Entry:
    """The event, when the caller may see it. Raises NotFound, Forbidden."""
    id_ = ids.parse_prefixed("evt", event_id)
    async with rt.db.hot_statement() as tx:
        found = None if id_ is None else await event_log.get(tx, id_)
    if found is None:
        raise NotFound("Event not found")
    if not caller.may_see(found.team_id):
        raise Forbidden("Event does not belong to your team")
    return found


@endpoint("any", answers=EventOut)
async def expunge_event(rt: Runtime, caller: Caller, event_id: str, once: Once) -> Response:  # noqa: ARG001
    """Empty what is stored of an event; documented, not supported yet."""
    await _find(rt, caller, event_id)
    raise Invalid.not_supported_yet("path", "expunge")


@endpoint("any", answers={200: (EventPageOut, EVENTS), 204: None})
async def list_job_events(
    rt: Runtime, desk: Desk, caller: Caller, request: Request, job_id: str, query: JobEventsQuery
) -> Response:
    """A job's events, oldest first; with `Accept: text/event-stream` as they come, until the job has ended.

    Of a batch the last event is `batch.completed`, `batch.failed`, `batch.expired` or `batch.cancelled`.

    204: the client has the final event, and should not connect again.
    """
    streams = _wants_stream(request)
    if streams and query.until is not None:
        raise _not_streamed("until")
    wanted = _wanted(query)
    async with log_reading.statement(rt, desk, streams=streams) as tx:
        job = await find_job(tx, caller, job_id)
        reader = Reader(
            rt=rt,
            team_id=job.team_id,
            wanted=replace(wanted, job_id=job.id),
            limit=STREAM_READ if streams else query.limit,
        )
        place = await reader.start(tx, _cursor(request, query) if streams else query.after)
        found = None if streams else await reader.read(tx, place)
        if found is None:
            last, is_final = await _end_of(tx, job)
    if found is None:
        return await log_reading.job_streamed(desk, reader, place, last=last, is_final=is_final)
    return await log_reading.held(desk, reader, request, query.wait_s, found)


async def _end_of(tx: Tx, job: JobView) -> tuple[Collection[str], bool]:
    """With which events a job's stream ends, and whether one of them is recorded."""
    batch = await batches.read(tx, job.id) if job.is_batch else None
    if batch is None:
        return log_reading.LAST_OF_JOB, job.is_final
    return log_reading.LAST_OF_BATCH, batch.is_final


@endpoint("any", answers=EventPageOut)
async def list_missed(rt: Runtime, caller: Caller, webhook_id: str, query: CursorQuery) -> Response:
    """What a webhook endpoint wants and has not acknowledged, oldest first; without `since` from its creation on."""
    async with rt.db.hot_statement() as tx:
        webhook = await find_endpoint(tx, caller, webhook_id)
        wanted = Filter(since=query.since_at, undelivered=True, endpoint_id=webhook.id)
        reader = Reader(rt=rt, team_id=webhook.team_id, wanted=wanted, limit=query.limit)
        place = await reader.start(tx, query.after)
        return log_reading.page(await reader.read(tx, place))


def _wanted(query: JobEventsQuery, job_id: UUID | None = None) -> Filter:
    """The filters of a query. Raises BadRequest."""
    until = query.until_at
    return Filter(
        types=_types(query.types),
        job_id=job_id,
        since=query.since_at,
        # Times are shown in milliseconds: the end takes in all that is shown as equal to it.
        until=None if until is None else until + MILLISECOND - timedelta(microseconds=1),
    )


def _types(text: str | None) -> list[str] | None:
    names = [name for part in (text or "").split(",") if (name := part.strip())]
    unknown = event_types.unknown(names)
    if unknown is not None:
        raise BadRequest(f"Unknown event type: {unknown}")
    return event_types.matching(names) if names else None


async def _undelivered(tx: Tx, caller: Caller, team_id: str, query: EventsQuery, wanted: Filter) -> Filter:
    """With the condition on deliveries. Raises Invalid, NotFound, Forbidden."""
    if query.delivered is not False:
        raise Invalid.at(["query", "delivered"], "Input should be false", "value_error.delivered")
    if query.webhook_id is None:
        return replace(wanted, undelivered=True)
    webhook = await find_endpoint(tx, caller, query.webhook_id)
    if webhook.team_id != team_id:
        raise NotFound("Webhook not found")
    return replace(wanted, undelivered=True, endpoint_id=webhook.id)


def _not_streamed(field: str) -> Invalid:
    return Invalid.at(["query", field], "not for a stream", "value_error.stream")


def _cursor(request: Request, query: CursorQuery) -> str | None:
    """Of a stream: the last event the client has, else where it wants to begin."""
    return request.headers.get("last-event-id") or query.after


def _wants_stream(request: Request) -> bool:
    """Whether the client would rather have events as they come than a JSON page."""
    wishes: dict[str, float] = {}
    for part in ",".join(request.headers.getlist("accept")).split(","):
        media_type, *parameters = (word.strip().lower() for word in part.split(";"))
        weights = [word.removeprefix("q=") for word in parameters if word.startswith("q=")]
        try:
            wishes[media_type] = float(weights[0]) if weights else 1.0
        except ValueError:
            continue
    return wishes.get(EVENTS.type, 0.0) > 0 and wishes[EVENTS.type] >= wishes.get("application/json", 0.0)
