"""The delivery loop of a worker unit: takes queues in turns, claims for many at once, and never lets slow ones fill it.

bell ──► rung ──► turns (quick | slow) ──► claim ──► one task per delivery ──► recorded ──┐
                    ▲                                                                     │
                    └──────────── has more, or a slot is free again ◄─────────────────────┘
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from shared import clock, delivery_queues, log
from shared.db import is_down
from shared.deliveries import Delivery
from shared.delivery_queues import Known
from shared.runtime import Runtime
from workers import claims, webhooks
from workers.pool import Fence
from workers.turns import Turns
from workers.webhooks import Deliverer

logger = log.get(__name__)

QUANTUM = 4
"""Most deliveries of a queue per turn."""
MOST_QUEUES = 64
"""Per claim."""
SLOW_S = 1.0
"""A queue whose attempts take longer is slow; so is, until its first attempt here ends, one whose last failed."""
WEIGHT = 0.3
"""Of the newest attempt in what a queue's attempts typically take."""
PAUSE_S = 0.5
MOST_LINES = 50_000


@dataclass(slots=True)
class Line:
    """A queue as this unit knows it. waits: it may have more, to be looked at when one of its attempts ends.

    alarm: when it is looked at again by itself; one at a time, however often it is rung meanwhile.
    """

    id: UUID
    team_id: str
    is_slow: bool
    typical_s: float = 0.0
    in_flight: int = 0
    waits: bool = False
    alarm: asyncio.TimerHandle | None = None


