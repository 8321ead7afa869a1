"""Finding what a path names, for a caller who may see it."""

from uuid import UUID

from api.auth import Caller
from shared import calls, ids, jobs
from shared.calls import Call
from shared.db import Tx
from shared.errors import Forbidden, NotFound
from shared.jobs import JobView


def parse_id(text: str, unknown: str) -> UUID:
    """The id in a path. A malformed one is as unknown as any other: NotFound with this text."""
    found = ids.parse(text)
    if found is None:
        raise NotFound(unknown)
    return found


async def find_job(tx: Tx, caller: Caller, job_id: str) -> JobView:
    """The job, when the caller may see it. Raises NotFound, Forbidden."""
    job = await jobs.get(tx, parse_id(job_id, "Job not found"))
    if job is None:
        raise NotFound("Job not found")
    if not caller.may_see(job.team_id):
        raise Forbidden("Job does not belong to your team")
    return job


async def find_call(tx: Tx, job_id: UUID, call_id: str) -> Call:
    """A call of a job the caller may see. Raises NotFound."""
    call = await calls.get(tx, job_id, parse_id(call_id, "Call not found"))
    if call is None:
        raise NotFound("Call not found")
    return call
