"""The delivery loop of a worker unit: takes queues in turns, claims for many at once, and never lets slow ones fill it.

bell ──► rung ──► turns (by pace) ──► claim ──► one task per delivery ──► recorded ──┐
                    ▲                                                                     │
                    └──────────── has more, or a slot is free again ◄─────────────────────┘
"""

import asyncio
from collections.abc import Callable, Sequence
from uuid import UUID

from psycopg.errors import QueryCanceled

from shared import clock, delivery_queues, ids, log
from shared.db import is_down
from shared.deliveries import Delivery
from shared.delivery_queues import Known
from shared.ids import Fence
from shared.runtime import Runtime
from workers import delivery_claims, webhooks
from workers.delivery_room import KnownQueue, Pace, Room
from workers.queue_turns import QueueTurns
from workers.webhooks import Deliverer

logger = log.get(__name__)

QUANTUM = 4
"""Most deliveries of a queue per turn."""
MOST_QUEUES = 64
"""Per claim."""
MOST_UNKNOWN = 200
"""Queues seen for the first time that one statement asks for."""
SLOW_S = 1.0
"""A queue whose attempts take longer is slow."""
WEIGHT = 0.3
"""Of the newest attempt in what a queue's attempts typically take."""
PAUSE_S = 0.5
MOST_QUEUES_KNOWN = 50_000


