"""Jobs: create (with or without calls), read and wait, complete, cancel, costs."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from starlette.requests import Request

from api import prefer, submission, views
from api.access import find_job, parse_id
from api.auth import Caller
from api.desk import Desk
from api.held_read import held_read
from api.http import endpoint
from api.lists import next_link
from api.once import Once, still_running
from api.replies import Reply
from api.wire.batches import checked_metadata
from api.wire.calls import CallIn
from api.wire.job_answers import AcceptedJobOut, ClosingOut, JobCostsBreakdownOut, JobOut, MetadataOut
from api.wire.jobs import CancelIn, CompleteIn, CostsQuery, JobIn, MetadataIn, WaitQuery
from shared import attempts, callback_states, calls, clock, ids, intake, jobs, money
from shared.db import Tx
from shared.ending import End, end_job
from shared.errors import Conflict, Forbidden, Invalid, NotFound
from shared.jobs import Job, JobView
from shared.keys import Key
from shared.models import Route
from shared.new_calls import NewCall
from shared.runtime import Runtime
from shared.snapshot import snapshot
from shared.states import JobStatus

MAX_CALLS_SHOWN = 1000


@endpoint("team", answers={200: JobOut | ClosingOut, 202: AcceptedJobOut})
async def create_job(rt: Runtime, desk: Desk, caller: Caller, request: Request, body: JobIn, once: Once) -> Reply:
    """Make a job; with `calls` all of them are accepted or none, and `Prefer: wait` waits for the job's end."""
    key = caller.team
    if body.team_id != key.team_id:
        raise Forbidden(f"API key does not belong to team '{body.team_id}'")
    wanted = prefer.preference(request)
    if once.job_id is not None:
        return await _created_before(rt, desk, once.job_id, body, wanted)
    metadata = intake.merged_metadata({}, body.metadata or {})
    job = await _new_job(rt, key, body, metadata)
    new = await _new_calls(rt, desk, key, job, body.calls or [])
    submitted = await submission.submit(
        rt,
        desk,
        key,
        job_id=job.id,
        new_job=job,
        deadline_s=body.deadline_s,
        calls=new,
        waits_for=job.id,
        claim=once.claim(job_id=job.id),
    )
    headers = {**submitted.headers, **wanted.headers}
    if new and wanted.wait_s and await desk.waiters.wait(job.id, submitted.finished, wanted.wait_s):
        closing_ = await _closing(rt, job.id)
        if closing_["completed_at"] is not None:
            return await once.store(Reply(body=closing_, headers=headers))
    desk.waiters.forget(job.id, submitted.finished)
    return await once.store(await _created(rt, desk, job.id, [(call.position, call.id) for call in new], headers))


@endpoint("any", answers=JobOut)
async def read_job(rt: Runtime, desk: Desk, caller: Caller, request: Request, job_id: str, query: WaitQuery) -> Reply:
    """A job as it stands; with a wait, once it ended or (If-None-Match) changed."""

    async def read() -> tuple[dict[str, Any], bool]:
        async with rt.db.hot_statement() as tx:
            job = await find_job(tx, caller, job_id)
            return await _shown(tx, job, admin=caller.is_admin), job.is_final

    wanted = prefer.preference(request, query.wait)
    return await held_read(desk.waiters, request, parse_id(job_id, "Job not found"), wanted, read)


