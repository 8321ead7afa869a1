"""Who waits for the lines of a batch: one look at Postgres per process for all batches that are followed.

Postgres -> how many lines of each batch have ended -> its followers, who then read what they lack, page by page

A line's number says how many ended before it, so the count of a batch is all there is to know. Followers who are level
with each other share the read of a page; nobody's slowness costs another follower.
"""

import asyncio
from dataclasses import dataclass
from uuid import UUID

from api.waiting import woken
from shared import batch_output, batch_results, log, tasks
from shared.batch_results import Progress
from shared.db import Database

logger = log.get(__name__)

LOOK_EVERY_S = 0.4
DOWN_S = 1.0
MOST_LINES = 100
MOST_BYTES = 128 * 1024
"""Of answers in a page, as they are stored: what one client that reads slowly holds. One answer may be longer."""
READ_AT_ONCE = 3
"""Pages that are read at a time: the process has few connections, and other work."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """Lines as they are sent. last: the number of the last one; 0 where there is none."""

    text: bytes
    last: int


class LineFollower:
    """One who waits for the lines of a batch that end after those he has."""

    def __init__(self, watch: "LineWatch", batch_id: UUID, known: Progress) -> None:
        self.batch_id = batch_id
        self.progress = known
        self._watch = watch
        self._woken = asyncio.Event()

    @property
    def is_over(self) -> bool:
        """Whether this process is closing."""
        return self._watch.is_closed

    async def wait(self, timeout_s: float) -> None:
        """Until more is known, `wake`, or this time has passed."""
        await woken(self._woken, 0 if self.is_over else timeout_s)

    async def page(self, after: int, limit: int = MOST_LINES) -> Page:
        """The lines after this number. Raises what the database raises."""
        return await self._watch.page(self.batch_id, after, min(limit, MOST_LINES))

    def tell(self, progress: Progress) -> None:
        """How far the batch is by now."""
        if progress != self.progress:
            self.progress = progress
            self._woken.set()

    def wake(self) -> None:
        """Let `wait` return."""
        self._woken.set()

    def leave(self) -> None:
        """Follow no more."""
        self._watch.forget(self)


class LineWatch:
    """All followers of a process, and the one look at their batches. look_every_s: while somebody follows."""

    def __init__(self, db: Database, *, look_every_s: float = LOOK_EVERY_S) -> None:
        self.turn = asyncio.Semaphore(READ_AT_ONCE)
        self.is_closed = False
        self._db = db
        self._look_every_s = look_every_s
        self._followers: dict[UUID, set[LineFollower]] = {}
        self._any = asyncio.Event()
        self._reads: dict[tuple[UUID, int, int], asyncio.Task[Page]] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def following(self) -> int:
        """How many follow a batch."""
        return sum(len(followers) for followers in self._followers.values())

    async def open(self) -> None:
        """Start looking, as soon as somebody follows."""
        self._task = asyncio.create_task(self._run(), name="line_watch")

    async def close(self) -> None:
        """Stop looking, and let everybody go."""
        self.is_closed = True
        for followers in self._followers.values():
            for follower in followers:
                follower.wake()
        if self._task is not None:
            await tasks.end([self._task])

    def reader(self, batch_id: UUID, known: Progress) -> LineFollower:
        """One who reads the lines that there are, and is told of no others."""
        return LineFollower(self, batch_id, known)

    def follow(self, batch_id: UUID, known: Progress) -> LineFollower:
        """Follow a batch that was so far a moment ago; the follower leaves in the end."""
        follower = LineFollower(self, batch_id, known)
        self._followers.setdefault(batch_id, set()).add(follower)
        self._any.set()
        return follower

    def forget(self, follower: LineFollower) -> None:
        """Look no more for this one."""
        followers = self._followers.get(follower.batch_id, set())
        followers.discard(follower)
        if not followers:
            self._followers.pop(follower.batch_id, None)

    async def page(self, batch_id: UUID, after: int, limit: int) -> Page:
        """The lines after a number, read once for all who ask for them at a time."""
        key = (batch_id, after, limit)
        reading = self._reads.get(key)
        if reading is None:
            reading = self._reads[key] = asyncio.create_task(self._read(*key))
            reading.add_done_callback(lambda _: self._reads.pop(key))
        # Whoever asked first may leave before the others.
        return await asyncio.shield(reading)

    async def _read(self, batch_id: UUID, after: int, limit: int) -> Page:
        async with self.turn:
            async with self._db.hot_statement() as tx:
                found = await batch_results.page(tx, batch_id, after, limit=limit, most_bytes=MOST_BYTES)
            text = b"".join([text async for _, text in batch_output.written(found)])
        return Page(text=text, last=found[-1].ended_number if found else 0)

    async def _run(self) -> None:
        while True:
            await self._any.wait()
            if not self._followers:
                self._any.clear()
                continue
            try:
                await self._look()
            except Exception as error:  # noqa: BLE001 - the next look tries again
                logger.warning("line_look_failed", error=type(error).__name__)
                await asyncio.sleep(DOWN_S)
            else:
                await asyncio.sleep(self._look_every_s)

    async def _look(self) -> None:
        asked = list(self._followers)
        async with self._db.hot_statement() as tx:
            found = await batch_results.progress(tx, asked)
        for batch_id, progress in found.items():
            for follower in self._followers.get(batch_id, ()):
                follower.tell(progress)
