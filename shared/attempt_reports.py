"""What an attempt came to, as its worker or the sweep reports it: the rows that close the attempt and its call."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from shared.failures import message
from shared.ids import Fence
from shared.jobs import Job
from shared.prices import Price
from shared.states import FINAL, CallState, Outcome


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens of an attempt. `source`: `provider` when it reported them (0 is a value), `estimated`, or `none`."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    source: str = "none"


@dataclass(frozen=True, kw_only=True)
class Report:
    """How an attempt ended and what becomes of its call.

    has_delivered: the call has no result, but its client has what the attempt said until then, and pays for that.
    state: the call's next state; `pending` with `retry_in_s` for another try. swept: the sweeper speaks for a worker
    that is gone, and only an expired lease gives it the right to. failed, died: 1 when it counts as a failure of the
    call, or as a worker's death; else 0.
    """

    call_id: UUID
    job_id: UUID
    number: int
    outcome: Outcome
    state: CallState
    candidate: int = 0
    candidate_attempts: int = 0
    retry_in_s: float | None = None
    failed: int = 0
    died: int = 0
    swept: bool = False
    has_delivered: bool = False
    usage: Usage = Usage()
    price: Price | None = None
    provider_cost_nanousd: int = 0
    client_cost_nanousd: int = 0
    maybe_billed: bool = False
    response: str | None = None
    finish_reason: str | None = None
    latency_ms: int | None = None
    http_status: int | None = None
    error_code: str | None = None
    error_message: str | None = None
    retry_after_s: int | None = None
    provider_request_id: str | None = None
    chunks: int | None = None

    @property
    def fence(self) -> Fence:
        """The call and the attempt number this report speaks for."""
        return self.call_id, self.number


def call_row(report: Report, job: Job) -> dict[str, Any]:
    """What `calls.close` takes of it; job: the call's, locked."""
    usage = report.usage
    done = report.state == CallState.COMPLETED or report.has_delivered
    return {
        "id": report.call_id,
        "number": report.number,
        "state": report.state,
        "candidate": report.candidate,
        "candidate_attempts": report.candidate_attempts,
        "retry_in_s": report.retry_in_s,
        "failed": report.failed,
        "died": report.died,
        "swept": report.swept,
        "ended_before": job.ended if job.is_batch and report.state in FINAL else None,
        "provider_cost_nanousd": report.provider_cost_nanousd,
        "client_cost_nanousd": report.client_cost_nanousd,
        "maybe_billed": report.maybe_billed,
        "finish_reason": report.finish_reason,
        "latency_ms": report.latency_ms,
        "prompt_tokens": usage.prompt_tokens if done else None,
        "completion_tokens": usage.completion_tokens if done else None,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens if done else None,
        "cached_tokens": usage.cached_tokens if done else None,
        "reasoning_tokens": usage.reasoning_tokens if done else None,
        "usage_source": usage.source if done else None,
        "error_code": report.error_code,
        "error_message": message(report.error_code, report.error_message) if report.error_code else None,
        "retry_after_s": report.retry_after_s,
    }


def attempt_row(report: Report) -> dict[str, Any]:
    """What `attempts.close` takes of it."""
    usage, price = report.usage, report.price
    return {
        "call_id": report.call_id,
        "number": report.number,
        "swept": report.swept,
        "outcome": report.outcome,
        "http_status": report.http_status,
        "error_code": report.error_code,
        "error_message": report.error_message,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "usage_source": usage.source,
        "maybe_billed": report.maybe_billed,
        "input_nanousd_per_mtok": price.input if price else None,
        "output_nanousd_per_mtok": price.output if price else None,
        "cached_input_nanousd_per_mtok": price.cached_input if price else None,
        "price_source": price.source if price else "unpriced",
        "price_version": price.version if price else None,
        "provider_cost_nanousd": report.provider_cost_nanousd,
        "client_cost_nanousd": report.client_cost_nanousd,
        "provider_request_id": report.provider_request_id,
        "chunks": report.chunks,
    }
