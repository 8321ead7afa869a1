"""The sweeps: what a crash, a wiped Redis or a passed deadline left behind is found here and put right.

Every step is idempotent and works in small transactions; a step that fails is logged and tried again at the next sweep,
and so is a single row that cannot be put right: the others are.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Protocol
from uuid import UUID

from shared import (
    attempts,
    batch_ends,
    batches,
    call_leases,
    clock,
    closing,
    deletion,
    delivery_queues,
    ids,
    jobs,
    ledger,
    log,
    one_by_one,
    redis_keys,
    waiting_calls,
)
from shared.attempts import Orphan
from shared.closing import Aftermath
from shared.db import Tx, is_down, ran_out_of_time
from shared.ending import End, end_job, ring
from shared.jobs import Job
from shared.messages import Deliver, RunCalls, RunLines, TendBatches
from shared.runtime import Runtime
from shared.states import CallState, JobStatus
from shared.waiting_calls import Expired
from workers import refills, reports
from workers.rounds import Rounds

logger = log.get(__name__)

STEP = 100
MOST_STEPS = 100
MOST_FOUND = 2000
MOST_BELLS: dict[type[RunCalls] | type[RunLines], int] = {RunCalls: 2000, RunLines: 200}
MOST_QUEUE_MESSAGES = 200


class EndLocked(Protocol):
    """Ends what is to be ended of locked jobs."""

    async def __call__(self, tx: Tx, locked: dict[UUID, Job], *, now: datetime) -> Aftermath: ...


@dataclass(kw_only=True)
class Sweep:
    """The looks for what was left behind.

    after_outage: leases may have run out because nobody could write. What is written next gives their workers, who may
    live, time to renew: half a lease; only then are leases swept again.
    """

    rt: Runtime
    after_outage: bool = False

    async def run(self) -> dict[str, int]:
        """One look at everything but due deliveries. Returns how many rows each step touched."""
        return await Rounds("sweep", {**self.repairs(), **self.bells()}).run()

    def repairs(self) -> Mapping[str, Callable[[], Awaitable[int]]]:
        """What takes the longer, the more there is to put right."""
        steps: Sequence[Callable[[], Awaitable[int]]] = (
            self.expired_leases,
            self.overdue_calls,
            self.overdue_jobs,
            self.idle_jobs,
            self.jobs_held_open,
            self.jobs_of_deleted_teams,
            self.orphaned_attempts,
            self.stale_holds,
            self.batches_left_behind,
            self.due_refills,
        )
        return {step.__name__: partial(_repeated, step) for step in steps}

    def bells(self) -> Mapping[str, Callable[[], Awaitable[int]]]:
        """What finds work that nobody was told of; it waits for no repair."""
        return {"lost_bells": self.lost_bells, "unattended_batches": self.unattended_batches}

    async def expired_leases(self) -> int:
        """A worker died or froze: its attempt's outcome is unknown, the call goes back or ends."""
        try:
            if self.after_outage:
                return await self._prolonged_leases()
            async with self.rt.db.hot_statement() as tx:
                expired = await waiting_calls.expired(tx, limit=STEP)
            return await one_by_one.together(expired, self._close_swept, what="expired_leases", name=lambda row: row.id)
        except Exception as error:
            self.after_outage |= is_down(error) and not ran_out_of_time(error)
            raise

    async def _prolonged_leases(self) -> int:
        """Returns 0: none of them was swept."""
        async with self.rt.db.hot_statement() as tx:
            prolonged = await call_leases.prolong(tx, left_s=self.rt.settings.lease_s / 2)
        self.after_outage = False
        logger.info("leases_prolonged", calls=len(prolonged))
        return 0

    async def _close_swept(self, expired: Sequence[Expired]) -> int:
        """End these attempts; a line that is to be tried again waits for the dispatcher."""
        swept = [reports.swept(row, self.rt.prices, self.rt.settings) for row in expired]
        lines = {row.id for row in expired if row.batched}
        async with self.rt.db.hot_transaction() as tx:
            aftermath = await closing.close_attempts(tx, swept, now=clock.now())
        ring(self.rt, aftermath)
        again = [r.call_id for r in swept if r.fence in aftermath.mine and r.state == CallState.PENDING]
        self.rt.ring(RunCalls(ids=tuple(id_ for id_ in again if id_ not in lines)))
        return len(aftermath.mine)

    async def overdue_calls(self) -> int:
        """Pending calls whose deadline passed fail; the running ones are timed by their workers."""
        async with self.rt.db.hot_statement() as tx:
            overdue = await waiting_calls.overdue(tx, limit=STEP)
        return await one_by_one.together(overdue, self._end_overdue, what="overdue_calls", name=lambda row: row[0])

    async def _end_overdue(self, overdue: Sequence[tuple[UUID, UUID]]) -> int:
        async with self.rt.db.hot_transaction() as tx:
            locked = await jobs.lock(tx, [job_id for _, job_id in overdue])
            ended = await closing.cancel_calls(
                tx, locked, call_ids=[call_id for call_id, _ in overdue], code="deadline_exceeded", limit=STEP
            )
            aftermath = await closing.end_calls(tx, locked, ended, now=clock.now())
        ring(self.rt, aftermath)
        return len(ended)

    async def overdue_jobs(self) -> int:
        """Jobs whose deadline passed fail with all their unfinished calls."""
        async with self.rt.db.hot_statement() as tx:
            overdue = await jobs.overdue(tx, limit=STEP)
        return await self._fail_jobs(overdue, "deadline_exceeded")

    async def idle_jobs(self) -> int:
        """Jobs nobody touches any more fail, and their holds are free again."""
        async with self.rt.db.hot_statement() as tx:
            idle = await jobs.idle(tx, self.rt.settings.job_idle_timeout_s, limit=STEP)
        return await self._fail_jobs(idle, "idle_timeout")

    async def jobs_held_open(self) -> int:
        """Jobs that were held open for a cancel which did not come to its end are ended by their calls after all."""
        async with self.rt.db.hot_statement() as tx:
            held = await jobs.held_too_long(tx, limit=STEP)
        return await one_by_one.each(held, partial(self._end_locked, closing.end_held_open), what="jobs_held_open")

    async def jobs_of_deleted_teams(self) -> int:
        """Jobs that a crash, or a request already under way, left open when their team was deleted are cancelled."""
        return await deletion.end_left(self.rt)

    async def orphaned_attempts(self) -> int:
        """Attempts on record as running whose call went on without them: their cost is estimated and ours."""
        async with self.rt.db.hot_statement() as tx:
            orphans = await attempts.orphaned(tx, grace_s=self.rt.settings.lease_s, limit=STEP)
        return await one_by_one.together(orphans, self._book, what="orphaned_attempts", name=lambda row: row.call_id)

    async def _book(self, orphans: Sequence[Orphan]) -> int:
        abandoned = [reports.abandoned(orphan, self.rt.prices) for orphan in orphans]
        async with self.rt.db.hot_transaction() as tx:
            await closing.book_abandoned(tx, abandoned)
        return len(orphans)

    async def stale_holds(self) -> int:
        """Holds of jobs that are final. There are none unless a rule was broken: it is repaired and said aloud."""
        async with self.rt.db.hot_transaction() as tx:
            stale = await ledger.release_stale(tx)
        if stale:
            logger.error("stale_holds_released", teams=stale)
        return len(stale)

    async def lost_bells(self) -> int:
        """Ring again for what was rung long ago and is still pending; for everything when Redis was emptied.

        Bells still in the queue are not lost: beyond MOST_BELLS waiting nothing is added.
        """
        is_emptied = not await self.rt.redis.exists(redis_keys.epoch())
        rung_before_s = 0 if is_emptied else self.rt.settings.rering_s
        rung = sum([await self._ring_again(kind, rung_before_s) for kind in MOST_BELLS])
        if is_emptied:
            await self.rt.redis.set(redis_keys.epoch(), ids.new().hex)
        return rung

    async def _ring_again(self, kind: type[RunCalls] | type[RunLines], rung_before_s: float) -> int:
        most = MOST_BELLS[kind]
        if await self.rt.redis.llen(redis_keys.queue(kind.queue)) > most:
            return 0
        async with self.rt.db.hot_statement() as tx:
            lost = await waiting_calls.lost(tx, batched=kind is RunLines, rung_before_s=rung_before_s, limit=MOST_FOUND)
        self.rt.ring(kind(ids=tuple(lost)))
        return len(lost)

    async def batches_left_behind(self) -> int:
        """Batches that stand as if lines were still to run, though the last one or the job ended, go on to their end.

        The transaction that ends the last line does it; this is the second look.
        """
        async with self.rt.db.hot_statement() as tx:
            left = await batch_ends.left_behind(tx, limit=STEP)
        return await one_by_one.each(
            left, partial(self._end_locked, closing.end_left_behind), what="batches_left_behind"
        )

    async def _end_locked(self, end: EndLocked, job_id: UUID) -> int:
        async with self.rt.db.hot_transaction() as tx:
            aftermath = await end(tx, await jobs.lock(tx, [job_id]), now=clock.now())
        ring(self.rt, aftermath)
        return 1

    async def unattended_batches(self) -> int:
        """Batches that are to be checked or finished, and that nobody has in work; beyond a few bells none is added."""
        async with self.rt.db.hot_statement() as tx:
            found = await batches.unattended(tx, limit=STEP)
        if not found or await self.rt.redis.llen(redis_keys.queue(TendBatches.queue)) > MOST_QUEUE_MESSAGES:
            return 0
        self.rt.ring(TendBatches(ids=tuple(found)))
        return len(found)

    async def due_deliveries(self) -> int:
        """Queues in which a delivery is due; beyond MOST_QUEUE_MESSAGES waiting nothing is added."""
        async with self.rt.db.hot_statement() as tx:
            due = await delivery_queues.due(tx)
        if not due or await self.rt.redis.llen(redis_keys.queue(Deliver.queue)) > MOST_QUEUE_MESSAGES:
            return 0
        self.rt.ring(Deliver(ids=tuple(due)))
        return len(due)

    async def due_refills(self) -> int:
        """Credits that accounts are given by themselves."""
        return await refills.add_due(self.rt)

    async def _fail_jobs(self, seen: Sequence[tuple[UUID, datetime]], reason: str) -> int:
        async def fail(one: tuple[UUID, datetime]) -> int:
            job_id, updated_at = one

            def still(job: Job | None) -> bool:
                if job is None or job.is_final:
                    return False
                return reason != "idle_timeout" or (job.updated_at == updated_at and not job.unfinished)

            await end_job(self.rt, job_id, End(status=JobStatus.FAILED, reason=reason, code="deadline_exceeded"), still)
            return 1

        return await one_by_one.each(seen, fail, what=reason, name=lambda row: row[0])


async def _repeated(step: Callable[[], Awaitable[int]]) -> int:
    """Run a step until it finds less than a stepful: one dead worker may leave a thousand calls."""
    total = 0
    for _ in range(MOST_STEPS):
        found = await step()
        total += found
        if found < STEP:
            break
    return total
