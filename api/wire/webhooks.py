"""Webhook endpoints as clients read them."""

from typing import Annotated, Literal

from pydantic import Field

from api.wire.answers import Answer, Count, Metadata, Time

Status = Literal["active", "pending_verification", "disabled"]
Seconds = Annotated[float, Field(ge=0)]
Milliseconds = Annotated[float, Field(ge=0)]


class WebhookOut(Answer):
    """An endpoint; of its own headers only the names.

    timeout_s and retry_schedule_s are those in effect. circuit: `open` while its tries wait, `half_open` for one probe;
    circuit_until: when that is due, null while it is closed.
    public_key: `whpk_…`, with which v1a signatures are checked; null where it does not sign with them.
    """

    webhook_id: str
    id: str
    team_id: str
    webhook_url: str
    url: str
    events: list[str]
    is_active: bool
    status: Status
    disabled_reason: Literal["manual", "gone", "failing", "url_refused"] | None
    description: str | None
    metadata: Metadata
    signing: Literal["v1", "v1a", "both"]
    public_key: str | None
    payload: Literal["thin", "full"]
    has_auth_header: bool
    header_names: list[str]
    timeout_s: Seconds
    retry_schedule_s: list[Seconds]
    max_rate_per_s: float | None
    max_concurrency: int
    ordered: bool
    verify: bool
    failing_since: Time | None
    circuit: Literal["closed", "open", "half_open"]
    circuit_until: Time | None
    last_status: int | None
    created_at: Time
    updated_at: Time
    last_triggered_at: Time | None


class WebhookCreatedOut(WebhookOut):
    """An endpoint with its signing secret, which is shown only here."""

    secret: str


class EnabledWebhookOut(WebhookOut):
    """An endpoint that is enabled. replay_id: what sends it all since `recover_since`; null without that."""

    replay_id: str | None


class WebhooksOut(Answer):
    """A page of endpoints, newest first."""

    webhooks: list[WebhookOut]
    total: Count
    limit: Count
    offset: Count


class DeletedWebhookOut(Answer):
    """The endpoint is gone."""

    webhook_id: str
    deleted: Literal[True]
    message: str


class TestedOut(Answer):
    """How an example was received. response_head: the first 1,000 bytes of the answer."""

    ok: bool
    status_code: int | None
    latency_ms: Count | None
    response_head: str | None
    error: str | None
    delivery_id: str


class WebhookStatsOut(Answer):
    """How the endpoint did. success_rate: of the deliveries that were tried, from 0 to 1; null before the first.

    first_attempt_*_ms: from the event to the start of its first attempt.
    """

    success_rate: Annotated[float, Field(ge=0, le=1)] | None
    deliveries: Count
    delivered: Count
    failing: Count
    exhausted: Count
    oldest_undelivered_age_s: Seconds | None
    first_attempt_p50_ms: Milliseconds | None
    first_attempt_p95_ms: Milliseconds | None
