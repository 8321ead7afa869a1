"""A batch as clients read it: found for its team, and written as the contract's object."""

from datetime import datetime
from typing import Any
from uuid import UUID

from api.auth import Caller
from shared import batch_facts, batch_lists, ids, money
from shared.batch_lists import BatchView
from shared.batches import Batch
from shared.credit_accounts import Balance
from shared.db import Tx
from shared.errors import NotFound
from shared.line_checks import MOST_FAULTS
from shared.states import BatchStatus, Endpoint

GUESSES = ("estimated_completion_at",)
"""Of the object, what is another in every read though nothing has happened."""
FAULT = ("code", "message", "param", "line")
REFUSED_WHOLE = ("insufficient_credits", "budget_exceeded", "budget_in_flight", "rate_limited")
"""Refusals that are no line's fault."""
STOPPED = f" (the check stopped here, at {MOST_FAULTS:,} faults: lines behind this one were not looked at)"


def batch_id_of(text: str) -> UUID:
    """The id in a path. A malformed one is as unknown as any other: NotFound."""
    found = ids.parse_batch(text)
    if found is None:
        raise unknown_batch(text)
    return found


def unknown_batch(text: str) -> NotFound:
    """The team has no batch of this name."""
    return NotFound(f"No batch found with id '{text}'.", param="id")


async def find_batch(tx: Tx, caller: Caller, batch_id: str) -> BatchView:
    """The caller's batch. Raises NotFound, also for a dry run."""
    found = await batch_lists.get(tx, batch_id_of(batch_id), caller.team.team_id)
    if found is None:
        raise unknown_batch(batch_id)
    return found


def batch_object(batch: BatchView) -> dict[str, Any]:
    """The batch object, with every field whatever its status."""
    return {
        "id": ids.batch(batch.id),
        "object": "batch",
        "endpoint": Endpoint(batch.endpoint).path,
        "model": batch.models[0] if len(batch.models) == 1 else None,
        "errors": errors_object(batch.errors or []),
        "input_file_id": ids.file(batch.input_file_id),
        "completion_window": batch.completion_window,
        "status": batch.status,
        "output_file_id": _file(batch.output_file_id),
        "error_file_id": _file(batch.error_file_id),
        "created_at": _unix(batch.created_at),
        "in_progress_at": _unix(batch.in_progress_at),
        "expires_at": _unix(batch.expires_at),
        "estimated_completion_at": _estimated_completion_at(batch),
        "finalizing_at": _unix(batch.finalizing_at),
        "completed_at": _unix(batch.completed_at),
        "failed_at": _unix(batch.failed_at),
        "expired_at": _unix(batch.expired_at),
        "cancelling_at": _unix(batch.cancelling_at),
        "cancelled_at": _unix(batch.cancelled_at),
        "request_counts": _counts(batch),
        "usage": _usage(batch),
        "metadata": batch.metadata,
        "job_id": str(batch.id),
        "retry_of": None if batch.retry_of is None else ids.batch(batch.retry_of),
        "cost_usd": money.usd(batch.cost_nanousd),
        "estimated_cost_usd": money.usd(batch.estimated_nanousd),
        "credits_charged": batch.credits_charged,
        "error_summary": _error_summary(batch),
        "callback": _callback(batch),
    }


def errors_object(errors: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Why a batch was refused; None for no reason. When there are as many as are looked for, the last one says so."""
    if not errors:
        return None
    shown = [{name: error[name] for name in FAULT} for error in errors]
    if len(shown) >= MOST_FAULTS:
        shown[-1]["message"] += STOPPED
    return {"object": "list", "data": shown}


def dry_run_object(checked: Batch, account: Balance) -> dict[str, Any]:
    """What a batch that was only checked would be told."""
    faults = [error for error in checked.errors or [] if error["code"] not in REFUSED_WHOLE]
    has_room = account.room is None or checked.credits_needed <= account.room
    return {
        "valid": not faults,
        "errors": errors_object(faults),
        "lines": checked.lines,
        "estimated_tokens": checked.estimated_tokens,
        "estimated_cost_usd": money.usd(checked.estimated_nanousd),
        "credits_needed": checked.credits_needed,
        "credits_available": account.available,
        "fits": not checked.errors and has_room,
    }


def _counts(batch: BatchView) -> dict[str, int]:
    return {
        "total": batch.total,
        "completed": batch.completed,
        "failed": batch.failed,
        "pending": batch.total - batch.ended - batch.in_progress,
        "in_progress": batch.in_progress,
        "cancelled": batch.cancelled,
        "expired": batch.expired,
    }


def _usage(batch: BatchView) -> dict[str, Any]:
    return {
        "input_tokens": batch.prompt_tokens,
        "input_tokens_details": {"cached_tokens": batch.cached_tokens},
        "output_tokens": batch.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": batch.reasoning_tokens},
        "total_tokens": batch.prompt_tokens + batch.completion_tokens,
    }


def _callback(batch: BatchView) -> dict[str, Any] | None:
    if batch.callback_url is None:
        return None
    return {
        "url": batch.callback_url,
        "events": batch.callback_events,
        "state": batch.callback_state or "pending",
        "last_status": batch.last_status,
    }


def _error_summary(batch: BatchView) -> list[dict[str, Any]]:
    """As it was kept at the end; until then of the lines, and of a refused batch of what it was refused for."""
    if batch.error_summary is not None:
        return batch.error_summary
    if batch.status == BatchStatus.FAILED:
        return batch_facts.refusals(batch.errors or [])
    return batch.failures or []


def _estimated_completion_at(batch: BatchView) -> int | None:
    """Now and the lines left at the pace so far; None before there is one, and at the end."""
    if batch.is_final or batch.in_progress_at is None or not batch.ended:
        return None
    so_far = batch.read_at - batch.in_progress_at
    return _unix(batch.read_at + so_far * ((batch.total - batch.ended) / batch.ended))


def _unix(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp())


def _file(id_: UUID | None) -> str | None:
    return None if id_ is None else ids.file(id_)
