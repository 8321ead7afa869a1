"""Model aliases: our names of providers' models, with their prices, fallbacks and sealed keys."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete as delete_from
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert

from shared import tables
from shared.db import CoreTx, Tx, hot

ALIASES = tables.model_aliases

READ = """
select a.alias, a.litellm_model, a.provider, a.actual_model, a.display_name, a.description, a.active, a.fallbacks,
       a.input_nanousd_per_mtok, a.output_nanousd_per_mtok, a.cached_input_nanousd_per_mtok, a.allow_unpriced,
       a.on_unknown, a.max_output_tokens, a.credential_name, a.api_base, a.api_key_sealed is not null as has_api_key,
       a.created_at, a.updated_at,
       array(select m.group_name from model_access_group_members m where m.alias = a.alias
              order by m.group_name) as access_groups,
       array(select distinct h.team_id from model_access_group_members m
               join team_access_groups h on h.group_name = m.group_name
              where m.alias = a.alias order by h.team_id) as teams
  from model_aliases a
"""

GET = READ + " where a.alias = %s"

MATCHING = """
 where (%(active)s::boolean is null or a.active = %(active)s)
   and (%(provider)s::text is null or a.provider = %(provider)s)
   and (%(group)s::text is null or exists (select from model_access_group_members m
                                            where m.alias = a.alias and m.group_name = %(group)s))
"""

PAGE = READ + MATCHING + " order by a.created_at desc, a.alias limit %(limit)s offset %(offset)s"

COUNT = "select count(*) as total from model_aliases a" + MATCHING

LEAVE_FALLBACKS = """
with concerned as (
    select alias from model_aliases where alias = %(alias)s or %(alias)s = any(fallbacks) order by alias for update
)
update model_aliases a set fallbacks = array_remove(a.fallbacks, %(alias)s), updated_at = app_now()
  from concerned c where a.alias = c.alias and a.alias <> %(alias)s
"""

HELD_GROUPS = """
select m.group_name
  from model_access_group_members m
  join team_access_groups h on h.group_name = m.group_name
  join model_access_groups g on g.group_name = m.group_name and g.status = 'active'
 where m.alias = %s and h.team_id = %s order by h.position, m.group_name
"""


# The rollup counts by the name that clients ask for.
USED = """
select model as alias, sum(calls_completed + calls_failed + calls_cancelled)::bigint as total_calls,
       sum(client_cost_nanousd)::bigint as total_cost_nanousd,
       sum(prompt_tokens + completion_tokens)::bigint as total_tokens
  from usage_daily where model = any(%s) group by model
"""


@dataclass(frozen=True, kw_only=True)
class Alias:
    """An alias with the groups it is in and the teams that hold one of them."""

    alias: str
    litellm_model: str
    provider: str
    actual_model: str
    display_name: str
    description: str | None
    active: bool
    fallbacks: list[str]
    input_nanousd_per_mtok: int | None
    output_nanousd_per_mtok: int | None
    cached_input_nanousd_per_mtok: int | None
    allow_unpriced: bool
    on_unknown: str
    max_output_tokens: int | None
    credential_name: str | None
    api_base: str | None
    has_api_key: bool
    created_at: datetime
    updated_at: datetime
    access_groups: list[str]
    teams: list[str]


@dataclass(frozen=True, kw_only=True)
class AliasUsage:
    """What the calls that asked for an alias came to, once they ended."""

    total_calls: int = 0
    total_cost_nanousd: int = 0
    total_tokens: int = 0


async def create(tx: CoreTx, columns: Mapping[str, Any]) -> bool:
    """Make it; `columns` are those of the table. False when the name is taken, also by one made at the same time."""
    made = insert(ALIASES).values(dict(columns)).on_conflict_do_nothing().returning(ALIASES.c.alias)
    return (await tx.execute(made)).first() is not None


async def change(tx: CoreTx, alias: str, columns: Mapping[str, Any]) -> None:
    """Set these columns; calls already accepted see it at their next attempt."""
    await tx.execute(update(ALIASES).where(ALIASES.c.alias == alias).values(**columns, updated_at=func.app_now()))


async def lock(tx: CoreTx, aliases: Iterable[str]) -> set[str]:
    """Let no other transaction change or delete them until this one ends. Returns those that exist."""
    wanted = select(ALIASES.c.alias).where(ALIASES.c.alias.in_(list(aliases)))
    return set((await tx.execute(wanted.order_by(ALIASES.c.alias).with_for_update())).scalars())


async def delete(tx: CoreTx, alias: str) -> bool:
    """Delete it; it leaves all groups and is nobody's fallback any more. False when there is none."""
    await hot(tx, LEAVE_FALLBACKS, {"alias": alias})
    gone = delete_from(ALIASES).where(ALIASES.c.alias == alias).returning(ALIASES.c.alias)
    return (await tx.execute(gone)).first() is not None


async def get(tx: Tx, alias: str) -> Alias | None:
    """The alias, or None."""
    rows = await hot(tx, GET, (alias,))
    return Alias(**rows[0]._asdict()) if rows else None


async def held_groups(tx: Tx, alias: str, team_id: str) -> list[str]:
    """The active groups of this team that bring the alias."""
    return [row.group_name for row in await hot(tx, HELD_GROUPS, (alias, team_id))]


async def page(
    tx: Tx, *, active: bool | None, provider: str | None, group: str | None, limit: int, offset: int
) -> tuple[list[Alias], int]:
    """Those that match, newest first, and how many match in all."""
    params = {"active": active, "provider": provider, "group": group, "limit": limit, "offset": offset}
    found = [Alias(**row._asdict()) for row in await hot(tx, PAGE, params)]
    return found, (await hot(tx, COUNT, params))[0].total


async def usage(tx: Tx, aliases: Iterable[str]) -> dict[str, AliasUsage]:
    """Of each of these aliases; one never asked for is there too."""
    found = {alias: AliasUsage() for alias in aliases}
    for row in await hot(tx, USED, (list(found),)):
        found[row.alias] = AliasUsage(
            total_calls=row.total_calls, total_cost_nanousd=row.total_cost_nanousd, total_tokens=row.total_tokens
        )
    return found
