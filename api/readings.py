"""What /metrics reads of Postgres and Redis: part by part, once for all who ask at a time, and only when somebody does.

A part that cannot be read, or not in time, is lacking; the others are there all the same.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from prometheus_client.metrics_core import Metric
from redis.exceptions import RedisError

from api import metric_families as families
from shared import clock, log, redis_keys, tasks
from shared.db import Tx, hot, is_down, ran_out_of_time
from shared.messages import Deliver, RunCalls, RunLines, TendBatches
from shared.runtime import Runtime

logger = log.get(__name__)

ANSWER_S = 2.5
"""A scrape waits no longer; what is read later is there for the next one, if it is not too old by then."""
GAUGES_S = 5.0
USAGE_S = 60.0
"""For so long a part is not read again. Usage reads a whole table."""
PROBE_S = 2.0

QUEUES = (RunCalls.queue, RunLines.queue, TendBatches.queue, Deliver.queue)

Read = Callable[[], Awaitable[Sequence[Metric]]]


class Part:
    """One thing that is read, and what was found when it was read last."""

    def __init__(self, name: str, read: Read, keep_s: float = GAUGES_S) -> None:
        self.name = name
        self._read = read
        self._keep_s = keep_s
        self._until = 0.0
        self.found: Sequence[Metric] | None = None
        """What the last reading brought; None: it failed."""
        self.task: asyncio.Task[None] | None = None

    def begin(self) -> "asyncio.Task[None] | None":
        """The reading that is to be waited for, begun unless it is under way; None: it was read just now."""
        if self.task is None and clock.monotonic() >= self._until:
            self.task = asyncio.create_task(self._look(), name=f"metrics_{self.name}")
        return self.task

    async def _look(self) -> None:
        keep_s = GAUGES_S
        try:
            self.found = await self._read()
            keep_s = self._keep_s
        except Exception as error:  # noqa: BLE001 - one part must not hide the others
            self.found = None
            _complain(self.name, error)
            # What takes too long is not asked again with each scrape.
            keep_s = self._keep_s if ran_out_of_time(error) else GAUGES_S
        finally:
            self._until = clock.monotonic() + keep_s
            self.task = None


class Readings:
    """Of one process. Its statements run one after the other: all scrapes together are one user of Postgres.

    answer_s: for so long at most a scrape waits. usage_s: for so long usage is not read again.
    """

    def __init__(self, rt: Runtime, *, answer_s: float = ANSWER_S, usage_s: float = USAGE_S) -> None:
        self._rt = rt
        self._answer_s = answer_s
        self._turn = asyncio.Lock()
        self._database = Part("database", self._probe)
        self._redis = Part("queues", self._queues)
        self._parts = (
            self._redis,
            Part("work", lambda: self._rows(families.of_work)),
            Part("webhooks", lambda: self._rows(families.of_webhooks)),
            Part("usage", lambda: self._rows(families.of_usage), usage_s),
        )

    async def now(self) -> list[Metric]:
        """All that can be had in time, and of each part whether it is there."""
        begun = {part: part.begin() for part in (self._database, *self._parts)}
        if under_way := [task for task in begun.values() if task is not None]:
            await asyncio.wait(under_way, timeout=self._answer_s)
        # One that was kept at the beginning counts, even if the others took so long that it is due again.
        found = {part: part.found if task is None or task.done() else None for part, task in begun.items()}
        standing = families.of_scrape(
            database=found.pop(self._database) is not None,
            redis=found[self._redis] is not None,
            parts={part.name: read is not None for part, read in found.items()},
        )
        return [*standing, *(family for read in found.values() for family in read or ())]

    async def close(self) -> None:
        """Read no more."""
        await tasks.end(part.task for part in (self._database, *self._parts) if part.task is not None)

    async def _probe(self) -> Sequence[Metric]:
        # Not in turn: a slow statement does not make the database a dead one.
        async with asyncio.timeout(PROBE_S), self._rt.db.hot_statement() as tx:
            await hot(tx, "select 1")
        return ()

    async def _rows(self, read: Callable[[Tx], Awaitable[Sequence[Metric]]]) -> Sequence[Metric]:
        async with self._turn, self._rt.db.hot_statement() as tx:
            return await read(tx)

    async def _queues(self) -> Sequence[Metric]:
        pipe = self._rt.redis.pipeline(transaction=False)
        for queue in QUEUES:
            pipe.llen(redis_keys.queue(queue))
            pipe.hlen(redis_keys.queue_messages(queue))
        async with asyncio.timeout(PROBE_S):
            found = await pipe.execute()
        return families.of_queues({queue: (found[2 * n], found[2 * n + 1]) for n, queue in enumerate(QUEUES)})


def _complain(part: str, error: Exception) -> None:
    if is_down(error) or isinstance(error, RedisError | OSError):
        logger.warning("metrics_part_failed", part=part, error=type(error).__name__)
    else:
        logger.error("metrics_part_failed", part=part, exc_info=error)
