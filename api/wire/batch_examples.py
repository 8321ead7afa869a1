"""Examples of a batch, as /openapi.json shows them: lines as they are sent, and what is answered."""

from typing import Any

from api.wire.media import LINES, Media

BATCH, JOB = "batch_019aa3c2b0007c3e8d1f2a3b4c5d6e7f", "019aa3c2-b000-7c3e-8d1f-2a3b4c5d6e7f"

BATCH_EXAMPLE: dict[str, Any] = {
    "id": BATCH,
    "object": "batch",
    "endpoint": "/v1/chat/completions",
    "model": "chat-fast",
    "errors": None,
    "input_file_id": "file-019aa3c2a0007a1b8c2d3e4f5a6b7c8d",
    "completion_window": "24h",
    "status": "in_progress",
    "output_file_id": None,
    "error_file_id": None,
    "created_at": 1_768_478_460,
    "in_progress_at": 1_768_478_461,
    "expires_at": 1_768_564_860,
    "estimated_completion_at": 1_768_478_520,
    "finalizing_at": None,
    "completed_at": None,
    "failed_at": None,
    "expired_at": None,
    "cancelling_at": None,
    "cancelled_at": None,
    "request_counts": {
        "total": 100, "completed": 60, "failed": 1, "pending": 35, "in_progress": 4, "cancelled": 0, "expired": 0,
    },
    "usage": {
        "input_tokens": 6000,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 9000,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 15000,
    },
    "metadata": {"document_id": "doc_123"},
    "job_id": JOB,
    "retry_of": None,
    "cost_usd": 0.12,
    "estimated_cost_usd": 0.2,
    "credits_charged": 0,
    "error_summary": [{"code": "provider_rate_limit", "count": 1}],
    "callback": None,
}  # fmt: skip

DRY_RUN_EXAMPLE: dict[str, Any] = {
    "valid": True,
    "errors": None,
    "lines": 100,
    "estimated_tokens": 26000,
    "estimated_cost_usd": 0.2,
    "credits_needed": 100,
    "credits_available": 1000,
    "fits": True,
}

INPUT_LINES = Media(
    LINES.type,
    example="".join(
        f'{{"custom_id": "{name}", "method": "POST", "url": "/v1/chat/completions", "body": {{"model": "chat-fast", '
        f'"messages": [{{"role": "user", "content": "What is the capital of {land}?"}}]}}}}\n'
        for name, land in (("fr", "France"), ("it", "Italy"))
    ),
)
"""The lines of a batch as the body of a request."""
