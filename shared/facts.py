"""What an event says of a job or a call: the `data` of each type, one schema per type, no prompt and no answer."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from shared import clock, ids, money
from shared.calls import Call
from shared.events import Event
from shared.failures import FAILURES
from shared.jobs import Job
from shared.ledger import Account
from shared.unfinished_calls import ToldLine


def job_created(job: Job, at: datetime) -> Event:
    """The job's row was made."""
    return job_event(job, "job.created", at, _opening(job))


def job_started(job: Job, at: datetime) -> Event:
    """The job's first call was accepted."""
    return job_event(job, "job.started", at, {**_opening(job), "started_at": clock.iso(job.started_at)})


def job_ended(job: Job, at: datetime) -> Event:
    """The job became completed, failed or cancelled."""
    data = {
        "id": str(job.id),
        "status": job.status,
        "job_type": job.job_type,
        "user_id": job.user_id,
        "external_task_id": job.external_task_id,
        "metadata": job.metadata,
        "total_calls": job.calls_total,
        "successful_calls": job.calls_completed,
        "failed_calls": job.calls_failed,
        "duration_seconds": int((at - job.created_at).total_seconds()),
        "total_tokens": job.total_tokens,
        "total_cost_usd": money.usd(job.client_cost_nanousd),
        "credits_charged": job.credits_charged,
        "credits_remaining": job.credits_remaining,
        "failure_reason": job.failure_reason,
        "error_message": job.error_message,
        "completed_at": clock.iso(at),
        "result_url": f"/api/jobs/{job.id}",
    }
    return job_event(job, f"job.{job.status}", at, data)


def call_ended(job: Job, call: Call | ToldLine, at: datetime) -> Event:
    """A call of this job became completed, failed or cancelled."""
    id_ = str(call.id)
    data = {
        "id": id_,
        "call_id": id_,
        "status": call.state,
        "purpose": call.purpose,
        "model": call.model,
        "model_group": call.model,
        "finish_reason": call.finish_reason,
        "prompt_tokens": call.prompt_tokens,
        "completion_tokens": call.completion_tokens,
        "total_tokens": call.total_tokens,
        "cost_usd": money.usd(call.client_cost_nanousd),
        "latency_ms": call.latency_ms,
        "attempt_count": call.attempt,
        "metadata": call.metadata,
        "custom_id": call.custom_id,
        "error": call_error(call),
        "result_url": f"/api/jobs/{job.id}/calls/{id_}",
    }
    return job_event(job, f"call.{call.state}", at, data, subject_id=call.id)


def credits_low(account: Account, threshold: Decimal, at: datetime) -> Event:
    """What a team uses and holds reached a threshold of what it was given."""
    data = {
        "id": account.team_id,
        "threshold_percent": int(threshold) if threshold == int(threshold) else float(threshold),
        "credits_allocated": account.allocated,
        "credits_used": account.used,
        "credits_held": account.held,
        "credits_available": account.available,
        "percentage_used": round(100 * account.used / account.allocated, 2),
    }
    return team_event("credits.low", account.team_id, at, data)


def job_event(job: Job, type_: str, at: datetime, data: Mapping[str, Any], *, subject_id: UUID | None = None) -> Event:
    """The next event of a job, which is locked and saved after this. subject_id: the call that it is about."""
    return Event(
        id=ids.new(),
        type=type_,
        team_id=job.team_id,
        job_id=job.id,
        subject_id=subject_id,
        sequence=job.next_sequence(),
        at=at,
        data=data,
    )


def team_event(type_: str, team_id: str, at: datetime, data: Mapping[str, Any]) -> Event:
    """An event of a team that is of no job."""
    return Event(
        id=ids.new(), type=type_, team_id=team_id, job_id=None, subject_id=None, sequence=None, at=at, data=data
    )


def counts(job: Job, in_progress: int) -> dict[str, int]:
    """How many calls of a job stand where, of which so many are in progress: `counts` of the job object."""
    return {
        "total": job.calls_total,
        "pending": job.unfinished - in_progress,
        "in_progress": in_progress,
        "completed": job.calls_completed,
        "failed": job.calls_failed,
        "cancelled": job.calls_cancelled,
    }


def call_error(call: Call | ToldLine) -> dict[str, Any] | None:
    """The `error` of a failed or cancelled call, without its HTTP status."""
    if call.error_code is None or call.state not in ("failed", "cancelled"):
        return None
    return {
        "code": call.error_code,
        "message": call.error_message,
        "retryable": FAILURES[call.error_code].retryable,
        "maybe_billed": call.maybe_billed,
    }


def _opening(job: Job) -> dict[str, Any]:
    return {
        "id": str(job.id),
        "job_type": job.job_type,
        "status": job.status,
        "user_id": job.user_id,
        "external_task_id": job.external_task_id,
        "metadata": job.metadata,
        "total_calls": job.calls_total,
    }
