"""Deliveries and replays: what may be asked for, and what clients read."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AliasChoices, Field

from api.fields import Absent, LastMoment, Moment, last_moment, moment
from api.lists import Page
from api.wire.answers import Answer, Count, Time
from api.wire.event_log import SINCE, UNTIL
from shared.states import DeliveryState, ReplayState

MAX_EVENT_IDS = 1000
DEFAULT_RATE_PER_S = 10.0

Words = Annotated[str, Field(max_length=1000)]
"""One word or several, with commas between them."""
EventId = Annotated[str, Field(max_length=100)]
Rate = Annotated[float, Field(ge=0.1, le=1000, allow_inf_nan=False)]
Word = Annotated[str, Field(max_length=100)]


STATUS = (
    "States with commas between them, of `pending failing delivered exhausted aborted discarded`, or `undelivered`."
)
TYPES = "Types with commas between them; `job.*` and `*` mean every type that begins so."
TESTS = "Only `test`: the examples that were sent by hand. Without it they are in no list that does not ask for them."


class DeliveriesQuery(Page):
    """Which deliveries. Tests are among them when asked for by `trigger`, `event_id` or `event_type=webhook.test`."""

    status: Annotated[Words | None, Field(description=STATUS)] = None
    event_type: Annotated[
        Words | None, Field(description=TYPES, validation_alias=AliasChoices("event_type", "types", "type"))
    ] = None
    event_id: Annotated[EventId | None, Field(description="Only of this event.")] = None
    job_id: Annotated[Word | None, Field(description="Only of events of this job, its callbacks among them.")] = None
    since: Annotated[Word | None, Field(description=SINCE)] = None
    until: Annotated[Word | None, Field(description=UNTIL)] = None
    trigger: Annotated[Literal["test"] | None, Field(description=TESTS)] = None

    @property
    def since_at(self) -> datetime | None:
        """The first moment included. Raises BadRequest."""
        return None if self.since is None else moment("since", self.since)

    @property
    def until_at(self) -> datetime | None:
        """The last moment included. Raises BadRequest."""
        return None if self.until is None else last_moment("until", self.until)


class AllDeliveriesQuery(DeliveriesQuery):
    """Which deliveries of which team; a team's key needs no `team_id`, an admin names one."""

    team_id: Annotated[str | None, Field(description="A team's key needs none, an admin names one.")] = None


class ReplayIn(Absent):
    """Which events to send again: `event_ids`, or at least one of `since`, `until`, `types`, `job_id`, `statuses`.

    types: types, `job.*` or `*`; without them and without `job_id` those that the endpoint subscribes to.
    job_id: with no `types` the job's whole history. statuses: of the event's latest delivery to this endpoint.
    id_mode `same`: receivers see the ids that the events have. rate_per_s: most deliveries made per second.
    """

    event_ids: Annotated[list[EventId], Field(min_length=1, max_length=MAX_EVENT_IDS)] | None = None
    since: Moment | None = None
    until: LastMoment | None = None
    types: Annotated[list[Word], Field(min_length=1, max_length=50)] | None = None
    job_id: Word | None = None
    statuses: Annotated[list[Word], Field(min_length=1, max_length=10)] | None = None
    id_mode: Literal["same", "new"]
    dry_run: bool = False
    rate_per_s: Rate = DEFAULT_RATE_PER_S


class RecoverIn(Absent):
    """Send what the endpoint was not delivered since then; at most `rate_per_s` each second."""

    since: Moment
    rate_per_s: Rate = DEFAULT_RATE_PER_S


class DeliveryOut(Answer):
    """One event for one target: an endpoint, or a callback (`webhook_id` null).

    trigger: `test` for an example, sent once, with no event in the log; else what its next attempt is made for.
    """

    delivery_id: str
    event_id: str
    event_type: str
    webhook_id: str | None
    url: str | None
    job_id: str | None
    status: DeliveryState
    trigger: Literal["scheduled", "manual", "replay", "test"]
    attempt_count: Count
    last_status: int | None
    last_error: str | None
    next_attempt_at: Time | None
    created_at: Time
    delivered_at: Time | None
    replay_id: str | None


class DeliveriesOut(Answer):
    """A page of deliveries, newest first."""

    deliveries: list[DeliveryOut]
    total: Count
    limit: Count
    offset: Count


class AttemptOut(Answer):
    """One POST. error_class: what went wrong; null for a 2xx. response_head: the first 1,000 bytes of the answer."""

    attempt: Count
    trigger: Literal["scheduled", "manual", "replay", "test"]
    started_at: Time
    duration_ms: Count | None
    dns_ms: Count | None
    connect_ms: Count | None
    first_byte_ms: Count | None
    status_code: int | None
    error_class: str | None
    error: str | None
    response_headers: dict[str, str] | None
    response_head: str | None
    redirect_target: str | None


class DeliveryDetailOut(DeliveryOut):
    """A delivery with what was sent and what came back.

    request_headers: all of the latest attempt; `…` stands for values that were given to us. request_body: as sent, byte
    for byte; null once its event is kept no longer.
    """

    attempts: list[AttemptOut]
    request_headers: dict[str, str] | None
    request_body: str | None


class ReplayMadeOut(Answer):
    """A replay that was started."""

    replay_id: str
    matched: Count
    state: ReplayState


class ReplayListedOut(ReplayMadeOut):
    """A replay, without what became of its deliveries."""

    webhook_id: str
    rate_per_s: float
    created_at: Time
    finished_at: Time | None


class ReplaysOut(Answer):
    """A page of an endpoint's replays, newest first."""

    replays: list[ReplayListedOut]
    total: Count
    limit: Count
    offset: Count


class ReplayPreviewOut(Answer):
    """What a replay would send: how many events, and the ids of the oldest and the newest."""

    matched: Count
    first: str | None
    last: str | None


class ReplayOut(ReplayMadeOut):
    """How a replay stands: `sent` were tried at least once, of these `delivered` were taken and `failing` not yet.

    waiting: neither tried nor given up yet. discarded: given up, as those that another replay of the same events has
    replaced. It is finished once all its deliveries are made; they are then sent and retried like any other.
    """

    webhook_id: str
    sent: Count
    delivered: Count
    failing: Count
    waiting: Count
    discarded: Count
    rate_per_s: float
    created_at: Time
    finished_at: Time | None