class DeliveryLoop:
    """Delivers what is due in queues that are rung. `has_room` and `reserve` are for threads, the rest for the loop."""

    def __init__(self, rt: Runtime, by: Deliverer, worker: str) -> None:
        self._rt = rt
        self._by = by
        self._worker = worker
        self._room = Room(rt.settings.deliveries_in_flight)
        self._queues: dict[UUID, KnownQueue] = {}
        self._rung: set[UUID] = set()
        self._turns = {pace: QueueTurns() for pace in Pace}
        self._begun: dict[Fence, tuple[KnownQueue, float]] = {}
        self._open = True
        self._runner: asyncio.Task[None] | None = None
        self.tasks: dict[Fence, asyncio.Task[None]] = {}

    def has_room(self) -> bool:
        """Whether a bell should be fetched at all."""
        return self._open and len(self.tasks) < self._room.limit

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
        while self._open and self._has_more():
            try:
                await self._take_rung()
                picked = self._picked()
                if picked:
                    await self._claim(picked)
                elif not self._rung:
                    return
            except Exception as error:  # noqa: BLE001 - all of them are logged
                _log(error)
                await asyncio.sleep(PAUSE_S)

    async def _take_rung(self) -> None:
        """Give the queues that were rung their place among the turns; of many new ones some wait for the next time."""
        rung, self._rung = self._rung, set()
        unknown = []
        for id_ in rung:
            if id_ in self._queues:
                self._ready(id_)
            else:
                unknown.append(id_)
        asked, later = unknown[:MOST_UNKNOWN], unknown[MOST_UNKNOWN:]
        self._rung.update(later)
        if asked:
            await self._ask(asked)

    async def _ask(self, unknown: Sequence[UUID]) -> None:
        """Queues that are new here. That they cannot be asked for now holds none of those that are known."""
        try:
            async with self._rt.db.hot_statement() as tx:
                found = await delivery_queues.ensure(tx, unknown)
        except Exception as error:  # noqa: BLE001 - all of them are logged
            _log(error)
            asyncio.get_running_loop().call_later(PAUSE_S, self._ring_again, *unknown)
            return
        for known in found:
            self._know(known)
            self._ready(known.id)

    def _know(self, known: Known) -> None:
        if len(self._queues) >= MOST_QUEUES_KNOWN:
            self._queues = {id_: queue for id_, queue in self._queues.items() if queue.in_flight}
        if known.id not in self._queues:
            self._queues[known.id] = KnownQueue(id=known.id, team_id=known.team_id)

    def _ready(self, id_: UUID) -> None:
        queue = self._queues.get(id_)
        if queue is not None:
            self._turns[queue.pace].add(queue.team_id, id_)

    def _has_more(self) -> bool:
        return bool(self._rung) or any(self._turns.values())

    def _picked(self) -> dict[UUID, int]:
        """Whose turn it is, and how many each may have: of the room, and of its team's part."""
        self._find_slow()
        picked: dict[UUID, int] = {}
        room = self._room.copy()
        for pace in Pace:
            self._pick(picked, room, pace)
        return picked

    def _pick(self, picked: dict[UUID, int], room: Room, pace: Pace) -> None:
        """Add the next MOST_QUEUES to `picked`. What has another pace by now is lined up anew."""
        for _ in range(MOST_QUEUES):
            id_ = self._turns[pace].next(lambda team_id: room.free_of(team_id) > 0) if room.free(pace) else None
            if id_ is None:
                break
            queue = self._queues.get(id_)
            if queue is None or queue.pace != pace:
                self._rung.add(id_)
            elif id_ not in picked:
                picked[id_] = min(QUANTUM, room.free(pace), room.free_of(queue.team_id))
                room.take(queue, picked[id_])

    def _find_slow(self) -> None:
        """A queue is slow as soon as one of its attempts is: nobody waits for its timeout to learn that."""
        now = clock.monotonic()
        for queue, begun in self._begun.values():
            if now - begun < SLOW_S:
                return
            if queue.pace != Pace.SLOW:
                queue.typical_s = max(queue.typical_s, now - begun)
                self._room.mark(queue, Pace.SLOW)

    async def _claim(self, picked: dict[UUID, int]) -> None:
        ended = {id_: self._queues[id_].ended for id_ in picked}
        for id_ in picked:
            self._queues[id_].waits = False
        try:
            claim = await delivery_claims.claim(self._rt, picked, self._worker)
        except BaseException:
            self._rung.update(picked)
            raise
        for delivery in claim.deliveries:
            self._start(delivery)
        for id_, wait_s in claim.again.items():
            queue = self._queues[id_]
            # Full, says the claim; an attempt that ended while it was under way may have been counted.
            if wait_s == 0 or (wait_s is None and queue.ended > ended[id_]):
                self._ready(id_)
            elif wait_s is None:
                queue.waits = queue.in_flight > 0
            else:
                if queue.alarm is not None:
                    queue.alarm.cancel()
                queue.alarm = asyncio.get_running_loop().call_later(wait_s, self._ring_again, id_)

    def _ring_again(self, *ids: UUID) -> None:
        self._rung.update(ids)
        self._go()

    def _start(self, delivery: Delivery) -> None:
        queue = self._queues[delivery.queue_id]
        queue.in_flight += 1
        self._room.take(queue, 1)
        self._begun[delivery.fence] = (queue, clock.monotonic())
        self.tasks[delivery.fence] = asyncio.create_task(self._guarded(delivery, queue))

    async def _guarded(self, delivery: Delivery, queue: KnownQueue) -> None:
        try:
            await webhooks.deliver(self._by, delivery)
        except Exception:
            logger.exception("delivery_failed", delivery_id=ids.prefixed("dlv", delivery.id))
        finally:
            self._end(delivery.fence, queue)

    def _end(self, fence: Fence, queue: KnownQueue) -> None:
        _, begun = self._begun.pop(fence)
        del self.tasks[fence]
        queue.in_flight -= 1
        queue.ended += 1
        self._room.take(queue, -1)
        queue.typical_s += WEIGHT * (clock.monotonic() - begun - queue.typical_s)
        self._room.mark(queue, Pace.SLOW if queue.typical_s > SLOW_S else Pace.QUICK)
        if queue.waits:
            queue.waits = False
            self._ready(queue.id)
        if self._has_more():
            self._go()


def _log(error: Exception) -> None:
    """What kept queues from being looked at: trouble that passes has its name, a mistake of ours its trace."""
    if isinstance(error, QueryCanceled):
        logger.warning("delivery_claim_took_too_long")
    elif is_down(error):
        logger.warning("deliveries_wait_for_database", error=type(error).__name__)
    else:
        logger.error("delivery_claim_failed", exc_info=error)
