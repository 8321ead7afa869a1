"""What follows the deletion of a team: the jobs it left open are cancelled, by the request or by the sweep."""

from shared import teams
from shared.ending import End, end_job
from shared.jobs import Job
from shared.runtime import Runtime
from shared.states import JobStatus

DELETED = End(status=JobStatus.CANCELLED, error="The team was deleted")
STEP = 100


async def end_jobs(rt: Runtime, team_id: str, *, step: int = STEP) -> int:
    """Cancel what this deleted team left open. Returns how many jobs; after a crash the sweep does it."""
    ended = 0
    while True:
        found = await end_some(rt, team_id, step=step)
        ended += found
        if found < step:
            return ended


async def end_some(rt: Runtime, team_id: str | None = None, *, step: int = STEP) -> int:
    """Cancel up to `step` jobs of this deleted team, or of any deleted lately. Returns how many there were."""
    async with rt.db.hot_statement() as tx:
        left = await teams.jobs_of_deleted(tx, team_id=team_id, limit=step)
    for job_id in left:
        await end_job(rt, job_id, DELETED, _is_open)
    return len(left)


def _is_open(job: Job | None) -> bool:
    return job is not None and not job.is_final
