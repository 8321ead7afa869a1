"""Virtual keys: found by hash together with the state and terms of their team; never stored themselves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import insert

from shared import ids, tables
from shared.db import Tx, hot

FIND = """
select k.id, k.hint, k.blocked, k.expires_at, k.team_id, k.user_id, k.models, k.rpm_limit, k.tpm_limit,
       k.max_parallel_requests, k.key_type, k.allowed_routes,
       array(select b.id from budgets b where b.key_id = k.id or b.team_id = k.team_id order by b.id) as budget_ids,
       t.organization_id, t.status as team_status, o.status as organization_status,
       t.paused_until as team_paused_until, o.paused_until as organization_paused_until,
       t.rpm_limit as team_rpm_limit, t.tpm_limit as team_tpm_limit, t.max_parallel_calls, t.max_queued_calls,
       t.budget_mode, t.charge_failed_calls, t.credits_per_dollar, t.tokens_per_credit, t.cost_markup_percentage
  from virtual_keys k
  join teams t on t.id = k.team_id
  join organizations o on o.id = t.organization_id
 where k.hash = %s and (k.revoked_at is null or k.revoked_at > app_now())
"""


@dataclass(frozen=True, kw_only=True)
class Key:
    """A virtual key with what decides whether it may be used, and the terms of the team it acts for.

    models: None means all of the team's. Limits None: no limit. budget_ids: the budgets of key and team, if any.
    """

    id: UUID
    hint: str
    blocked: bool
    expires_at: datetime | None
    team_id: str
    user_id: str | None
    models: list[str] | None
    rpm_limit: int | None
    tpm_limit: int | None
    max_parallel_requests: int | None
    key_type: str
    allowed_routes: list[str] | None
    budget_ids: list[UUID]
    organization_id: str
    team_status: str
    organization_status: str
    team_paused_until: datetime | None
    organization_paused_until: datetime | None
    team_rpm_limit: int | None
    team_tpm_limit: int | None
    max_parallel_calls: int | None
    max_queued_calls: int | None
    budget_mode: str
    charge_failed_calls: bool
    credits_per_dollar: Decimal
    tokens_per_credit: int
    cost_markup_percentage: Decimal


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a key may do less than its team; everything optional."""

    key_alias: str | None = None
    user_id: str | None = None
    models: list[str] | None = None
    rpm_limit: int | None = None
    tpm_limit: int | None = None
    max_parallel_requests: int | None = None
    key_type: str = "default"
    allowed_routes: list[str] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    blocked: bool = False
    expires_at: datetime | None = None
    created_by: str | None = None


async def find(tx: Tx, hash_: bytes) -> Key | None:
    """The key with this hash, unless it was revoked; or None."""
    rows = await hot(tx, FIND, (hash_,))
    return Key(**rows[0]._asdict()) if rows else None


async def create(tx: Tx, team_id: str, *, hash_: bytes, hint: str, terms: Terms = Terms()) -> UUID:
    """Store a key's hash and the hint that reads show. A second key with this hash violates the unique constraint."""
    key_id = ids.new()
    columns = {**vars(terms), "metadata": dict(terms.metadata)}
    made = insert(tables.virtual_keys).values(id=key_id, team_id=team_id, hash=hash_, hint=hint, **columns)
    await tx.execute(made)
    return key_id
