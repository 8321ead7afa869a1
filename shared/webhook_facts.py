"""What an operational event says of an endpoint, a delivery or a job that is on its way: the `data` of each type."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from shared import clock, ids
from shared.events import Event
from shared.facts import counts, job_event, team_event
from shared.jobs import Job

DISABLED = "webhook.endpoint.disabled"
FAILING = "webhook.endpoint.failing"
EXHAUSTED = "webhook.delivery.exhausted"
RECOVERED = "webhook.delivery.recovered"
PROGRESS = "job.progress"


@dataclass(frozen=True, kw_only=True)
class Run:
    """An endpoint's run of failures.

    undelivered: events that it should have received and did not; they stay in the log.
    """

    id: UUID
    team_id: str
    url: str
    failing_since: datetime | None
    failed_attempts: int
    last_status: int | None
    undelivered: int


@dataclass(frozen=True, kw_only=True)
class Attempted:
    """What an attempt that is ours to record came to. state: the delivery's new one. was_failing: it had failed before.

    url: where it was sent; another one than the endpoint's says nothing of it. gone: the receiver said 410.
    endpoint_id: None for a callback.
    trigger `test`: an example, which says nothing about the endpoint's health.
    """

    delivery_id: UUID
    event_id: UUID
    event_type: str
    team_id: str
    endpoint_id: UUID | None
    url: str
    state: str
    was_failing: bool
    trigger: str
    attempt_count: int
    status: int | None
    error_class: str | None
    error: str | None
    gone: bool


def endpoint_disabled(run: Run, *, reason: str, disabled_at: datetime, at: datetime) -> Event:
    """An endpoint was disabled: `manual`, `gone` (410), `failing` (for too long) or `url_refused`."""
    data = {**_endpoint(run), "reason": reason, "disabled_at": clock.iso(disabled_at)}
    return team_event(DISABLED, run.team_id, at, data)


def endpoint_failing(run: Run, *, percent: int, disable_after_s: float, at: datetime) -> Event:
    """Nothing but failures for `percent` of the time after which the endpoint is disabled."""
    since = run.failing_since or at
    disables_at = since + timedelta(seconds=disable_after_s)
    data = {**_endpoint(run), "percent": percent, "disables_at": clock.iso(disables_at)}
    return team_event(FAILING, run.team_id, at, data)


def delivery_exhausted(last: Attempted, url: str, at: datetime) -> Event:
    """A delivery had its last try: it is kept and can be retried or replayed. url: where it goes by now."""
    return team_event(EXHAUSTED, last.team_id, at, _delivery(last, url))


def delivery_recovered(last: Attempted, url: str, at: datetime) -> Event:
    """A delivery that had failed was taken. url: as above."""
    return team_event(RECOVERED, last.team_id, at, _delivery(last, url))


def job_progress(job: Job, in_progress: int, at: datetime) -> Event:
    """How many calls of a job stand where; the job is locked and not final."""
    return job_event(job, PROGRESS, at, {"id": str(job.id), "status": job.status, "counts": counts(job, in_progress)})


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


def _delivery(last: Attempted, url: str) -> dict[str, Any]:
    id_ = ids.prefixed("dlv", last.delivery_id)
    return {
        "id": id_,
        "delivery_id": id_,
        "event_id": ids.prefixed("evt", last.event_id),
        "event_type": last.event_type,
        "webhook_id": None if last.endpoint_id is None else ids.prefixed("whe", last.endpoint_id),
        "url": url,
        "attempt_count": last.attempt_count,
        "last_status": last.status,
        "last_error": last.error,
    }
