"""Virtual keys as they are read: what each may do, what its calls cost, found by id, secret, alias, team or user.

A secret that was replaced finds its key until its grace is over; a revoked key stays readable, its alias is free.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from shared.db import Tx, hot

# The rollup is summed up once for all keys that are shown.
READ = """
with shown as (
    select k.* from virtual_keys k where k.secret_of is null and {matching}
     order by k.created_at desc, k.id desc limit %(limit)s offset %(offset)s
), spent as (
    select u.key_id, sum(u.client_cost_nanousd)::bigint as nanousd from usage_daily u
     where u.key_id in (select id from shown) and u.model <> '' group by u.key_id
)
select k.id, encode(k.hash, 'hex') as token, k.team_id, t.organization_id, k.hint, k.key_alias, k.user_id, k.models,
       k.rpm_limit, k.tpm_limit, k.max_parallel_requests, k.key_type, k.allowed_routes, k.aliases, k.tags, k.metadata,
       k.extra, k.blocked, k.expires_at, k.created_by, k.updated_by, k.last_active_at, k.created_at, k.updated_at,
       case when k.revoked_at <= app_now() then 'revoked' when k.blocked then 'blocked'
            when k.expires_at <= app_now() then 'expired' else 'active' end as status,
       coalesce(s.nanousd, 0) as spent_nanousd
  from shown k join teams t on t.id = k.team_id left join spent s on s.key_id = k.id
 order by k.created_at desc, k.id desc
"""

COUNT = "select count(*) as total from virtual_keys k where k.secret_of is null and {matching}"

MATCHING = {
    "key_id": "k.id = %(key_id)s",
    "team_id": "k.team_id = %(team_id)s",
    "user_id": "k.user_id = %(user_id)s",
    "organization_id": "k.team_id in (select id from teams where organization_id = %(organization_id)s)",
}

LIVE = "(k.revoked_at is null or k.revoked_at > app_now())"

NAMED = """
select k.id, k.team_id, k.user_id, t.organization_id, encode(s.hash, 'hex') as token, k.key_alias
  from virtual_keys s join virtual_keys k on k.id = coalesce(s.secret_of, s.id) join teams t on t.id = k.team_id
 where {matching} and (s.secret_of is null or s.revoked_at > app_now())
 order by k.team_id, k.id
"""

OF_SECRETS = NAMED.format(matching="s.hash = any(%s)")

OF_ALIASES = NAMED.format(matching="s.key_alias = any(%s)")


@dataclass(frozen=True, kw_only=True)
class KeyView:
    """A key as it is read: its own limits, and what its calls cost the team so far. token: its hash, in hex."""

    id: UUID
    token: str
    team_id: str
    organization_id: str
    hint: str
    key_alias: str | None
    user_id: str | None
    models: list[str] | None
    rpm_limit: int | None
    tpm_limit: int | None
    max_parallel_requests: int | None
    key_type: str
    allowed_routes: list[str] | None
    aliases: Mapping[str, str]
    tags: list[str]
    metadata: Mapping[str, Any]
    extra: Mapping[str, Any]
    blocked: bool
    expires_at: datetime | None
    created_by: str | None
    updated_by: str | None
    last_active_at: datetime | None
    created_at: datetime
    updated_at: datetime
    status: str
    spent_nanousd: int


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which keys: those that match everything that is given. live: not those that are revoked."""

    key_id: UUID | None = None
    team_id: str | None = None
    user_id: str | None = None
    organization_id: str | None = None
    live: bool = False


class Named(NamedTuple):
    """A key that a client named by its secret, the hash of it (`token`) or its alias, and who may read it."""

    id: UUID
    team_id: str
    user_id: str | None
    organization_id: str
    token: str
    key_alias: str | None


async def get(tx: Tx, team_id: str, key_id: UUID) -> KeyView | None:
    """A key of this team, revoked ones too; or None."""
    return next(iter(await page(tx, Filter(team_id=team_id, key_id=key_id), limit=1, offset=0)), None)


async def page(tx: Tx, wanted: Filter, *, limit: int, offset: int) -> list[KeyView]:
    """The keys that match, newest first."""
    params = {**vars(wanted), "limit": limit, "offset": offset}
    rows = await hot(tx, READ.format(matching=_matching(wanted)), params)
    return [KeyView(**row._asdict()) for row in rows]


async def count(tx: Tx, wanted: Filter) -> int:
    """How many keys match."""
    total: int = (await hot(tx, COUNT.format(matching=_matching(wanted)), vars(wanted)))[0].total
    return total


async def of_secrets(tx: Tx, hashes: Collection[bytes]) -> list[Named]:
    """The keys that these hashes open or opened, by team and id."""
    return [Named(*row) for row in await hot(tx, OF_SECRETS, (list(hashes),))]


async def of_aliases(tx: Tx, aliases: Collection[str]) -> list[Named]:
    """The keys of these aliases, by team and id."""
    return [Named(*row) for row in await hot(tx, OF_ALIASES, (list(aliases),))]


def _matching(wanted: Filter) -> str:
    found = [condition for name, condition in MATCHING.items() if getattr(wanted, name) is not None]
    return " and ".join([*found, LIVE] if wanted.live else found) or "true"