@endpoint("team", answers=ClosingOut)
async def complete_job(
    rt: Runtime, desk: Desk, caller: Caller, request: Request, job_id: str, body: CompleteIn, once: Once
) -> Reply:
    """End a job, once; a repeat with the same status reads the first answer and charges nothing."""
    id_, wanted, key = parse_id(job_id, "Job not found"), prefer.preference(request), caller.team
    claim = once.claim(job_id=id_)
    end = End(status=JobStatus(body.status), error=body.error_message, metadata=body.metadata, claim=claim)
    if end.status == JobStatus.FAILED:
        end = replace(end, reason="client")
    elif wanted.wait_s:
        async with rt.db.hot_statement() as tx:
            await find_job(tx, caller, job_id)
        await _wait_for_calls(rt, desk, id_, wanted.wait_s)

    def may_end(job: Job | None) -> bool:
        owned = _owned(job, key.team_id)
        if owned.is_final and owned.status != end.status:
            raise Conflict(f"Job is already {owned.status}")
        if not owned.is_final and end.status == JobStatus.COMPLETED and owned.is_batch:
            raise Conflict("Job is a batch: it ends with its lines", headers=wanted.headers)
        if not owned.is_final and end.status == JobStatus.COMPLETED and owned.unfinished:
            calls_ = "call" if owned.unfinished == 1 else "calls"
            raise Conflict(
                f"Job has {owned.unfinished} unfinished {calls_}", headers={"Retry-After": "1", **wanted.headers}
            )
        if not owned.is_final:
            _check_batch_metadata(owned, body.metadata or {})
        return not owned.is_final

    await end_job(rt, id_, end, may_end)
    return await once.store(Reply(body=await _closing(rt, id_), headers=wanted.headers))


@endpoint("any:w", answers=ClosingOut)
async def cancel_job(rt: Runtime, caller: Caller, job_id: str, body: CancelIn, once: Once) -> dict[str, Any]:
    """End a job and all its unfinished calls now; the hold is given back."""
    id_ = parse_id(job_id, "Job not found")
    async with rt.db.hot_statement() as tx:
        await find_job(tx, caller, job_id)

    def may_cancel(job: Job | None) -> bool:
        if job is not None and job.is_final and job.status != JobStatus.CANCELLED:
            raise Conflict(f"Job is already {job.status}")
        return job is not None and not job.is_final

    end = End(status=JobStatus.CANCELLED, error=body.reason, claim=once.claim(job_id=id_), by=caller.admin)
    await end_job(rt, id_, end, may_cancel)
    return await once.store(await _closing(rt, id_))


@endpoint("team", answers=MetadataOut)
async def patch_metadata(rt: Runtime, caller: Caller, job_id: str, body: MetadataIn) -> dict[str, Any]:
    """Merge into the job's metadata, shallow; also after its end. A batch's stays 16 short strings at most."""
    id_, key = parse_id(job_id, "Job not found"), caller.team
    async with rt.db.hot_transaction() as tx:
        job = _owned((await jobs.lock(tx, [id_])).get(id_), key.team_id)
        _check_batch_metadata(job, body.metadata)
        job.metadata = intake.merged_metadata(job.metadata, body.metadata)
        await jobs.save(tx, [job])
        changed = await jobs.read(tx, id_)
    updated_at = changed.updated_at if changed else None
    return {"job_id": str(id_), "metadata": job.metadata, "updated_at": clock.iso(updated_at)}


@endpoint("any", answers=JobCostsBreakdownOut)
async def job_costs(rt: Runtime, caller: Caller, request: Request, job_id: str, query: CostsQuery) -> Reply:
    """What a job cost, and a page of its calls; all pages' lines sum to the total exactly."""
    async with snapshot(rt.db) as tx:
        job = await find_job(tx, caller, job_id)
        page, total = await calls.list_of_job(tx, job.id, order="c.id asc", limit=query.limit, offset=query.offset)
        tried = await attempts.of_calls(tx, [call.id for call in page])
    costs: dict[str, Any] = {
        "total_cost_usd": money.usd(job.client_cost_nanousd),
        "breakdown": [views.breakdown_line(call, tried.get(call.id, []), admin=caller.is_admin) for call in page],
    }
    if caller.is_admin:
        costs["provider_cost_usd"] = money.usd(job.provider_cost_nanousd)
    body = {
        "job_id": str(job.id),
        "team_id": job.team_id,
        "job_type": job.job_type,
        "status": job.status,
        "costs": costs,
    }
    return Reply(body=body, headers=next_link(request, query, total))


async def _new_job(rt: Runtime, key: Key, body: JobIn, metadata: dict[str, Any]) -> Job:
    job_id = ids.new()
    callback = await submission.checked_callback(rt, "job", job_id, body)
    return Job(
        id=job_id,
        team_id=key.team_id,
        organization_id=key.organization_id,
        job_type=body.job_type,
        user_id=body.user_id,
        external_task_id=body.external_task_id,
        metadata=metadata,
        auto_complete=bool(body.calls) if body.auto_complete is None else body.auto_complete,
        priority=body.priority,
        callback_url=callback.url,
        callback_events=list(callback.events),
        callback_secret_sealed=callback.secret,
        created_at=clock.now(),
    )


