"""News of jobs on their way: at most one per job and look, the newest, and none once the job has ended."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from shared import clock, jobs, outbox, progress, webhook_facts
from shared.messages import Deliver
from shared.progress import JobCounts
from shared.runtime import Runtime

STEP = 100
"""Jobs locked at once: who ends their calls waits as long as it takes to record so many events."""
MOST_DROPPED = 500
MOST_REMEMBERED = 10_000


@dataclass
class Progress:
    """told: what was last said of each job. Another leader begins without it and may say the same once more."""

    rt: Runtime
    told: dict[UUID, JobCounts] = field(default_factory=dict)

    async def run(self) -> int:
        """Tell of the jobs whose counts changed, and drop what that makes out of date. Returns how many were told."""
        async with self.rt.db.hot_statement() as tx:
            watched = await progress.watched(tx)
        moved = [seen for seen in watched if self._has_moved(seen)]
        found = 0
        for start in range(0, len(moved), STEP):
            few = moved[start : start + STEP]
            found += await self._tell([seen.id for seen in few])
            self._remember(few)
        async with self.rt.db.hot_statement() as tx:
            await progress.drop_out_of_date(tx, limit=MOST_DROPPED)
        return found

    async def _tell(self, job_ids: Sequence[UUID]) -> int:
        now = clock.now()
        async with self.rt.db.hot_transaction() as tx:
            locked = {id_: job for id_, job in (await jobs.lock(tx, job_ids)).items() if not job.is_final}
            running = await progress.running(tx, locked)
            events = [webhook_facts.job_progress(job, running.get(id_, 0), now) for id_, job in locked.items()]
            await jobs.save(tx, locked.values())
            queues = await outbox.record(tx, events)
        self.rt.ring(Deliver(ids=tuple(queues)))
        return len(events)

    def _has_moved(self, seen: JobCounts) -> bool:
        nothing = JobCounts(id=seen.id, total=0, in_progress=0, completed=0, failed=0, cancelled=0)
        return self.told.get(seen.id, nothing) != seen

    def _remember(self, told: Sequence[JobCounts]) -> None:
        for seen in told:
            self.told.pop(seen.id, None)
            self.told[seen.id] = seen
        while len(self.told) > MOST_REMEMBERED:
            del self.told[next(iter(self.told))]
