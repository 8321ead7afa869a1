"""What an operational event says of an endpoint, a delivery or a job that is on its way: the `data` of each type."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from shared import clock, ids
from shared.events import Event
from shared.jobs import Job

DISABLED = "webhook.endpoint.disabled"
FAILING = "webhook.endpoint.failing"
EXHAUSTED = "webhook.delivery.exhausted"
RECOVERED = "webhook.delivery.recovered"
PROGRESS = "job.progress"


@dataclass(frozen=True, kw_only=True)
class Run:
    """An endpoint's run of failures. undelivered: events that it had to get and did not; they stay in the log."""

    id: UUID
    team_id: str
    url: str
    failing_since: datetime | None
    failed_attempts: int
    last_status: int | None
    undelivered: int


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A delivery that was given up, or taken after it had failed. endpoint_id: None for a callback."""

    id: UUID
    event_id: UUID
    event_type: str
    team_id: str
    endpoint_id: UUID | None
    url: str
    attempt_count: int
    last_status: int | None
    last_error: str | None


def endpoint_disabled(run: Run, *, reason: str, disabled_at: datetime, at: datetime) -> Event:
    """An endpoint was disabled: `manual`, `gone` (410), `failing` (for too long) or `url_refused`."""
    data = {**_endpoint(run), "reason": reason, "disabled_at": clock.iso(disabled_at)}
    return _team_event(DISABLED, run.team_id, at, data)


def endpoint_failing(run: Run, *, percent: int, disable_after_s: float, at: datetime) -> Event:
    """Nothing but failures for `percent` of the time after which the endpoint is disabled."""
    since = run.failing_since or at
    disables_at = since + timedelta(seconds=disable_after_s)
    data = {**_endpoint(run), "percent": percent, "disables_at": clock.iso(disables_at)}
    return _team_event(FAILING, run.team_id, at, data)


def delivery_exhausted(ended: Ended, at: datetime) -> Event:
    """A delivery had its last try: it is kept and can be retried or replayed."""
    return _team_event(EXHAUSTED, ended.team_id, at, _delivery(ended))


def delivery_recovered(ended: Ended, at: datetime) -> Event:
    """A delivery that had failed was taken."""
    return _team_event(RECOVERED, ended.team_id, at, _delivery(ended))


def job_progress(job: Job, counts: Mapping[str, int], at: datetime) -> Event:
    """How many calls of a job stand where; the job is locked and not final. counts: as in the job object."""
    return Event(
        id=ids.new(),
        type=PROGRESS,
        team_id=job.team_id,
        job_id=job.id,
        subject_id=None,
        sequence=job.next_sequence(),
        at=at,
        data={"id": str(job.id), "status": job.status, "counts": dict(counts)},
    )


def _endpoint(run: Run) -> dict[str, Any]:
    id_ = ids.prefixed("whe", run.id)
    return {
        "id": id_,
        "endpoint_id": id_,
        "url": run.url,
        "first_failure_at": clock.iso(run.failing_since),
        "failed_attempts": run.failed_attempts,
        "last_status": run.last_status,
        "undelivered_events": run.undelivered,
    }


def _delivery(ended: Ended) -> dict[str, Any]:
    id_ = ids.prefixed("dlv", ended.id)
    return {
        "id": id_,
        "delivery_id": id_,
        "event_id": ids.prefixed("evt", ended.event_id),
        "event_type": ended.event_type,
        "webhook_id": None if ended.endpoint_id is None else ids.prefixed("whe", ended.endpoint_id),
        "url": ended.url,
        "attempt_count": ended.attempt_count,
        "last_status": ended.last_status,
        "last_error": ended.last_error,
    }


def _team_event(type_: str, team_id: str, at: datetime, data: Mapping[str, Any]) -> Event:
    return Event(
        id=ids.new(), type=type_, team_id=team_id, job_id=None, subject_id=None, sequence=None, at=at, data=data
    )
