"""What the event of a batch's end says: `batch.completed`, `batch.failed`, `batch.expired` or `batch.cancelled`."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from shared import ids, money
from shared.batches import Batch
from shared.events import Event
from shared.facts import job_event
from shared.jobs import Job
from shared.states import BatchStatus, Endpoint


def batch_ended(
    job: Job,
    batch: Batch,
    status: BatchStatus,
    at: datetime,
    *,
    output_file_id: UUID | None = None,
    error_file_id: UUID | None = None,
    error_summary: Sequence[Mapping[str, Any]] = (),
) -> Event:
    """The batch is final, and its files are readable once this is committed.

    job: locked; counted and settled already, saved after this. status: what the batch becomes in this transaction.
    error_summary: [{code, count}], of a refused batch `refusals` of its errors.
    """
    name = ids.batch(batch.id)
    data = {
        "id": name,
        "status": status,
        "endpoint": Endpoint(batch.endpoint).path,
        "request_counts": {
            "total": job.calls_total,
            "completed": job.calls_completed,
            "failed": job.calls_failed - job.calls_expired,
            "cancelled": job.calls_cancelled,
            "expired": job.calls_expired,
        },
        "output_file_id": None if output_file_id is None else ids.file(output_file_id),
        "error_file_id": None if error_file_id is None else ids.file(error_file_id),
        "error_summary": list(error_summary),
        "total_cost_usd": money.usd(job.client_cost_nanousd),
        "credits_charged": job.credits_charged,
        "metadata": job.metadata,
        "result_url": f"/v1/batches/{name}",
    }
    return job_event(job, f"batch.{status}", at, data)


def refusals(errors: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The error_summary of a batch that was refused for these errors, the most frequent code first."""
    return [{"code": code, "count": count} for code, count in Counter(e["code"] for e in errors).most_common()]
