"""What one api process keeps: door, group-committed intake, waiters, watches, uploads, streams, routes, readings."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import uuid4

from api.door import Door
from api.known_routes import KnownRoutes
from api.line_waiting import LineWatch
from api.log_waiting import LogWatch
from api.open_uploads import OpenUploads
from api.readings import Readings
from api.streams import Pace, Streams
from api.waiting import Waiters
from shared.intake import Accepted, Submission, accept
from shared.runtime import Runtime
from shared.team_commit import TeamCommit
from shared.team_queue import Depths


@dataclass(frozen=True, kw_only=True)
class Desk:
    """Handlers take it as `desk`."""

    door: Door
    intake: TeamCommit[Submission, Accepted]
    waiters: Waiters
    log: LogWatch
    lines: LineWatch
    routes: KnownRoutes
    streams: Streams
    pace: Pace
    uploads: OpenUploads
    readings: Readings


@asynccontextmanager
async def open_desk(rt: Runtime) -> AsyncIterator[Desk]:
    """Open it on a runtime, close it at the end."""
    depths = Depths()
    watch = LogWatch(rt.db)
    desk = Desk(
        door=Door(rt),
        intake=TeamCommit(lambda group, lock_s: accept(rt, group, depths, lock_s=lock_s), patient=rt.db.patient),
        waiters=Waiters(rt.db, rt.redis, heard=watch.look_soon),
        log=watch,
        lines=LineWatch(rt.db),
        routes=KnownRoutes(),
        streams=Streams(rt.redis, uuid4().hex),
        pace=Pace(),
        uploads=OpenUploads(),
        readings=Readings(rt),
    )
    await desk.door.open()
    await desk.waiters.open()
    await desk.log.open()
    await desk.lines.open()
    await desk.streams.open()
    try:
        yield desk
    finally:
        await desk.door.close()
        await desk.waiters.close()
        await desk.log.close()
        await desk.lines.close()
        await desk.streams.close()
        await desk.readings.close()
