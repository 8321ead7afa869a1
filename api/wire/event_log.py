"""What readers of the event log ask for and get."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field

from api.fields import Absent
from api.wire.answers import Answer
from api.wire.events import EventOut
from shared.errors import BadRequest

EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)


class CursorQuery(Absent):
    """A page behind an event."""

    after: str | None = None
    since: str | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100

    @property
    def since_at(self) -> datetime | None:
        """The first moment included. Raises BadRequest."""
        return moment("since", self.since)


class JobEventsQuery(CursorQuery):
    """Events of a job; `wait` holds an empty page for so many seconds, at most 60."""

    types: str | None = None
    until: str | None = None
    wait_s: Annotated[float | None, Field(validation_alias="wait")] = None

    @property
    def until_at(self) -> datetime | None:
        """The last moment included. Raises BadRequest."""
        return moment("until", self.until)


class EventsQuery(JobEventsQuery):
    """Events of a team; `delivered=false`: that endpoint, or any that wants them, has not acknowledged."""

    team_id: str | None = None
    job_id: str | None = None
    delivered: bool | None = None
    webhook_id: str | None = None


class EventPageOut(Answer):
    """A page of the log, oldest first. `next_after` is where the next page starts, also when this one is empty."""

    events: list[EventOut]
    next_after: str | None
    has_more: bool


def moment(field: str, text: str | None) -> datetime | None:
    """An ISO day or time; without a zone it is UTC. Raises BadRequest."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
        aware = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadRequest(f"Invalid {field} format: {text}. Use ISO format (YYYY-MM-DD)") from None
    return min(max(aware, EARLIEST), LATEST)
