"""Whether new work is taken: not while this process ends, and not while the workers are far behind.

The queue is looked at once a second, beside the requests: none of them waits for it.
"""

import asyncio
import math

from redis.exceptions import RedisError

from shared import clock, log, tasks, waiting_calls
from shared.db import DatabaseDown
from shared.errors import Unavailable
from shared.runtime import Runtime

logger = log.get(__name__)

LOOK_S = 1.0
MOST_RETRY_AFTER_S = 60


class Door:
    """age_s: for how long the oldest call has lacked nothing but a worker, as last seen.

    Time in which this process saw Redis or Postgres down does not count, nor does the time before it started: until the
    bells have been rung again nobody knows whether workers are behind.
    """

    def __init__(self, rt: Runtime) -> None:
        self._rt = rt
        self._task: asyncio.Task[None] | None = None
        self._counts_from = clock.monotonic()
        self.is_closed = False
        self.age_s = 0.0

    async def open(self) -> None:
        """Start looking."""
        self._counts_from = clock.monotonic()
        self._task = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Take no more work."""
        self.is_closed = True
        if self._task is not None:
            await tasks.end([self._task])

    @property
    def is_backlogged(self) -> bool:
        """Whether the oldest call has waited too long for a worker."""
        return self.age_s > self._rt.settings.max_queue_age_s

    @property
    def retry_after_s(self) -> int:
        """How long the oldest call has waited beyond the limit: by so much the workers have to catch up."""
        return _bounded(self.age_s - self._rt.settings.max_queue_age_s)

    @property
    def wait_s(self) -> int:
        """For how long calls wait for a worker now, at least a second: when it makes sense to ask again."""
        return _bounded(self.age_s)

    def check(self) -> None:
        """Raises Unavailable when no new work is taken."""
        if self.is_closed:
            raise Unavailable
        if self.is_backlogged:
            raise Unavailable(retry_after_s=self.retry_after_s)

    async def look(self) -> None:
        """See how old the oldest call is that lacks a worker."""
        try:
            async with asyncio.timeout(LOOK_S):
                await self._rt.redis.ping()
            async with self._rt.db.hot_statement() as tx:
                waited_s = await waiting_calls.lacking_a_worker_s(tx)
        except (RedisError, OSError, TimeoutError, *DatabaseDown):
            self._counts_from, self.age_s = clock.monotonic(), 0.0
        else:
            self.age_s = min(waited_s, clock.monotonic() - self._counts_from)

    async def _watch(self) -> None:
        was = False
        while True:
            try:
                await self.look()
            except Exception:
                logger.exception("door_cannot_look")
            if was != self.is_backlogged:
                was = self.is_backlogged
                logger.warning("backlog", begins=was, oldest_s=round(self.age_s))
            await asyncio.sleep(LOOK_S)


def _bounded(seconds: float) -> int:
    return max(1, min(MOST_RETRY_AFTER_S, math.ceil(seconds)))
