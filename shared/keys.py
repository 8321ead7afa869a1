"""Virtual keys: found by hash together with the state and terms of their team."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import insert

from shared import ids, tables
from shared.db import Tx, hot

FIND = """
select k.id, k.blocked, k.expires_at, k.team_id, t.organization_id,
       t.status as team_status, o.status as organization_status,
       greatest(t.paused_until, o.paused_until) as paused_until,
       t.rpm_limit, t.tpm_limit, t.budget_mode, t.charge_failed_calls
  from virtual_keys k
  join teams t on t.id = k.team_id
  join organizations o on o.id = t.organization_id
 where k.hash = %s
"""


@dataclass(frozen=True, kw_only=True)
class Key:
    """A virtual key with what decides whether it may be used, and the terms of the team it acts for."""

    id: UUID
    blocked: bool
    expires_at: datetime | None
    team_id: str
    organization_id: str
    team_status: str
    organization_status: str
    paused_until: datetime | None
    rpm_limit: int | None
    tpm_limit: int | None
    budget_mode: str
    charge_failed_calls: bool


async def find(tx: Tx, hash_: bytes) -> Key | None:
    """The key with this hash, or None."""
    rows = await hot(tx, FIND, (hash_,))
    return Key(**rows[0]._asdict()) if rows else None


async def create(tx: Tx, team_id: str, *, hash_: bytes, hint: str) -> UUID:
    """Store a key's hash and the hint that reads show. A second key with this hash violates the unique constraint."""
    key_id = ids.new()
    await tx.execute(insert(tables.virtual_keys).values(id=key_id, team_id=team_id, hash=hash_, hint=hint))
    return key_id
