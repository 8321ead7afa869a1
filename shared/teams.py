"""Teams: an organization's accounts, with their limits, rates and the model access groups they hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import func, update
from sqlalchemy.dialects.postgresql import insert

from shared import tables
from shared.db import Tx, hot

GET = """
select t.id, t.organization_id, t.team_alias, t.status, t.paused_until, t.default_model, t.budget_mode,
       t.alert_at_percentage, t.credits_per_dollar, t.tokens_per_credit, t.cost_markup_percentage,
       t.charge_failed_calls, t.rpm_limit, t.tpm_limit, t.max_parallel_calls, t.max_queued_calls, t.weight,
       t.store_payloads, t.metadata, t.created_at, t.updated_at,
       (select k.hint from virtual_keys k where k.team_id = t.id and not k.blocked
         order by k.id desc limit 1) as key_hint,
       array(select h.group_name from team_access_groups h where h.team_id = t.id
              order by h.position, h.group_name) as access_groups,
       array(select alias
               from (select distinct on (m.alias) m.alias, h.position as held_at, m.priority, m.position
                       from team_access_groups h
                       join model_access_groups g on g.group_name = h.group_name and g.status = 'active'
                       join model_access_group_members m on m.group_name = h.group_name
                       join model_aliases a on a.alias = m.alias and a.active
                      where h.team_id = t.id
                      order by m.alias, h.position, m.priority, m.position) as usable
              order by held_at, priority, position) as aliases
  from teams t where t.id = %s
"""

USAGE = """
select count(*) as total_jobs, coalesce(sum(client_cost_nanousd), 0)::bigint as total_cost_nanousd
  from jobs where team_id = %s
"""

SET_ACCESS_GROUPS = """
with wanted as (
    select g.group_name, w.n - 1 as position
      from unnest(%(groups)s::text[]) with ordinality as w(group_name, n) join model_access_groups g using (group_name)
), left_out as (
    delete from team_access_groups where team_id = %(team_id)s and group_name <> all (%(groups)s::text[])
)
insert into team_access_groups (team_id, group_name, position) select %(team_id)s, group_name, position from wanted
on conflict (team_id, group_name) do update set position = excluded.position
returning group_name
"""


@dataclass(frozen=True, kw_only=True)
class Team:
    """A team with its groups in order, the active aliases they bring, and its newest key's hint."""

    id: str
    organization_id: str
    team_alias: str | None
    status: str
    paused_until: datetime | None
    default_model: str | None
    budget_mode: str
    alert_at_percentage: list[Decimal]
    credits_per_dollar: Decimal
    tokens_per_credit: int
    cost_markup_percentage: Decimal
    charge_failed_calls: bool
    rpm_limit: int | None
    tpm_limit: int | None
    max_parallel_calls: int | None
    max_queued_calls: int | None
    weight: int
    store_payloads: bool
    metadata: Mapping[str, Any]
    created_at: datetime
    updated_at: datetime
    key_hint: str | None
    access_groups: list[str]
    aliases: list[str]


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What all jobs of a team came to."""

    total_jobs: int
    total_cost_nanousd: int


async def create(tx: Tx, team_id: str, **columns: Any) -> bool:
    """Make it; `columns` are those of the table. False when the id is taken, also by one made at the same time."""
    made = insert(tables.teams).values(id=team_id, **columns).on_conflict_do_nothing().returning(tables.teams.c.id)
    return (await tx.execute(made)).first() is not None


async def set_access_groups(tx: Tx, team_id: str, groups: Sequence[str]) -> set[str]:
    """Give it these groups, in this order, and no others. Returns those that exist."""
    return {row.group_name for row in await hot(tx, SET_ACCESS_GROUPS, {"team_id": team_id, "groups": list(groups)})}


async def set_status(tx: Tx, team_id: str, status: str) -> bool:
    """Suspend or resume it; a pause ends with either. False when there is no such team."""
    changed = (
        update(tables.teams)
        .where(tables.teams.c.id == team_id)
        .values(status=status, paused_until=None, updated_at=func.app_now())
        .returning(tables.teams.c.id)
    )
    return (await tx.execute(changed)).first() is not None


async def get(tx: Tx, team_id: str) -> Team | None:
    """The team, or None."""
    rows = await hot(tx, GET, (team_id,))
    return Team(**rows[0]._asdict()) if rows else None


async def usage(tx: Tx, team_id: str) -> Usage:
    """Sums over every job of the team."""
    rows = await hot(tx, USAGE, (team_id,))
    return Usage(**rows[0]._asdict())
