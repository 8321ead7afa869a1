"""Batches that need somebody: taken under a lease, then checked, or finished, as their status says.

validating               workers/batch_checks.py
finalizing, cancelling   workers/batch_endings.py

A bell only wakes: which batch is next, the rows say (`batches.lease_next`). A unit looks for one when it is rung and
has room, and again at the end of each, until there is none: so no bell is lost, and no team waits behind another's
queue. A row that somebody has locked at the moment of the last look is left to the sweeper's bell.

What a crash leaves is rolled back or repeatable: whoever holds the lease next begins anew.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import cast
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
MOST_SERVED = 1000
"""Teams of which a unit remembers whose turn was the longest ago."""


class Batches:
    """The batches of one worker unit. `has_room` and `reserve` are for threads, all else is for the event loop."""

    def __init__(self, rt: Runtime, worker: str) -> None:
        self._rt = rt
        self._worker = worker
        self._most = max(1, min(AT_ONCE, rt.settings.database_pool // CONNECTIONS_FOR_ONE))
        self._is_rung = False
        self._served: dict[str, None] = {}
        self._reserved = 0
        self._open = True
        self._room = threading.Condition()
        self._overran: Counter[UUID] = Counter()
        self.tasks: set[asyncio.Task[None]] = set()

    def has_room(self) -> bool:
        """Whether a message should be fetched at all."""
        return self._open and len(self.tasks) + self._reserved < self._most

    def reserve(self, slots: int) -> bool:
        """Wait for room and take it. False once the door is closed: the message belongs back on the queue."""
        with self._room:
            while self._open and not self.has_room():
                self._room.wait(timeout=LOOK_S)
            if self._open:
                self._reserved += slots
            return self._open

    async def take(self, batch_ids: Sequence[UUID]) -> None:
        """Somebody rang: look for what is next, whichever batch it was rung for."""
        with self._room:
            self._reserved = max(0, self._reserved - len(batch_ids))
            self._room.notify_all()
        self._is_rung = True
        self._start()

    def close_door(self) -> None:
        """Take nothing more and send waiting threads home. What has not begun is rung again by the sweeper."""
        with self._room:
            self._open = False
            self._room.notify_all()

    async def drain(self, grace_s: float) -> int:
        """Take nothing more and wait for what is in work; after grace_s cut what is left. Returns how many were cut."""
        self.close_door()
        left = set(self.tasks)
        if left:
            _, left = await asyncio.wait(left, timeout=grace_s)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=LOOK_S)
        return len(left)

    def _start(self) -> None:
        if self._open and len(self.tasks) < self._most:
            self.tasks.add(asyncio.create_task(self._turn()))

    async def _turn(self) -> None:
        """One place: look for a batch, work on it, and let the next turn begin."""
        found = None
        try:
            # Whoever rings from here on may ring for what this look does not see.
            self._is_rung = False
            found = await self._next()
            if found is not None:
                self._start()
                await self._tend(found)
        except Exception as error:  # the sweeper rings again
            known = None if is_down(error) else error
            logger.warning("batches_not_found", error=type(error).__name__, exc_info=known)
        finally:
            self.tasks.discard(cast("asyncio.Task[None]", asyncio.current_task()))
            if found is not None or self._is_rung:
                self._start()
            with self._room:
                self._room.notify_all()

    async def _next(self) -> Batch | None:
        """The next batch by turns, leased."""
        lease_s, served = self._rt.settings.lease_s, list(self._served)
        async with self._rt.db.hot_statement() as tx:
            found = await batches.lease_next(tx, worker=self._worker, lease_s=lease_s, served=served)
        if found is not None:
            self._served.pop(found.team_id, None)
            self._served[found.team_id] = None
            if len(self._served) > MOST_SERVED:
                del self._served[next(iter(self._served))]
        return found

    async def _tend(self, batch: Batch) -> None:
        give_up = batches.release
        try:
            if not await self._worked(batch):
                give_up = batches.put_off
        except Exception as error:  # the row is as it was: whoever has the lease next repeats it
            known = None if is_down(error) else error
            logger.warning("batch_waits", batch=ids.batch(batch.id), error=type(error).__name__, exc_info=known)
            give_up = batches.put_off
        finally:
            with suppress(Exception):
                async with self._rt.db.hot_statement() as tx:
                    await give_up(tx, batch.id, worker=self._worker)

    async def _worked(self, batch: Batch) -> bool:
        """Do what the status says, and again what it says then: a batch that was cancelled is to be finished.

        False when it stands where it stood: then it is not to be the next again at once.
        """
        found: Batch | None = batch
        done: set[str] = set()
        while found is not None and found.status not in done:
            done.add(found.status)
            renewer = asyncio.create_task(self._renew(batch.id, asyncio.current_task()))
            try:
                await self._step(found)
            finally:
                renewer.cancel()
            tasks.raise_lost_cancel()
            found = await self._leased(batch.id)
        return found is None

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
                    if await batches.renew(tx, id_, worker=self._worker, lease_s=lease_s):
                        continue
                    is_anothers = await batches.is_anothers(tx, id_, worker=self._worker)
            except Exception as error:  # noqa: BLE001 - tried again; the commit asks whether the lease is still ours
                logger.warning("batch_renew_failed", batch=ids.batch(id_), error=type(error).__name__)
                continue
            # Else it is nobody's: it was accepted or ended right here, and the work has only to say so.
            if is_anothers and work is not None:
                work.cancel()
            return
