"""The models that a key sees, and all that can be asked for: names with what clients are told of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from shared.db import Tx, hot

# As models.RESOLVE decides it: `only` are the aliases and groups that the key is narrowed to; null is no narrowing.
HELD = """
with held as (
    select g.group_name, g.created_at, a.alias
      from team_access_groups h
      join model_access_groups g on g.group_name = h.group_name and g.status = 'active'
      join model_access_group_members m on m.group_name = g.group_name
      join model_aliases a on a.alias = m.alias and a.active
     where h.team_id = %(team_id)s
       and (%(only)s::text[] is null or array[m.alias, m.group_name] && %(only)s)
), seen as (
    select a.alias as name, a.provider, a.litellm_model, a.max_output_tokens, a.created_at
      from model_aliases a where a.alias in (select alias from held)
    union all
    select distinct on (g.group_name) g.group_name, null, null, null::int, g.created_at
      from held g where not exists (select from held a where a.alias = g.group_name)
)
select * from seen where %(names)s::text[] is null or name = any(%(names)s) order by name collate "C"
"""

ACTIVE = """
select a.alias, a.provider, a.litellm_model, a.input_nanousd_per_mtok, a.output_nanousd_per_mtok,
       a.cached_input_nanousd_per_mtok, a.allow_unpriced,
       a.api_key_sealed is not null or a.api_base is not null or exists (
           select from provider_credentials p
            where p.provider = a.provider and (p.is_active or p.credential_name = a.credential_name)) as has_key,
       array(select m.group_name from model_access_group_members m
               join model_access_groups g on g.group_name = m.group_name and g.status = 'active'
              where m.alias = a.alias) as groups
  from model_aliases a where a.active order by a.alias collate "C"
"""


@dataclass(frozen=True, kw_only=True)
class Visible:
    """A name that may be asked for. provider, litellm_model: None for a group of models."""

    name: str
    provider: str | None
    litellm_model: str | None
    max_output_tokens: int | None
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Active:
    """An alias that is not switched off. has_key: somebody's, or it needs none; the environment is not known here."""

    alias: str
    provider: str
    litellm_model: str
    input_nanousd_per_mtok: int | None
    output_nanousd_per_mtok: int | None
    cached_input_nanousd_per_mtok: int | None
    allow_unpriced: bool
    has_key: bool
    groups: list[str]


async def of_key(tx: Tx, team_id: str, *, only: Sequence[str] | None, names: Sequence[str] | None) -> list[Visible]:
    """The aliases the team may use and the groups it holds that have one, by name; an alias hides a group of its name.

    only: what the key is narrowed to; none at all means everything its team may use. names: no others than these (None:
    all).
    """
    params = {"team_id": team_id, "only": list(only) if only else None, "names": None if names is None else list(names)}
    return [Visible(**row._asdict()) for row in await hot(tx, HELD, params)]


async def active(tx: Tx) -> list[Active]:
    """Every active alias, by name, with the active groups that hold it."""
    return [Active(**row._asdict()) for row in await hot(tx, ACTIVE, {})]
