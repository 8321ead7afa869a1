"""What a client that waited for a call is told when the call failed or was cancelled."""

from collections.abc import Mapping
from uuid import UUID

from shared import attempts
from shared.calls import Call
from shared.db import Tx
from shared.errors import CallFailed
from shared.failures import FAILURES

OURS = (429, 503)
"""Statuses that say when to come again."""


def failure(call: Call, headers: Mapping[str, str], provider: str | None) -> CallFailed:
    """The error for a call that failed or was cancelled. provider: of its last attempt."""
    code = call.error_code or "internal_error"
    failed = FAILURES[code]
    if failed.http_status in OURS:
        headers = {**headers, "Retry-After": str(max(1, call.retry_after_s or 1))}
    text = call.error_message or failed.text
    return CallFailed(failed.http_status, text, headers=headers, failure=code, provider=provider)


async def last_provider(tx: Tx, call_id: UUID) -> str | None:
    """Who was asked last."""
    tried = (await attempts.of_calls(tx, [call_id])).get(call_id)
    return tried[-1]["provider"] if tried else None
