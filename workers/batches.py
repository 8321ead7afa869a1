"""Batches that need somebody: taken under a lease, then checked, or finished, as their status says.

validating               workers/batch_checks.py
finalizing, cancelling   workers/batch_endings.py

What a crash leaves is rolled back or repeatable: whoever holds the lease next begins anew.
"""

import asyncio
import threading
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from shared import batches, ids, log, tasks
from shared.batches import Batch
from shared.db import is_down
from shared.runtime import Runtime
from shared.states import BatchStatus
from workers import batch_checks, batch_endings

logger = log.get(__name__)

AT_ONCE = 2
"""Batches that one unit works on at most: each takes some megabytes, and lines of others run here as well."""
CONNECTIONS_FOR_ONE = 4
"""Of the unit's for each of them: it holds one, and it reads its file and keeps its lease by others."""
LOOK_S = 1.0
MOST_OVERRUNS = 3
"""So often a check may take longer than it ever should, before its batch is refused."""


class Batches:
    """The batches of one worker unit. `has_room` and `reserve` are for threads, all else is for the event loop."""

    def __init__(self, rt: Runtime, worker: str) -> None:
        self._rt = rt
        self._worker = worker
        self._most = max(1, min(AT_ONCE, rt.settings.database_pool // CONNECTIONS_FOR_ONE))
        self._waiting: deque[UUID] = deque()
        self._again: set[UUID] = set()
        self._reserved = 0
        self._open = True
        self._room = threading.Condition()
        self._overran: Counter[UUID] = Counter()
        self.tasks: dict[UUID, asyncio.Task[None]] = {}

    def has_room(self) -> bool:
        """Whether a message should be fetched at all."""
        return self._open and len(self._waiting) + len(self.tasks) + self._reserved < self._most

    def reserve(self, slots: int) -> bool:
        """Wait for room and take it. False once the door is closed: the message belongs back on the queue."""
        with self._room:
            while self._open and not self.has_room():
                self._room.wait(timeout=LOOK_S)
            if self._open:
                self._reserved += slots
            return self._open

    async def take(self, batch_ids: Sequence[UUID]) -> None:
        """Work on these; the leases are taken when it is their turn. What is in work here is looked at once more."""
        with self._room:
            self._reserved = max(0, self._reserved - len(batch_ids))
        for id_ in dict.fromkeys(batch_ids):
            if id_ in self.tasks:
                # It may be past its last look at the row, and about to give it up.
                self._again.add(id_)
            elif id_ not in self._waiting:
                self._waiting.append(id_)
        self._start()

    def close_door(self) -> None:
        """Take nothing more and send waiting threads home. What has not begun is rung again by the sweeper."""
        with self._room:
            self._open = False
            self._waiting.clear()
            self._again.clear()
            self._room.notify_all()

    async def drain(self, grace_s: float) -> int:
        """Wait for what is in work; after grace_s cut what is left. Returns how many were cut."""
        left = set(self.tasks.values())
        if left:
            _, left = await asyncio.wait(left, timeout=grace_s)
        self._again.clear()
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=LOOK_S)
        return len(left)

    def _start(self) -> None:
        while self._open and self._waiting and len(self.tasks) < self._most:
            id_ = self._waiting.popleft()
            self.tasks[id_] = asyncio.create_task(self._tend(id_))

    async def _tend(self, id_: UUID) -> None:
        give_up = batches.release
        try:
            await self._worked(id_)
        except Exception as error:  # the row is as it was: whoever has the lease next repeats it
            known = None if is_down(error) else error
            logger.warning("batch_waits", batch=ids.batch(id_), error=type(error).__name__, exc_info=known)
            give_up = batches.put_off
        finally:
            with suppress(Exception):
                async with self._rt.db.hot_statement() as tx:
                    await give_up(tx, id_, worker=self._worker)
            self.tasks.pop(id_, None)
            if id_ in self._again:
                self._again.remove(id_)
                self._waiting.append(id_)
            self._start()
            with self._room:
                self._room.notify_all()

    async def _worked(self, id_: UUID) -> None:
        """Do what the status says, and again what it says then: a batch that was cancelled is to be finished."""
        done: set[str] = set()
        while (batch := await self._leased(id_)) is not None and batch.status not in done:
            done.add(batch.status)
            renewer = asyncio.create_task(self._renew(id_, asyncio.current_task()))
            try:
                await self._step(batch)
            finally:
                renewer.cancel()
            tasks.raise_lost_cancel()

    async def _step(self, batch: Batch) -> None:
        if batch.status != BatchStatus.VALIDATING:
            await batch_endings.end(self._rt, batch, self._worker)
            return
        try:
            await batch_checks.check(self._rt, batch, self._worker)
        except Exception as error:
            if is_down(error) and not self._took_too_long(batch.id, error):
                raise
            # What raises once may raise for ever, and its lines would wait until the window is over.
            logger.exception("batch_check_failed", batch=ids.batch(batch.id))
            await batch_checks.give_up(self._rt, batch, self._worker)

    def _took_too_long(self, id_: UUID, error: Exception) -> bool:
        """Whether a check ran into its limit here for the last time."""
        if not isinstance(error, batch_checks.Overrun):
            return False
        self._overran[id_] += 1
        return self._overran[id_] >= MOST_OVERRUNS

    async def _leased(self, id_: UUID) -> Batch | None:
        async with self._rt.db.hot_statement() as tx:
            return await batches.lease(tx, id_, worker=self._worker, lease_s=self._rt.settings.lease_s)

    async def _renew(self, id_: UUID, work: "asyncio.Task[None] | None") -> None:
        """Keep the lease; once somebody else has it, end the work, which could not be committed any more."""
        lease_s = self._rt.settings.lease_s
        while True:
            await asyncio.sleep(lease_s / 3)
            try:
                async with self._rt.db.hot_statement() as tx:
                    is_ours = await batches.renew(tx, id_, worker=self._worker, lease_s=lease_s)
            except Exception as error:  # noqa: BLE001 - tried again; the commit asks whether the lease is still ours
                logger.warning("batch_renew_failed", batch=ids.batch(id_), error=type(error).__name__)
                continue
            if not is_ours and work is not None:
                work.cancel()
                return
