"""What one api process keeps open: group-committed intake and the waiters."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from api.waiting import Waiters
from shared.db import one_to_blame
from shared.group_commit import GroupCommit
from shared.intake import Accepted, Submission, accept
from shared.runtime import Runtime


@dataclass(frozen=True, kw_only=True)
class Desk:
    """Handlers take it as `desk`."""

    intake: GroupCommit[Submission, Accepted]
    waiters: Waiters


@asynccontextmanager
async def open_desk(rt: Runtime) -> AsyncIterator[Desk]:
    """Open it on a runtime, close it at the end."""
    desk = Desk(
        intake=GroupCommit(lambda group: accept(rt, group), alone=one_to_blame),
        waiters=Waiters(rt.db, rt.redis),
    )
    await desk.waiters.open()
    try:
        yield desk
    finally:
        await desk.waiters.close()
