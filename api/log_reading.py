"""Reading a team's event log for one request: a page, a page that is waited for, or a stream."""

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, replace

import orjson
from starlette.requests import Request
from starlette.responses import Response

from api import prefer
from api.desk import Desk
from api.log_stream import LogStream
from api.log_waiting import LogFollower
from api.replies import JSON
from api.wire.events import JOB_ENDS
from shared import clock, event_log, ids
from shared.db import Tx
from shared.errors import BadRequest, Gone
from shared.event_log import START, Entry, Filter, Lost, Place, Slice
from shared.runtime import Runtime
from shared.states import FINAL_BATCHES

STREAM_READ = 100
"""Events that a stream reads at a time while it catches up."""
LAST_OF_JOB = tuple(f"job.{end}" for end in JOB_ENDS)
LAST_OF_BATCH = tuple(f"batch.{end}" for end in FINAL_BATCHES)
"""Of a batch's job the last event is the batch's: its files are written after the job has ended."""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Reads a team's log as one request wants it."""

    rt: Runtime
    team_id: str
    wanted: Filter
    limit: int

    async def start(self, tx: Tx, after: str | None) -> Place:
        """Where a cursor is. Raises BadRequest, Gone."""
        if after is None:
            return START
        id_ = ids.parse_prefixed("evt", after)
        if id_ is None:
            raise BadRequest("Invalid cursor")
        found = await event_log.find(tx, self.team_id, id_, days=self.rt.settings.event_retention_days)
        if isinstance(found, Lost):
            raise Gone("Cursor expired") if found.expired else BadRequest("Invalid cursor")
        return found

    async def read(self, tx: Tx, place: Place) -> Slice:
        """The page behind a place."""
        days = self.rt.settings.delivery_retention_days
        return await event_log.page(tx, self.team_id, place, self.wanted, self.limit, delivery_days=days)

    async def again(self, place: Place) -> Slice:
        """The same, on a connection of its own."""
        async with self.rt.db.hot_statement() as tx:
            return await self.read(tx, place)


@asynccontextmanager
async def statement(rt: Runtime, desk: Desk, *, streams: bool) -> AsyncIterator[Tx]:
    """A connection for what a request reads first. Streams take turns: they come all at once when a process ended."""
    async with desk.log.turn if streams else nullcontext(), rt.db.hot_statement() as tx:
        yield tx


async def held(desk: Desk, reader: Reader, request: Request, wait_s: float | None, found: Slice) -> Response:
    """The page; an empty one at the end of the log is held until something comes or the client's time is up."""
    wish = prefer.preference(request, wait_s)
    if wish.wait_s and not found.entries and not found.has_more:
        found = await _waited_for(desk, reader, found, wish.wait_s)
    return page(found, wish.headers)


def page(found: Slice, headers: Mapping[str, str] | None = None) -> Response:
    """A page of the log; its events are the bytes that every reader gets."""
    end = found.end.id
    body = {
        "events": [orjson.Fragment(entry.body) for entry in found.entries],
        "next_after": None if end is None else ids.prefixed("evt", end),
        "has_more": found.has_more,
    }
    return JSON(body, headers=headers)


async def streamed(desk: Desk, reader: Reader, place: Place) -> Response:
    """The log as it comes. Raises what refuses the request."""
    follower = desk.log.follow(reader.team_id, reader.wanted, place, reader.again)
    return LogStream(follower, await _first(follower), desk.pace)


async def job_streamed(desk: Desk, reader: Reader, place: Place, *, last: Collection[str], is_final: bool) -> Response:
    """The events of a job until its final one, or 204 where nothing is left to tell. Raises what refuses the request.

    last: the types of which its final event is one. is_final: that was recorded before the log is read.
    """
    told = reader.wanted
    # The final event ends the stream, whether the client wants to hear of it or not.
    types = None if told.types is None else [*told.types, *last]
    reader = replace(reader, wanted=replace(told, types=types, since=None))
    follower = desk.log.follow(reader.team_id, reader.wanted, place, reader.again)
    first = await _first(follower)
    if is_final and not follower.is_behind and not any(map(told.takes, first)):
        follower.leave()
        return Response(status_code=204)
    return LogStream(follower, first, desk.pace, is_told=told.takes, is_last=lambda entry: entry.type in last)


async def _waited_for(desk: Desk, reader: Reader, found: Slice, wait_s: float) -> Slice:
    until = clock.monotonic() + wait_s
    follower = desk.log.follow(reader.team_id, reader.wanted, found.end, reader.again)
    try:
        while not found.entries and not found.has_more:
            left_s = until - clock.monotonic()
            if left_s <= 0 or follower.is_over:
                break
            if await follower.take(left_s):
                found = await reader.again(found.end)
    finally:
        follower.leave()
    return found


async def _first(follower: LogFollower) -> list[Entry]:
    try:
        return await follower.take(0)
    except BaseException:
        follower.leave()
        raise
