"""Lists of jobs: a team's own, an admin's over all teams, and an admin's look into one job."""

from typing import Any

from starlette.requests import Request

from api.auth import Caller
from api.http import endpoint
from api.job_lists import call_detail, listed_job, statuses, summary
from api.lists import next_link
from api.replies import Reply
from api.team_objects import find_team
from api.wire.job_lists import (
    AllJobsQuery,
    DetailQuery,
    JobDetailOut,
    JobsOut,
    JobsQuery,
    JobSummariesOut,
    SummariesQuery,
    TeamJobsOut,
)
from shared import ids, job_lists, names, usage
from shared.errors import BadRequest, Forbidden, NotFound
from shared.job_lists import Filter, Part
from shared.runtime import Runtime
from shared.snapshot import snapshot

OTHER_TEAM = "Cannot access jobs for a different team"


@endpoint("any", answers=JobsOut)
async def list_jobs(rt: Runtime, caller: Caller, request: Request, query: AllJobsQuery) -> Reply:
    """The jobs of the key's team; for admins those of all teams, or of one team or organization."""
    if caller.team_id is not None and query.team_id not in (None, caller.team_id):
        raise Forbidden(OTHER_TEAM)
    teams = None
    if query.organization_id is not None:
        async with rt.db.statement() as tx:
            teams = await usage.teams_of(tx, query.organization_id)
    wanted = _wanted(request, query, team_id=caller.team_id or query.team_id, teams=teams)
    body, headers = await _page(rt, caller, request, query, wanted)
    return Reply(body=body, headers=headers)


@endpoint("any", answers=TeamJobsOut)
async def list_team_jobs(rt: Runtime, caller: Caller, request: Request, team_id: str, query: JobsQuery) -> Reply:
    """The jobs of a team."""
    if not caller.may_see(team_id):
        raise Forbidden(OTHER_TEAM)
    wanted = _wanted(request, query, team_id=team_id)
    async with rt.db.statement() as tx:
        await find_team(tx, team_id)
    body, headers = await _page(rt, caller, request, query, wanted)
    return Reply(body={"team_id": team_id, **body}, headers=headers)


@endpoint("admin:r", answers=JobSummariesOut)
async def list_job_summaries(rt: Runtime, request: Request, team_id: str, query: SummariesQuery) -> dict[str, Any]:
    """A team's jobs as numbered pages, newest first; jobs without calls too."""
    wanted = Filter(
        team_id=team_id,
        statuses=statuses(request.query_params.getlist("status")),
        job_type=query.job_type,
        since=query.since,
        before=query.before,
        id_part=None if query.job_id_filter is None else query.job_id_filter.lower(),
    )
    part = Part(limit=query.page_size, offset=(query.page - 1) * query.page_size)
    async with snapshot(rt.db) as tx:
        await find_team(tx, team_id)
        rows = await job_lists.summaries(tx, wanted, part)
        total = await job_lists.count(tx, wanted, part, len(rows))
    return {
        "jobs": [summary(row) for row in rows],
        "total": total,
        "page": query.page,
        "page_size": query.page_size,
        "total_pages": -(-total // query.page_size),
    }


@endpoint("admin:r", answers=JobDetailOut)
async def look_into_job(rt: Runtime, request: Request, team_id: str, job_id: str, query: DetailQuery) -> Reply:
    """A job of a team with its calls, oldest first; prompts and answers are there while they are kept.

    Where those are long, a page has fewer calls than its limit: the `Link` header goes on behind them.
    """
    id_ = ids.parse(job_id)
    if id_ is None:
        raise BadRequest(f"Invalid job_id format: {job_id}")
    async with snapshot(rt.db) as tx:
        row = await job_lists.summary(tx, team_id, id_) if names.is_name(team_id) else None
        if row is None:
            raise NotFound(f"Job '{job_id}' not found for team '{team_id}'")
        calls = await job_lists.calls_of(tx, id_, limit=query.limit, offset=query.offset)
    body = {"job": summary(row), "calls": [call_detail(call) for call in calls]}
    return Reply(body=body, headers=next_link(request, query, row.calls_total, shown=len(calls)))


async def _page(
    rt: Runtime, caller: Caller, request: Request, query: JobsQuery, wanted: Filter
) -> tuple[dict[str, Any], dict[str, str]]:
    part = Part(limit=query.limit, offset=query.offset, sort_by=query.sort_by, order=query.order)
    async with snapshot(rt.db) as tx:
        rows = await job_lists.page(tx, wanted, part)
        total = await job_lists.count(tx, wanted, part, len(rows))
    shown = [listed_job(row, admin=caller.is_admin) for row in rows]
    body = {"jobs": shown, "total": total, "limit": query.limit, "offset": query.offset}
    return body, next_link(request, query, total)


def _wanted(request: Request, query: JobsQuery, *, team_id: str | None, teams: list[str] | None = None) -> Filter:
    return Filter(
        team_id=team_id,
        teams=teams,
        statuses=statuses(request.query_params.getlist("status")),
        job_type=query.job_type,
        user_id=query.user_id,
        external_task_id=query.external_task_id,
        since=query.since,
        before=query.before,
    )
