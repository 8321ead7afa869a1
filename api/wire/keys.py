"""Virtual keys as admins read them."""

from typing import Literal

from api.wire.answers import Answer, Count, Metadata, Time, Usd


class KeyOut(Answer):
    """A key with its own limits. `spend`: what its calls cost the team; `budget_spend`: in the budget's window."""

    key_id: str
    team_id: str
    key_name: str
    status: Literal["active", "expired", "revoked", "blocked"]
    key_alias: str | None
    user_id: str | None
    models: list[str] | None
    rpm_limit: Count | None
    tpm_limit: Count | None
    max_parallel_requests: Count | None
    allowed_routes: list[str] | None
    spend: Usd
    max_budget: Usd | None
    soft_budget: Usd | None
    budget_spend: Usd | None
    budget_duration: str | None
    budget_reset_at: Time | None
    metadata: Metadata
    blocked: bool
    expires_at: Time | None
    created_by: str | None
    created_at: Time
    updated_at: Time


class NewKeyOut(KeyOut):
    """A new key; `virtual_key` is in this answer only."""

    virtual_key: str


class RevokedKeyOut(Answer):
    """A key that opens nothing any more."""

    key_id: str
    message: str


class RotatedKeyOut(Answer):
    """A key's new secret, in this answer only, and when the replaced one ends (null: there was none)."""

    team_id: str
    virtual_key: str
    previous_key_expires_at: Time | None


class RotatedVirtualKeyOut(RotatedKeyOut):
    """The same for one of several keys."""

    key_id: str
