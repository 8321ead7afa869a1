"""Jobs and calls as clients read them; every field of the contract is there, missing values are null."""

from typing import Any

from api.answer_forms import OBJECT, answer_of
from shared import clock, ids, money
from shared.calls import Call
from shared.facts import call_error, counts
from shared.failures import FAILURES
from shared.jobs import Job, JobView
from shared.states import Endpoint

OPEN_CALL = {"response": None, "choices": None, "usage": None, "id": None, "created": None}
TEXTS = ("choices", "response", "data")
"""What is left out of a call in a list."""


def job_object(job: JobView, *, admin: bool, callback_state: dict[str, Any] | None) -> dict[str, Any]:
    """The job object of GET /jobs/{job_id}."""
    costs = _costs(job)
    if admin:
        costs |= {"provider_cost_usd": money.usd(job.provider_cost_nanousd), "credits_lost": job.credits_lost}
    return {
        "job_id": str(job.id),
        "team_id": job.team_id,
        "organization_id": job.organization_id,
        "user_id": job.user_id,
        "job_type": job.job_type,
        "batch_id": ids.batch(job.id) if job.is_batch else None,
        "status": job.status,
        "created_at": clock.iso(job.created_at),
        "started_at": clock.iso(job.started_at),
        "completed_at": clock.iso(job.completed_at),
        "updated_at": clock.iso(job.updated_at or job.created_at),
        "deadline_at": clock.iso(job.deadline_at),
        "priority": job.priority,
        "auto_complete": job.auto_complete,
        "metadata": job.metadata,
        "error_message": job.error_message,
        "failure_reason": job.failure_reason,
        "external_task_id": job.external_task_id,
        "credit_applied": job.credits_charged > 0,
        "credits_charged": job.credits_charged,
        "credits_held": job.credits_held,
        "model_groups_used": job.models or [],
        "counts": counts(job, job.in_progress),
        "costs": costs,
        "callback": _callback(job, callback_state),
    }


def closing_object(job: Job, calls: list[Call]) -> dict[str, Any]:
    """The answer to `complete`, built from the rows, so that a repeat reads the same."""
    return {
        "job_id": str(job.id),
        "team_id": job.team_id,
        "status": job.status,
        "completed_at": clock.iso(job.completed_at),
        "costs": {
            **_costs(job),
            "credits_charged": job.credits_charged,
            "credits_remaining": job.credits_remaining,
        },
        "calls": [_closing_call(call) for call in calls],
        "credits_remaining": job.credits_remaining,
        "total_calls": job.calls_total,
        "metadata": job.metadata,
    }


def call_object(
    call: Call,
    *,
    attempts: list[dict[str, Any]] | None = None,
    callback: dict[str, Any] | None = None,
    queue_position: int | None = None,
) -> dict[str, Any]:
    """The call object: both dialects at once; vectors in `data`. attempts: for admins, who see which model answered."""
    usage = usage_object(call)
    answer = {**OPEN_CALL, **({"usage": usage} if usage else {}), **answer_of(call)}
    shown = {
        "call_id": str(call.id),
        "job_id": str(call.job_id),
        "status": call.state,
        "response": answer["response"],
        "metadata": {
            "tokens_used": call.total_tokens,
            "latency_ms": call.latency_ms,
            "model": call.model,
            "model_group": call.model,
        },
        "id": answer["id"],
        "object": OBJECT[Endpoint(call.endpoint)],
        "created": answer["created"],
        "model": call.model,
        "choices": answer["choices"],
        "usage": answer["usage"],
        **_facts(call),
        "queue_position": queue_position,
        "callback": callback,
    }
    if call.endpoint == Endpoint.EMBEDDING:
        shown["data"] = answer.get("data")
    return shown if attempts is None else {**shown, **_for_admins(call, attempts)}


def listed_call(call: Call, callback: dict[str, Any] | None) -> dict[str, Any]:
    """The call object without its texts."""
    return {name: value for name, value in call_object(call, callback=callback).items() if name not in TEXTS}


def result_object(call: Call) -> dict[str, Any]:
    """The 200 of llm-call: the superset of both dialects and nothing else."""
    shown = call_object(call)
    names = (
        "call_id",
        "job_id",
        "status",
        "response",
        "metadata",
        "id",
        "object",
        "created",
        "model",
        "choices",
        "usage",
    )
    return {name: shown[name] for name in names}


def created_object(call: Call, job: Job) -> dict[str, Any]:
    """The 200 of create-and-call: the same, and what the job came to."""
    costs = {**_costs(job), "credits_remaining": job.credits_remaining}
    return {**result_object(call), "costs": costs, "completed_at": clock.iso(call.completed_at)}


def waiting_object(
    call_id: str, job_id: str, status: str, created_at: str | None, *, queue_position: int | None, wait_s: float
) -> dict[str, Any]:
    """The 202 of a call that is not finished yet. wait_s: for how long calls wait for a worker now."""
    return {
        "call_id": call_id,
        "job_id": job_id,
        "status": status,
        "status_url": f"/api/jobs/{job_id}/calls/{call_id}",
        "created_at": created_at,
        "queue_position": queue_position,
        "estimated_wait_s": wait_s,
    }


