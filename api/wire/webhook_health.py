"""How webhooks do over all teams, as admins read it."""

from typing import Annotated

from pydantic import Field

from api.wire.answers import Answer, Count, Time

Number = Annotated[float, Field(ge=0)]


class DeliveriesOut(Answer):
    """Deliveries by the state they are in now."""

    pending: Count
    delivered: Count
    failing: Count
    exhausted: Count
    aborted: Count
    discarded: Count


class CircuitsOut(Answer):
    """Receivers that are left alone for a while after failures in a row, and those that get a probe next."""

    open: Count
    half_open: Count


class EndpointsOut(Answer):
    """Endpoints by status; `failing` ones are active and had no 2xx since their first failure."""

    active: Count
    failing: Count
    pending_verification: Count
    disabled: Count


class DisabledOut(Answer):
    """Disabled endpoints by reason."""

    manual: Count
    gone: Count
    failing: Count
    url_refused: Count


class WebhookHealthOut(Answer):
    """deliveries: those of the last 24 hours, of which the newest 50,000 are counted.

    waiting: all that is not delivered yet, however old. first_attempt_*_ms: from the event to its first attempt.
    """

    counted_since: Time
    deliveries: DeliveriesOut
    waiting: Count
    oldest_undelivered_age_s: Number | None
    first_attempt_p50_ms: Number | None
    first_attempt_p95_ms: Number | None
    circuits: CircuitsOut
    full_queues: Count
    endpoints: EndpointsOut
    disabled_by_reason: DisabledOut
