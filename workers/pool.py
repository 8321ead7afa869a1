"""A bounded pool of tasks on the event loop, filled from Dramatiq's threads: the actor waits for room, claims, returns.

Room = fewer tasks than the limit and a loop that is not late: the limit bounds memory, the lag bounds CPU. A pool
with a pace takes rows no faster than that, so that the lag already shows what one row costs before the next is taken.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from shared import log
from shared.ids import Fence

logger = log.get(__name__)

LATE_S = 0.030
TICK_S = 0.020
CUT_S = 5.0
"""How long a drain waits for what it cut."""


class Row(Protocol):
    """What is run: a claimed row."""

    @property
    def fence(self) -> Fence:
        """Who may close it."""


Item = TypeVar("Item", bound=Row)


class LoopLag:
    """How late the event loop runs its timers; ticks only while somebody works."""

    def __init__(self) -> None:
        self._watched: list[Callable[[], bool]] = []
        self._due = 0.0
        self._late_s = 0.0
        self._ticker: asyncio.Task[None] | None = None

    def seconds(self) -> float:
        """The lag now; callable from any thread."""
        overdue = time.monotonic() - self._due if self._ticker is not None else 0.0
        return max(self._late_s, overdue)

    def watch(self, busy: Callable[[], bool]) -> None:
        """Tick on the running loop for as long as this `busy`, or that of another who shares it, says so."""
        if busy not in self._watched:
            self._watched.append(busy)
        if self._ticker is None:
            self._due = time.monotonic() + TICK_S
            self._ticker = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        while any(busy() for busy in self._watched):
            self._due = time.monotonic() + TICK_S
            await asyncio.sleep(TICK_S)
            self._late_s = max(0.0, time.monotonic() - self._due)
        self._watched.clear()
        self._ticker, self._late_s = None, 0.0


class Pool(Generic[Item]):
    """Runs claimed rows. `claim` and `run` are coroutines on the loop; `reserve` and `has_room` are for threads.

    claim: takes ids and tells its second argument of each row the moment it is won.
    pace_s: how long after each row another one may be taken.
    """

    def __init__(
        self,
        *,
        limit: int,
        lag: LoopLag,
        claim: Callable[[Sequence[UUID], Callable[[Item], None]], Awaitable[object]],
        run: Callable[[Item], Awaitable[None]],
        pace_s: float = 0.0,
    ) -> None:
        self._limit = limit
        self._lag = lag
        self._claim = claim
        self._run = run
        self._used = 0
        self._pace_s = pace_s
        self._free_from = 0.0
        self._open = True
        self._room = threading.Condition()
        self._claims: set[asyncio.Future[Any]] = set()
        self.tasks: dict[Fence, asyncio.Task[None]] = {}

    def has_room(self) -> bool:
        """Whether a bell should be fetched at all."""
        return self._open and self._takes()

    def reserve(self, slots: int) -> bool:
        """Wait for room and take it. False once the door is closed: the bell belongs back on the queue."""
        with self._room:
            while self._open and not self._takes():
                self._room.wait(timeout=TICK_S if self._used < self._limit else 1.0)
            if self._open:
                self._used += slots
                self._free_from = time.monotonic() + slots * self._pace_s
            return self._open

    async def take(self, ids: Sequence[UUID]) -> None:
        """Claim reserved rows, start each when it is won; slots of rows that others have are given back."""
        left = len(ids)

        def start(row: Item) -> None:
            nonlocal left
            left -= 1
            self.tasks[row.fence] = asyncio.create_task(self._guarded(row))
            self._lag.watch(self._is_busy)

        claim = asyncio.ensure_future(self._claim(ids, start))
        self._claims.add(claim)
        try:
            await claim
        finally:
            self._claims.discard(claim)
            self._release(left)

    def close_door(self) -> None:
        """Take nothing more and send waiting threads home."""
        with self._room:
            self._open = False
            self._room.notify_all()

    async def drain(self, grace_s: float, cut: Callable[[Fence], None]) -> int:
        """Wait for the tasks, also those that claims under way bring; after grace_s `cut` each that is left.

        Returns how many were cut.
        """
        until = time.monotonic() + grace_s
        while (under_way := self._under_way()) and (left_s := until - time.monotonic()) > 0:
            await asyncio.wait(under_way, timeout=left_s)
        was_cut: set[Fence] = set()
        until = time.monotonic() + CUT_S
        while (under_way := self._under_way()) and (left_s := until - time.monotonic()) > 0:
            for fence in self.tasks.keys() - was_cut:
                was_cut.add(fence)
                cut(fence)
            await asyncio.wait(under_way, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        return len(was_cut)

    def _under_way(self) -> set[asyncio.Future[Any]]:
        return {*self.tasks.values(), *self._claims}

    async def _guarded(self, row: Item) -> None:
        try:
            await self._run(row)
        except Exception:
            logger.exception("task_failed", id=str(row.fence[0]))
        finally:
            self.tasks.pop(row.fence, None)
            self._release(1)

    def _is_busy(self) -> bool:
        return bool(self.tasks)

    def _takes(self) -> bool:
        return self._used < self._limit and self._lag.seconds() < LATE_S and time.monotonic() >= self._free_from

    def _release(self, slots: int) -> None:
        with self._room:
            self._used -= slots
            self._room.notify_all()
