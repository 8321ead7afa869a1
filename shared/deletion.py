"""What follows the deletion of a team: the jobs it left open are cancelled, by the request or by the sweep."""

from functools import partial
from uuid import UUID

from shared import one_by_one, teams
from shared.ending import End, end_job
from shared.jobs import Job
from shared.runtime import Runtime
from shared.states import JobStatus

DELETED = End(status=JobStatus.CANCELLED, error="The team was deleted")
STEP = 100


async def end_jobs(rt: Runtime, team_id: str, *, step: int = STEP) -> int:
    """Cancel what this deleted team left open. Returns how many jobs; after a crash the sweep does it."""
    ended = 0
    while left := await _left(rt, team_id, limit=step):
        for job_id in left:
            ended += await _end(rt, job_id)
        if len(left) < step:
            break
    return ended


async def end_left(rt: Runtime) -> int:
    """Cancel up to a stepful of jobs of teams deleted lately; one that cannot be ended stops no other."""
    left = await _left(rt, None, limit=STEP)
    return await one_by_one.each(left, partial(_end, rt), what="jobs_of_deleted_teams")


async def _left(rt: Runtime, team_id: str | None, *, limit: int) -> list[UUID]:
    async with rt.db.hot_statement() as tx:
        return await teams.jobs_of_deleted(tx, team_id=team_id, limit=limit)


async def _end(rt: Runtime, job_id: UUID) -> int:
    await end_job(rt, job_id, DELETED, _is_open)
    return 1


def _is_open(job: Job | None) -> bool:
    return job is not None and not job.is_final
