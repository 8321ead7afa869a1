"""Virtual keys: found by hash together with the state and terms of their team; never stored themselves.

A key keeps its row when its secret is replaced: the secret it had moves to a row of its own (`secret_of`), which opens
the same key until `revoked_at`, so that both count against one budget and no secret is ever given out twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert

from shared import ids, tables
from shared.db import CoreTx, Tx, hot

KEYS = tables.virtual_keys

FOUND = """
select k.id, k.hint, k.blocked, k.expires_at, k.team_id, k.user_id, k.models, k.rpm_limit, k.tpm_limit,
       k.max_parallel_requests, k.key_type, k.allowed_routes, k.aliases,
       array(select b.id from budgets b where b.key_id = k.id or b.team_id = k.team_id order by b.id) as budget_ids,
       t.organization_id,
       case when t.status = 'paused' and t.paused_until <= app_now() then 'active' else t.status end as team_status,
       case when o.status = 'paused' and o.paused_until <= app_now() then 'active' else o.status
        end as organization_status,
       t.paused_until as team_paused_until, o.paused_until as organization_paused_until,
       t.rpm_limit as team_rpm_limit, t.tpm_limit as team_tpm_limit, t.max_parallel_calls, t.max_queued_calls,
       t.budget_mode, t.charge_failed_calls, t.credits_per_dollar, t.tokens_per_credit, t.cost_markup_percentage,
       b.max_nanousd, case when b.resets_at <= app_now() then 0 else coalesce(b.spent_nanousd, 0) end as spent_nanousd
  from virtual_keys s
  join virtual_keys k on k.id = coalesce(s.secret_of, s.id)
  left join budgets b on b.key_id = k.id
  join teams t on t.id = k.team_id
  join organizations o on o.id = t.organization_id
 where {which} and t.status <> 'deleted' and o.status <> 'deleted'
   and (s.revoked_at is null or s.revoked_at > app_now()) and (k.revoked_at is null or k.revoked_at > app_now())
"""

FIND = FOUND.format(which="s.hash = %s")

FIND_OWN = FOUND.format(which="s.team_id = %s and s.secret_of is null") + " order by s.created_at, s.id limit 1"

READ = FOUND.format(which="s.id = %s and s.secret_of is null")

FIRST = """
select id from virtual_keys
 where team_id = %s and secret_of is null and (revoked_at is null or revoked_at > app_now())
 order by created_at, id limit 1
"""

LOCK = """
select id, hash, hint from virtual_keys
 where team_id = %s and id = %s and secret_of is null and (revoked_at is null or revoked_at > app_now())
   for no key update
"""

KEEP_REPLACED = """
insert into virtual_keys (id, team_id, secret_of, hash, hint, revoked_at)
values (%(id)s, %(team_id)s, %(key_id)s, %(hash)s, %(hint)s, app_now() + make_interval(secs => %(grace_s)s))
returning revoked_at
"""

SAW = """
with free as (
    select k.id, r.at from unnest(%s::uuid[], %s::timestamptz[]) as r(id, at) join virtual_keys k on k.id = r.id
     order by k.id for no key update of k skip locked
)
update virtual_keys k set last_active_at = greatest(k.last_active_at, f.at) from free f where k.id = f.id
returning k.id
"""

END_REPLACED = "update virtual_keys set revoked_at = app_now() where secret_of = %s and revoked_at > app_now()"

EXPIRE = """
update virtual_keys set expires_at = app_now() + make_interval(months => %s, secs => %s) where id = %s
"""

REVOKE = """
update virtual_keys set revoked_at = app_now(), key_alias = null, updated_at = app_now()
 where team_id = %(team_id)s and (%(key_id)s::uuid is null or id = %(key_id)s) and secret_of is null
   and (revoked_at is null or revoked_at > app_now())
returning id
"""


@dataclass(frozen=True, kw_only=True)
class Key:
    """A virtual key with what decides whether it may be used, and the terms of the team it acts for.

    models: None means all of the team's. aliases: asked name -> the name it stands for. Limits None: no limit.
    budget_ids: the budgets of key and team, if any.
    max_nanousd, spent_nanousd: of the key's own budget, as it stood when the key was read; None: it has none.
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
    aliases: Mapping[str, str] = field(default_factory=dict)
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
    max_nanousd: int | None = None
    spent_nanousd: int = 0


