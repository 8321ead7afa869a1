"""What list queries ask for, and jobs and calls as lists show them."""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from api.views import job_object
from shared import money
from shared.clock import iso
from shared.errors import BadRequest
from shared.failures import FAILURES
from shared.jobs import JobView
from shared.states import JobStatus

WORDS = ", ".join(JobStatus)
VIEWED = tuple(field.name for field in fields(JobView) if field.name != "is_held_open")


def statuses(given: Iterable[str]) -> list[str] | None:
    """The words of `status` in any case; None without any. Raises BadRequest."""
    found = []
    for word in given:
        if word.lower() not in JobStatus.__members__.values():
            raise BadRequest(f"Invalid status: {word}. Must be one of: {WORDS}")
        found.append(word.lower())
    return found or None


def listed_job(row: Any, *, admin: bool) -> dict[str, Any]:
    """The job object of a row of `job_lists.page`."""
    job = JobView(**{name: getattr(row, name) for name in VIEWED})
    told = {"state": row.callback_state, "last_status": row.callback_status} if row.callback_state else None
    return job_object(job, admin=admin, callback_state=told)


def summary(row: Any) -> dict[str, Any]:
    """JobSummary of a row of `job_lists.summaries`."""
    return {
        "job_id": str(row.id),
        "team_id": row.team_id,
        "user_id": row.user_id,
        "job_type": row.job_type,
        "status": row.status,
        "created_at": iso(row.created_at),
        "completed_at": iso(row.completed_at),
        "total_calls": row.calls_total,
        "successful_calls": row.calls_completed,
        "failed_calls": row.calls_failed,
        "retry_count": row.retry_count,
        "total_tokens": row.total_tokens,
        "total_cost_usd": money.usd(row.client_cost_nanousd),
        "provider_cost_usd": money.usd(row.provider_cost_nanousd),
        "avg_latency_ms": round(row.latency_sum_ms / row.calls_completed) if row.calls_completed else None,
        "credit_applied": row.credits_charged > 0,
        "job_metadata": row.metadata,
    }


def usage_job(row: Any) -> dict[str, Any]:
    """A job in a team's usage."""
    return {
        "job_id": str(row.id),
        "job_type": row.job_type,
        "status": row.status,
        "cost_usd": money.usd(row.client_cost_nanousd),
        "tokens": row.total_tokens,
        "credits_charged": row.credits_charged,
        "created_at": iso(row.created_at),
    }


def call_detail(row: Any) -> dict[str, Any]:
    """CallDetail of a row of `job_lists.calls_of`."""
    input_nanousd = input_part(row)
    return {
        "call_id": str(row.id),
        "status": row.state,
        "model_used": row.model,
        "model_group_used": row.model,
        "resolved_model": row.litellm_model,
        "provider": row.provider,
        "purpose": row.purpose,
        "custom_id": row.custom_id,
        "prompt_tokens": row.prompt_tokens,
        "completion_tokens": row.completion_tokens,
        "total_tokens": row.total_tokens,
        "cost_usd": money.usd(row.client_cost_nanousd),
        "input_cost_usd": money.usd(input_nanousd),
        "output_cost_usd": money.usd(row.client_cost_nanousd - input_nanousd),
        "provider_cost_usd": money.usd(row.provider_cost_nanousd),
        "client_cost_usd": money.usd(row.client_cost_nanousd),
        "model_pricing_input": money.usd_per_mtok(row.input_nanousd_per_mtok),
        "model_pricing_output": money.usd_per_mtok(row.output_nanousd_per_mtok),
        "latency_ms": row.latency_ms,
        "created_at": iso(row.created_at),
        "error": _error(row),
        "request_data": row.request,
        "response_data": row.response,
    }


def input_part(row: Any) -> int:
    """Nano-dollars of a call's client cost that its prompt caused, by its share of tokens times prices."""
    prompt, cached = row.prompt_tokens or 0, row.cached_tokens or 0
    price = row.input_nanousd_per_mtok or 0
    cached_price = price if row.cached_input_nanousd_per_mtok is None else row.cached_input_nanousd_per_mtok
    given = (prompt - cached) * price + cached * cached_price
    whole = given + (row.completion_tokens or 0) * (row.output_nanousd_per_mtok or 0)
    cost: int = row.client_cost_nanousd
    return (cost * given + whole // 2) // whole if whole else 0


def _error(row: Any) -> dict[str, Any] | None:
    if row.error_code is None or row.state not in ("failed", "cancelled"):
        return None
    failure = FAILURES[row.error_code]
    return {
        "code": row.error_code,
        "message": row.error_message,
        "retryable": failure.retryable,
        "maybe_billed": row.maybe_billed,
        "http_status": failure.http_status,
    }