async def _new_calls(rt: Runtime, desk: Desk, key: Key, job: Job, wanted: Sequence[CallIn]) -> list[NewCall]:
    new = []
    routes: dict[str | None, Route] = {}
    for index, call in enumerate(wanted):
        loc, call_id = ("body", "calls", index), ids.new()
        callback = await submission.checked_callback(rt, "call", call_id, call, loc)
        route = routes.get(call.asked_model)
        if route is None:
            async with rt.db.hot_statement() as tx:
                route = routes[call.asked_model] = await submission.resolve(rt, desk, tx, key, call, loc)
        new.append(
            submission.new_call(
                rt,
                call,
                route,
                job_id=job.id,
                key=key,
                now=job.created_at,
                call_id=call_id,
                callback=callback,
                position=index,
                priority=job.priority,
            )
        )
    return new


async def _created_before(rt: Runtime, desk: Desk, job_id: UUID, body: JobIn, wanted: prefer.Preference) -> Reply:
    """The answer to a repeat whose first request died, or still waits, before it had an answer."""
    if body.calls and wanted.wait_s:
        closing_ = await _closing(rt, job_id)
        if closing_["completed_at"] is None:
            raise still_running()
        return Reply(body=closing_, headers=wanted.headers)
    async with rt.db.hot_statement() as tx:
        page, _ = await calls.list_of_job(tx, job_id, limit=len(body.calls or ()), order="c.position asc")
    return await _created(rt, desk, job_id, [(call.position, call.id) for call in page], wanted.headers)


async def _created(
    rt: Runtime, desk: Desk, job_id: UUID, new: Sequence[tuple[int, UUID]], headers: dict[str, str]
) -> Reply:
    async with rt.db.hot_statement() as tx:
        job = await jobs.get(tx, job_id)
        if job is None:
            raise NotFound("Job not found")
        body = await _shown(tx, job, admin=False)
    if not new:
        return Reply(body=body, headers=headers)
    body["calls"] = [{"index": index, "call_id": str(call_id), "status": "pending"} for index, call_id in new]
    return Reply(
        body=body,
        status=202,
        headers={**headers, "Location": f"/api/jobs/{job_id}", "Retry-After": str(desk.door.wait_s)},
    )


async def _shown(tx: Tx, job: JobView, *, admin: bool) -> dict[str, Any]:
    state = await callback_states.of_job(tx, job.id) if job.callback_url is not None else None
    return views.job_object(job, admin=admin, callback_state=state)


async def _wait_for_calls(rt: Runtime, desk: Desk, job_id: UUID, wait_s: float) -> None:
    """Wait until the job has no unfinished call, one call after the other."""
    until = clock.monotonic() + wait_s
    while (left_s := until - clock.monotonic()) > 0 and not desk.waiters.is_closed:
        async with rt.db.hot_statement() as tx:
            call_id = await calls.any_unfinished(tx, job_id)
        if call_id is None:
            return
        await desk.waiters.wait(call_id, desk.waiters.expect(call_id), left_s)


def _owned(job: Job | None, team_id: str) -> Job:
    if job is None:
        raise NotFound("Job not found")
    if job.team_id != team_id:
        raise Forbidden("Job does not belong to your team")
    return job


def _check_batch_metadata(job: Job, new: dict[str, Any]) -> None:
    """Raises Invalid when `new` would make a batch's metadata what /v1/batches does not take."""
    if job.is_batch and new:
        try:
            checked_metadata({**job.metadata, **new})
        except ValueError as error:
            raise Invalid.at(("body", "metadata"), f"of a batch {error}", "value_error") from None


async def _closing(rt: Runtime, job_id: UUID) -> dict[str, Any]:
    async with rt.db.hot_statement() as tx:
        job = await jobs.get(tx, job_id)
        page, _ = await calls.list_of_job(tx, job_id, limit=MAX_CALLS_SHOWN)
    if job is None:
        raise NotFound("Job not found")
    return views.closing_object(job, page)