@dataclass(frozen=True, kw_only=True)
class OwnTerms:
    """What a key may do less than its team; everything optional."""

    key_alias: str | None = None
    user_id: str | None = None
    models: list[str] | None = None
    rpm_limit: int | None = None
    tpm_limit: int | None = None
    max_parallel_requests: int | None = None
    key_type: str = "default"
    allowed_routes: list[str] | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    extra: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    blocked: bool = False
    expires_at: datetime | None = None
    created_by: str | None = None
    updated_by: str | None = None


async def find(tx: Tx, hash_: bytes) -> Key | None:
    """The key with this hash, unless it, its team or its organization is gone; or None."""
    rows = await hot(tx, FIND, (hash_,))
    return Key(**rows[0]._asdict()) if rows else None


async def find_own(tx: Tx, team_id: str) -> Key | None:
    """The team's own key: the oldest that is not revoked; or None."""
    rows = await hot(tx, FIND_OWN, (team_id,))
    return Key(**rows[0]._asdict()) if rows else None


async def read(tx: Tx, key_id: UUID) -> Key | None:
    """The key as it is now, unless it, its team or its organization is gone; or None."""
    rows = await hot(tx, READ, (key_id,))
    return Key(**rows[0]._asdict()) if rows else None


async def create(tx: CoreTx, team_id: str, *, hash_: bytes, hint: str, terms: OwnTerms = OwnTerms()) -> UUID | None:
    """Store a key's hash and the hint that reads show. None when the hash, or the alias, is another key's."""
    columns = {name: dict(value) if isinstance(value, Mapping) else value for name, value in vars(terms).items()}
    new = insert(KEYS).values(id=ids.new(), team_id=team_id, hash=hash_, hint=hint, **columns)
    key_id: UUID | None = await tx.scalar(new.on_conflict_do_nothing().returning(KEYS.c.id))
    return key_id


async def alias_owner(tx: CoreTx, key_alias: str) -> UUID | None:
    """The key of this alias, or None."""
    key_id: UUID | None = await tx.scalar(select(KEYS.c.id).where(KEYS.c.key_alias == key_alias))
    return key_id


async def saw(tx: Tx, last_active: Mapping[UUID, datetime]) -> set[UUID]:
    """Note when keys were used. Returns those noted: a key that somebody has locked is not waited for."""
    at = sorted(last_active)
    return {row.id for row in await hot(tx, SAW, (at, [last_active[id_] for id_ in at]))}


async def first(tx: Tx, team_id: str) -> UUID | None:
    """The team's own key: the oldest that is not revoked."""
    rows = await hot(tx, FIRST, (team_id,))
    return rows[0].id if rows else None


async def change(tx: CoreTx, key_id: UUID, columns: Mapping[str, Any]) -> None:
    """Set these columns. An alias of another key violates its unique constraint."""
    await tx.execute(update(KEYS).where(KEYS.c.id == key_id).values(**columns, updated_at=func.app_now()))


async def expire(tx: Tx, key_id: UUID, *, months: int | None, seconds: int | None) -> None:
    """Let it expire so much from now; with None, never."""
    await hot(tx, EXPIRE, (months, seconds, key_id))


async def lock(tx: Tx, team_id: str, key_id: UUID) -> tuple[bytes, str] | None:
    """Hash and hint of a key that is not revoked; nobody else changes it until `tx` ends. None when there is none."""
    rows = await hot(tx, LOCK, (team_id, key_id))
    return (bytes(rows[0].hash), rows[0].hint) if rows else None


async def keep_old_secret(tx: Tx, team_id: str, key_id: UUID, *, hash_: bytes, hint: str, grace_s: int) -> datetime:
    """Let the secret that a locked key had until now open it for `grace_s` more. Returns when that ends."""
    params = {"id": ids.new(), "team_id": team_id, "key_id": key_id, "hash": hash_, "hint": hint, "grace_s": grace_s}
    ends_at: datetime = (await hot(tx, KEEP_REPLACED, params))[0].revoked_at
    return ends_at


async def end_old_secrets(tx: Tx, key_id: UUID) -> None:
    """End every secret the key had before, now."""
    await hot(tx, END_REPLACED, (key_id,))


async def revoke(tx: Tx, team_id: str, key_id: UUID | None = None) -> bool:
    """Revoke a key, or all keys of the team; aliases are free again. False when there was none to revoke."""
    return bool(await hot(tx, REVOKE, {"team_id": team_id, "key_id": key_id}))
