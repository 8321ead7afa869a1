"""Model aliases: our names of providers' models, with their prices, fallbacks and sealed keys."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert

from shared import tables
from shared.db import Tx, hot

ALIASES = tables.model_aliases

GET = """
select a.alias, a.litellm_model, a.provider, a.actual_model, a.display_name, a.description, a.active, a.fallbacks,
       a.input_nanousd_per_mtok, a.output_nanousd_per_mtok, a.cached_input_nanousd_per_mtok, a.allow_unpriced,
       a.on_unknown, a.max_output_tokens, a.api_base, a.api_key_sealed is not null as has_api_key,
       a.created_at, a.updated_at,
       array(select m.group_name from model_access_group_members m where m.alias = a.alias
              order by m.group_name) as access_groups,
       array(select distinct h.team_id from model_access_group_members m
               join team_access_groups h on h.group_name = m.group_name
              where m.alias = a.alias order by h.team_id) as teams
  from model_aliases a where a.alias = %s
"""

HELD_GROUPS = """
select m.group_name from model_access_group_members m join team_access_groups h on h.group_name = m.group_name
 where m.alias = %s and h.team_id = %s order by h.position, m.group_name
"""

USAGE = """
select count(*) as total_calls, coalesce(sum(client_cost_nanousd), 0)::bigint as total_cost_nanousd,
       coalesce(avg(prompt_tokens + completion_tokens), 0)::float8 as avg_tokens_per_call
  from attempts where alias = %s and outcome = 'succeeded'
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
    api_base: str | None
    has_api_key: bool
    created_at: datetime
    updated_at: datetime
    access_groups: list[str]
    teams: list[str]


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What the calls that this alias answered came to."""

    total_calls: int
    total_cost_nanousd: int
    avg_tokens_per_call: float


async def create(tx: Tx, columns: Mapping[str, Any]) -> bool:
    """Make it; `columns` are those of the table. False when the name is taken, also by one made at the same time."""
    made = insert(ALIASES).values(dict(columns)).on_conflict_do_nothing().returning(ALIASES.c.alias)
    return (await tx.execute(made)).first() is not None


async def change(tx: Tx, alias: str, columns: Mapping[str, Any]) -> None:
    """Set these columns; calls already accepted see it at their next attempt."""
    await tx.execute(update(ALIASES).where(ALIASES.c.alias == alias).values(**columns, updated_at=func.app_now()))


async def lock(tx: Tx, alias: str) -> bool:
    """Let no other transaction change it until this one ends. False when there is none."""
    return (
        await tx.execute(select(ALIASES.c.alias).where(ALIASES.c.alias == alias).with_for_update())
    ).first() is not None


async def get(tx: Tx, alias: str) -> Alias | None:
    """The alias, or None."""
    rows = await hot(tx, GET, (alias,))
    return Alias(**rows[0]._asdict()) if rows else None


async def held_groups(tx: Tx, alias: str, team_id: str) -> list[str]:
    """The groups of this team that bring the alias."""
    return [row.group_name for row in await hot(tx, HELD_GROUPS, (alias, team_id))]


async def usage(tx: Tx, alias: str) -> Usage:
    """Sums over its succeeded attempts. Reads the whole table of attempts: for single reads by admins only."""
    rows = await hot(tx, USAGE, (alias,))
    return Usage(**rows[0]._asdict())
