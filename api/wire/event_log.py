"""What readers of the event log ask for and get."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AliasChoices, Field

from api.fields import Absent, last_moment, moment
from api.wire.answers import Answer
from api.wire.events import EventOut

EARLIEST, LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)

AFTER = "The `next_after` of the page before, or any event's id: the page begins behind it. Without it: at the oldest."
SINCE = "A day or a time in ISO 8601, UTC without an offset: only what happened then or later."
UNTIL = "A day or a time in ISO 8601, UTC without an offset: only what happened then or before; of a day all of it."
TYPES = "Types with commas between them; `job.*` and `*` mean many, but none that has to be named exactly."
WAIT = "Hold an empty page until something comes, for so many seconds, at most 60; the same as `Prefer: wait=N`."
DELIVERED = "Only `false`: what `webhook_id`, or without it any endpoint that wants it, has not acknowledged."
Text = str | None


class CursorQuery(Absent):
    """A page behind an event."""

    after: Annotated[Text, Field(description=AFTER)] = None
    since: Annotated[Text, Field(description=SINCE)] = None
    limit: Annotated[int, Field(ge=1, le=1000, description="How many events a page has at most.")] = 100

    @property
    def since_at(self) -> datetime | None:
        """The first moment included. Raises BadRequest."""
        return None if self.since is None else _clamped(moment("since", self.since))


class JobEventsQuery(CursorQuery):
    """Events of a job; `wait` holds an empty page for so many seconds, at most 60."""

    types: Annotated[Text, Field(description=TYPES, validation_alias=AliasChoices("types", "event_type", "type"))] = (
        None
    )
    until: Annotated[Text, Field(description=UNTIL)] = None
    wait_s: Annotated[float | None, Field(description=WAIT, validation_alias="wait")] = None

    @property
    def until_at(self) -> datetime | None:
        """The last moment included. Raises BadRequest."""
        return None if self.until is None else _clamped(last_moment("until", self.until))


class EventsQuery(JobEventsQuery):
    """Events of a team; `delivered=false`: that endpoint, or any that wants them, has not acknowledged."""

    team_id: Annotated[Text, Field(description="Whose log; a team's key needs none, an admin names one.")] = None
    job_id: Annotated[Text, Field(description="Only events of this job.")] = None
    delivered: Annotated[bool | None, Field(description=DELIVERED)] = None
    webhook_id: Annotated[Text, Field(description="With `delivered=false`: the endpoint that is asked about.")] = None


class EventPageOut(Answer):
    """A page of the log, oldest first. `next_after` is where the next page starts, also when this one is empty.

    It is null only where the log is empty. `evt_` and 32 zeros is the beginning: the place before the oldest event.
    """

    events: list[EventOut]
    next_after: str | None
    has_more: bool


def _clamped(at: datetime) -> datetime:
    """Within what the statements can add a few minutes to."""
    return min(max(at, EARLIEST), LATEST)