class DeliveryLoop:
    """Delivers what is due in queues that are rung. `has_room` and `reserve` are for threads, the rest for the loop."""

    def __init__(self, rt: Runtime, by: Deliverer, worker: str) -> None:
        self._rt = rt
        self._by = by
        self._worker = worker
        self._limit = rt.settings.deliveries_in_flight
        self._lines: dict[UUID, Line] = {}
        self._rung: set[UUID] = set()
        self._quick, self._slow = Turns(), Turns()
        self._slow_in_flight = 0
        self._begun: dict[Fence, tuple[Line, float]] = {}
        self._open = True
        self._runner: asyncio.Task[None] | None = None
        self.tasks: dict[Fence, asyncio.Task[None]] = {}

    def has_room(self) -> bool:
        """Whether a bell should be fetched at all."""
        return self._open and len(self.tasks) < self._limit

    def reserve(self, _: int) -> bool:
        """False once the door is closed: the bell belongs back on the queue."""
        return self._open

    async def take(self, queue_ids: Sequence[UUID]) -> None:
        """Have these queues looked at."""
        self._rung.update(queue_ids)
        self._go()

    def close_door(self) -> None:
        """Claim nothing more."""
        self._open = False

    async def drain(self, grace_s: float, cut: Callable[[Fence], None]) -> int:
        """Wait for what is under way; after grace_s `cut` and stop each that is left. Returns how many were cut."""
        until = clock.monotonic() + grace_s
        while self._under_way() and clock.monotonic() < until:
            await asyncio.wait(self._under_way(), timeout=until - clock.monotonic())
        left = dict(self.tasks)
        for fence, task in left.items():
            cut(fence)
            task.cancel()
        if left:
            await asyncio.wait(left.values(), timeout=1)
        return len(left)

    def _under_way(self) -> set[asyncio.Task[None]]:
        """Attempts, and a claim that may begin some more."""
        claiming = {self._runner} if self._runner is not None and not self._runner.done() else set()
        return claiming | set(self.tasks.values())

    def _go(self) -> None:
        if self._open and (self._runner is None or self._runner.done()):
            self._runner = asyncio.create_task(self._run())

    async def _run(self) -> None:
        """Claim for as long as there is room and somebody's turn; whatever changes either calls `_go` again."""
        while self._open and (self._rung or self._quick or self._slow):
            try:
                await self._line_up()
                picked = self._picked()
                if picked:
                    await self._claim(picked)
                elif not self._rung:
                    return
            except Exception as error:
                if is_down(error):
                    logger.warning("deliveries_wait_for_database", error=type(error).__name__)
                else:
                    logger.exception("delivery_claim_failed")
                await asyncio.sleep(PAUSE_S)

    async def _line_up(self) -> None:
        """Give the queues that were rung their place among the turns."""
        rung, self._rung = self._rung, set()
        unknown = [id_ for id_ in rung if id_ not in self._lines]
        if unknown:
            try:
                async with self._rt.db.hot_statement() as tx:
                    found = await delivery_queues.ensure(tx, unknown)
            except BaseException:
                self._rung |= rung
                raise
            for known in found:
                self._know(known)
        for id_ in rung:
            self._ready(id_)

    def _know(self, known: Known) -> None:
        if len(self._lines) >= MOST_LINES:
            self._lines = {id_: line for id_, line in self._lines.items() if line.in_flight}
        if known.id not in self._lines:
            self._lines[known.id] = Line(id=known.id, team_id=known.team_id, is_slow=known.is_failing)

    def _ready(self, id_: UUID) -> None:
        line = self._lines.get(id_)
        if line is not None:
            (self._slow if line.is_slow else self._quick).add(line.team_id, id_)

    def _picked(self) -> dict[UUID, int]:
        """Whose turn it is, and how many each may have. Slow queues get half of the room at most."""
        self._find_slow()
        picked: dict[UUID, int] = {}
        room = self._pick(picked, self._quick, self._limit - len(self.tasks), is_slow=False)
        self._pick(picked, self._slow, min(room, self._limit // 2 - self._slow_in_flight), is_slow=True)
        return picked

    def _pick(self, picked: dict[UUID, int], turns: Turns, room: int, *, is_slow: bool) -> int:
        """Add the next MOST_QUEUES to `picked`; the room that is left. What is slow now, or no more, changes over."""
        for _ in range(MOST_QUEUES):
            id_ = turns.next() if room > 0 else None
            if id_ is None:
                break
            line = self._lines.get(id_)
            if line is None:
                self._rung.add(id_)
            elif line.is_slow != is_slow:
                self._ready(id_)
            elif id_ not in picked:
                picked[id_] = min(QUANTUM, room)
                room -= picked[id_]
        return room

    def _find_slow(self) -> None:
        """A queue is slow as soon as one of its attempts is: nobody waits for its timeout to learn that."""
        now = clock.monotonic()
        for line, begun in self._begun.values():
            if now - begun < SLOW_S:
                return
            if not line.is_slow:
                line.typical_s = max(line.typical_s, now - begun)
                self._mark(line, is_slow=True)

    def _mark(self, line: Line, *, is_slow: bool) -> None:
        if line.is_slow != is_slow:
            line.is_slow = is_slow
            self._slow_in_flight += line.in_flight if is_slow else -line.in_flight

    async def _claim(self, picked: dict[UUID, int]) -> None:
        for id_ in picked:
            self._lines[id_].waits = False
        try:
            claim = await claims.claim(self._rt, picked, self._worker)
        except BaseException:
            self._rung.update(picked)
            raise
        for delivery in claim.deliveries:
            self._start(delivery)
        for id_, wait_s in claim.again.items():
            line = self._lines[id_]
            if wait_s is None:
                line.waits = line.in_flight > 0
            elif wait_s == 0:
                self._ready(id_)
            else:
                if line.alarm is not None:
                    line.alarm.cancel()
                line.alarm = asyncio.get_running_loop().call_later(wait_s, self._ring_again, id_)

    def _ring_again(self, id_: UUID) -> None:
        self._rung.add(id_)
        self._go()

    def _start(self, delivery: Delivery) -> None:
        line = self._lines[delivery.queue_id]
        line.in_flight += 1
        self._slow_in_flight += line.is_slow
        self._begun[delivery.fence] = (line, clock.monotonic())
        self.tasks[delivery.fence] = asyncio.create_task(self._guarded(delivery, line))

    async def _guarded(self, delivery: Delivery, line: Line) -> None:
        try:
            await webhooks.deliver(self._by, delivery)
        except Exception:
            logger.exception("delivery_failed", delivery_id=str(delivery.id))
        finally:
            self._end(delivery.fence, line)

    def _end(self, fence: Fence, line: Line) -> None:
        _, begun = self._begun.pop(fence)
        del self.tasks[fence]
        line.in_flight -= 1
        self._slow_in_flight -= line.is_slow
        line.typical_s += WEIGHT * (clock.monotonic() - begun - line.typical_s)
        self._mark(line, is_slow=line.typical_s > SLOW_S)
        if line.waits:
            line.waits = False
            self._ready(line.id)
        if self._rung or self._quick or self._slow:
            self._go()
