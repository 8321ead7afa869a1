"""Webhook endpoints as clients read them."""

from typing import Literal

from api.wire.answers import Answer, Time


class WebhookOut(Answer):
    """An endpoint; of its own headers only the names."""

    webhook_id: str
    id: str
    team_id: str
    webhook_url: str
    url: str
    events: list[str]
    is_active: bool
    status: Literal["active", "pending_verification", "disabled"]
    disabled_reason: str | None
    description: str | None
    signing: Literal["v1"]
    has_auth_header: bool
    header_names: list[str]
    failing_since: Time | None
    last_status: int | None
    created_at: Time
    updated_at: Time
    last_triggered_at: Time | None


class WebhookCreatedOut(WebhookOut):
    """An endpoint with its signing secret, which is shown only here."""

    secret: str
