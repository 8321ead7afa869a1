"""An example of each type of event: what the catalogue shows and what the test of an endpoint sends."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson

from shared import ids
from shared.event_types import TEST
from shared.events import Event

AT = datetime(2026, 1, 15, 12, 5, 23, tzinfo=UTC)
TEAM = "acme-corp"
JOB = UUID("019aa3c2-7b1e-7c44-9d0a-3f5b1c2d4e6f")
CALL = UUID("019aa3c2-81f0-7d21-8a55-0b1c2d3e4f50")
EVENT = UUID("019aa3c2-9000-7000-8000-000000000001")
ENDPOINT = "whe_019aa3c27b1e7c449d0a3f5b1c2d4e6f"
DELIVERY = "dlv_019aa3c2a0007000800000000000000a"
BATCH = "batch_019aa3c27b1e7c449d0a3f5b1c2d4e6f"
URL = "https://your-app.example/webhooks"

OPENING: Mapping[str, Any] = {
    "id": str(JOB), "job_type": "resume_analysis", "status": "pending", "user_id": "john@acme.com",
    "external_task_id": None, "metadata": {"document_id": "doc_123"}, "total_calls": 0,
}  # fmt: skip
JOB_ENDED: Mapping[str, Any] = {
    **OPENING, "status": "completed", "total_calls": 5, "successful_calls": 5, "failed_calls": 0,
    "duration_seconds": 45, "total_tokens": 1350, "total_cost_usd": 0.0045, "credits_charged": 1,
    "credits_remaining": 999, "failure_reason": None, "error_message": None,
    "completed_at": "2026-01-15T12:05:23.000Z", "result_url": f"/api/jobs/{JOB}",
}  # fmt: skip
CALL_ENDED: Mapping[str, Any] = {
    "id": str(CALL), "call_id": str(CALL), "status": "completed", "purpose": "parse", "model": "ResumeAgent",
    "model_group": "ResumeAgent", "finish_reason": "stop", "prompt_tokens": 200, "completion_tokens": 250,
    "total_tokens": 450, "cost_usd": 0.0015, "latency_ms": 1250, "attempt_count": 1, "metadata": None,
    "custom_id": None, "error": None, "result_url": f"/api/jobs/{JOB}/calls/{CALL}",
}  # fmt: skip
CALL_LOST: Mapping[str, Any] = {
    **CALL_ENDED, "finish_reason": None, "prompt_tokens": None, "completion_tokens": None, "total_tokens": None,
    "cost_usd": 0, "latency_ms": None,
}  # fmt: skip
TIMED_OUT = {
    "code": "provider_timeout", "message": "provider timeout", "retryable": True, "maybe_billed": True,
}  # fmt: skip
CANCELLED = {"code": "cancelled", "message": "Call was cancelled", "retryable": False, "maybe_billed": False}
BATCH_ENDED: Mapping[str, Any] = {
    "id": BATCH, "status": "completed", "endpoint": "/v1/chat/completions",
    "request_counts": {"total": 100, "completed": 98, "failed": 2, "cancelled": 0, "expired": 0},
    "output_file_id": "file-019aa3c2b0007000800000000000000b", "error_file_id": "file-019aa3c2b0007000800000000000000c",
    "error_summary": [{"code": "provider_rate_limit", "count": 2}], "total_cost_usd": 0.2, "credits_charged": 98,
    "metadata": {}, "result_url": f"/v1/batches/{BATCH}",
}  # fmt: skip
BATCH_CUT: Mapping[str, Any] = {
    **BATCH_ENDED, "error_summary": [], "total_cost_usd": 0.12, "credits_charged": 60,
}  # fmt: skip
BATCH_REFUSED: Mapping[str, Any] = {
    **BATCH_CUT, "status": "failed", "output_file_id": None, "error_file_id": None, "total_cost_usd": 0,
    "credits_charged": 0,
    "request_counts": {"total": 0, "completed": 0, "failed": 0, "cancelled": 0, "expired": 0},
    "error_summary": [{"code": "invalid_request", "count": 1}],
}  # fmt: skip
FAILING_RUN: Mapping[str, Any] = {
    "id": ENDPOINT, "endpoint_id": ENDPOINT, "url": URL, "first_failure_at": "2026-01-10T12:05:23.000Z",
    "failed_attempts": 41, "last_status": 500, "undelivered_events": 12,
}  # fmt: skip
GIVEN_UP: Mapping[str, Any] = {
    "id": DELIVERY, "delivery_id": DELIVERY, "event_id": ids.prefixed("evt", EVENT), "event_type": "job.completed",
    "webhook_id": ENDPOINT, "url": URL, "attempt_count": 10, "last_status": 500, "last_error": "HTTP 500",
}  # fmt: skip

DATA: Mapping[str, Mapping[str, Any]] = {
    "job.created": OPENING,
    "job.started": {
        **OPENING, "status": "in_progress", "total_calls": 1, "started_at": "2026-01-15T12:05:23.000Z",
    },
    "job.completed": JOB_ENDED,
    "job.failed": {
        **JOB_ENDED, "status": "failed", "successful_calls": 4, "failed_calls": 1,
        "failure_reason": "deadline_exceeded", "error_message": "The job's deadline passed.",
    },
    "job.cancelled": {**JOB_ENDED, "status": "cancelled", "successful_calls": 2, "error_message": "No longer needed"},
    "job.progress": {
        "id": str(JOB), "status": "in_progress",
        "counts": {"total": 5, "pending": 1, "in_progress": 1, "completed": 3, "failed": 0, "cancelled": 0},
    },
    "call.completed": CALL_ENDED,
    "call.failed": {**CALL_LOST, "status": "failed", "attempt_count": 3, "error": TIMED_OUT},
    "call.cancelled": {**CALL_LOST, "status": "cancelled", "error": CANCELLED},
    "batch.completed": BATCH_ENDED,
    "batch.failed": BATCH_REFUSED,
    "batch.expired": {
        **BATCH_CUT, "status": "expired",
        "request_counts": {"total": 100, "completed": 60, "failed": 0, "cancelled": 0, "expired": 40},
    },
    "batch.cancelled": {
        **BATCH_CUT, "status": "cancelled",
        "request_counts": {"total": 100, "completed": 60, "failed": 0, "cancelled": 40, "expired": 0},
    },
    "credits.low": {
        "id": TEAM, "threshold_percent": 80, "credits_allocated": 1000, "credits_used": 801, "credits_held": 2,
        "credits_available": 197, "percentage_used": 80.1,
    },
    "webhook.endpoint.disabled": {**FAILING_RUN, "reason": "failing", "disabled_at": "2026-01-15T12:05:23.000Z"},
    "webhook.endpoint.failing": {
        **FAILING_RUN, "first_failure_at": "2026-01-13T00:05:23.000Z", "failed_attempts": 12, "percent": 50,
        "disables_at": "2026-01-18T00:05:23.000Z",
    },
    "webhook.delivery.exhausted": GIVEN_UP,
    "webhook.delivery.recovered": {**GIVEN_UP, "attempt_count": 3, "last_status": 200, "last_error": None},
    "webhook.test": {"id": ENDPOINT, "webhook_id": ENDPOINT, "message": "This is a test of your webhook endpoint."},
}  # fmt: skip
SEQUENCES: Mapping[str, int] = {"job.created": 1, "job.started": 2, "job.progress": 3, "call": 3, "job": 4}


def event(type_: str, *, id_: UUID, team_id: str, at: datetime, webhook_id: str = ENDPOINT) -> Event:
    """The example of a type as an event of this team; its `body()` is what a test sends.

    webhook_id: of the endpoint that is tested. Its job, call or batch is made up: there is none.
    """
    kind = type_.partition(".")[0]
    data = {**DATA[type_], "id": webhook_id, "webhook_id": webhook_id} if type_ == TEST else DATA[type_]
    of_job = kind in ("job", "call")
    return Event(
        id=id_,
        type=type_,
        team_id=team_id,
        job_id=JOB if of_job else None,
        subject_id=CALL if kind == "call" else None,
        sequence=SEQUENCES.get(type_, SEQUENCES[kind]) if of_job else None,
        at=at,
        data=data,
    )


EXAMPLES: Mapping[str, dict[str, Any]] = {
    type_: orjson.loads(event(type_, id_=EVENT, team_id=TEAM, at=AT).body()) for type_ in DATA
}
"""The whole event object of each type."""