def breakdown_line(call: Call, attempts: list[dict[str, Any]], *, admin: bool) -> dict[str, Any]:
    """One call in a job's costs; teams see the client's cost and the name they asked for."""
    last = attempts[-1] if attempts else {}
    line = {
        "call_id": str(call.id),
        "model": call.model,
        "model_group": call.model,
        "purpose": call.purpose,
        "prompt_tokens": call.prompt_tokens,
        "completion_tokens": call.completion_tokens,
        "cost_usd": money.usd(call.client_cost_nanousd),
        "price_source": last.get("price_source"),
        "created_at": clock.iso(call.created_at),
    }
    if admin:
        line["provider_cost_usd"] = money.usd(call.provider_cost_nanousd)
        line["resolved_model"] = last.get("litellm_model")
    return line


def _costs(job: Job) -> dict[str, Any]:
    return {
        "total_calls": job.calls_total,
        "successful_calls": job.calls_completed,
        "failed_calls": job.calls_failed,
        "total_tokens": job.total_tokens,
        "total_cost_usd": money.usd(job.client_cost_nanousd),
        "avg_latency_ms": round(job.latency_sum_ms / job.calls_completed) if job.calls_completed else None,
        "credit_applied": job.credits_charged > 0,
    }


def _callback(job: Job, state: dict[str, Any] | None) -> dict[str, Any] | None:
    if job.callback_url is None:
        return None
    return {
        "url": job.callback_url,
        "events": job.callback_events,
        "state": "pending",
        "last_status": None,
        **(state or {}),
    }


def _closing_call(call: Call) -> dict[str, Any]:
    return {
        "call_id": str(call.id),
        "purpose": call.purpose,
        "model_group": call.model,
        "status": call.state,
        "tokens": call.total_tokens,
        "latency_ms": call.latency_ms,
        "cost_usd": money.usd(call.client_cost_nanousd),
        "error": _error(call),
    }


def usage_object(call: Call) -> dict[str, Any] | None:
    """The tokens of a call, in OpenAI's words; None while they are not known."""
    if call.prompt_tokens is None:
        return None
    usage: dict[str, Any] = {
        "prompt_tokens": call.prompt_tokens,
        "completion_tokens": call.completion_tokens,
        "total_tokens": call.total_tokens,
    }
    if call.cached_tokens:
        usage["prompt_tokens_details"] = {"cached_tokens": call.cached_tokens}
    if call.reasoning_tokens:
        usage["completion_tokens_details"] = {"reasoning_tokens": call.reasoning_tokens}
    return usage


def _facts(call: Call) -> dict[str, Any]:
    started, created = call.started_at, call.created_at
    return {
        "purpose": call.purpose,
        "custom_id": call.custom_id,
        "stream": call.stream,
        "created_at": clock.iso(created),
        "started_at": clock.iso(started),
        "completed_at": clock.iso(call.completed_at),
        "deadline_at": clock.iso(call.deadline_at),
        "attempt_count": call.attempt,
        "queue_ms": None if started is None else max(0, round((started - created).total_seconds() * 1000)),
        "cost_usd": money.usd(call.client_cost_nanousd),
        "usage_source": call.usage_source,
        "call_metadata": call.call_metadata,
        "payload_expired": call.payload_expired,
        "error": _error(call),
    }


def _error(call: Call) -> dict[str, Any] | None:
    error = call_error(call)
    return None if error is None else {**error, "http_status": FAILURES[error["code"]].http_status}


def _for_admins(call: Call, attempts: list[dict[str, Any]]) -> dict[str, Any]:
    last = attempts[-1] if attempts else {}
    return {
        "candidates": call.candidates,
        "resolved_model": last.get("litellm_model"),
        "provider": last.get("provider"),
        "provider_cost_usd": money.usd(call.provider_cost_nanousd),
        "attempts": [_attempt(attempt) for attempt in attempts],
    }


def _attempt(row: dict[str, Any]) -> dict[str, Any]:
    same = (
        "provider", "outcome", "http_status", "error_code", "error_message", "prompt_tokens", "completion_tokens",
        "cached_tokens", "reasoning_tokens", "usage_source", "maybe_billed", "price_source", "provider_request_id",
    )  # fmt: skip
    return {
        "attempt": row["number"],
        "alias": row["alias"],
        "model": row["litellm_model"],
        "credential_id": None if row["credential_id"] is None else str(row["credential_id"]),
        "started_at": clock.iso(row["started_at"]),
        "ended_at": clock.iso(row["ended_at"]),
        **{name: row[name] for name in same},
        "provider_cost_usd": money.usd(row["provider_cost_nanousd"]),
        "client_cost_usd": money.usd(row["client_cost_nanousd"]),
        "model_pricing_input": money.usd_per_mtok(row["input_nanousd_per_mtok"]),
        "model_pricing_output": money.usd_per_mtok(row["output_nanousd_per_mtok"]),
    }
