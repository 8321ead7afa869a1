"""Teams: an organization's accounts, with their limits, rates and the model access groups they hold.

A deleted team keeps its row for the books; every read here leaves it out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import func, update
from sqlalchemy.dialects.postgresql import insert

from shared import tables
from shared.db import CoreTx, Tx, hot

TEAMS = tables.teams

READ = """
select t.id, t.organization_id, t.team_alias, t.default_model, t.budget_mode,
       case when t.status = 'paused' and t.paused_until <= app_now() then 'active' else t.status end as status,
       case when t.paused_until > app_now() then t.paused_until end as paused_until,
       t.alert_at_percentage, t.credits_per_dollar, t.tokens_per_credit, t.cost_markup_percentage,
       t.charge_failed_calls, t.rpm_limit, t.tpm_limit, t.max_parallel_calls, t.max_queued_calls, t.weight,
       t.store_payloads, t.metadata, t.created_at, t.updated_at,
       b.max_nanousd, b.duration as budget_duration,
       case when b.resets_at <= app_now() then 0 else b.spent_nanousd end as budget_spent_nanousd,
       (select k.hint from virtual_keys k
         where k.team_id = t.id and k.secret_of is null and (k.revoked_at is null or k.revoked_at > app_now())
         order by k.created_at, k.id limit 1) as key_hint,
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
  from teams t left join budgets b on b.team_id = t.id
 where t.status <> 'deleted'
"""

GET = READ + " and t.id = %s"

PAGE = READ + " order by t.created_at desc, t.id desc limit %s offset %s"

OF_ORGANIZATION = READ + " and t.organization_id = %s order by t.created_at, t.id"

COUNT = "select count(*) as total from teams where status <> 'deleted'"

# What it holds of model groups goes with it, so that those can be deleted; everything else is kept for the books.
DELETE = """
with gone as (
    update teams set status = 'deleted', paused_until = null, updated_at = app_now()
     where id = %s and status <> 'deleted' returning id
), held as (
    delete from team_access_groups where team_id in (select id from gone)
)
select id from gone
"""

# A job that outlives its team by a day is ended by its own idle timeout.
JOBS_OF_DELETED = """
select j.id from teams t join jobs j on j.team_id = t.id
 where t.status = 'deleted' and j.status in ('pending', 'in_progress')
   and case when %(team_id)s::text is null then t.updated_at > app_now() - interval '1 day' else t.id = %(team_id)s end
 limit %(limit)s
"""

SET_ACCESS_GROUPS = """
with wanted as (
    select g.group_name, w.n - 1 as position
      from unnest(%(groups)s::text[]) with ordinality as w(group_name, n) join model_access_groups g using (group_name)
       for key share of g
), left_out as (
    delete from team_access_groups where team_id = %(team_id)s and group_name <> all (%(groups)s::text[])
)
insert into team_access_groups (team_id, group_name, position) select %(team_id)s, group_name, position from wanted
on conflict (team_id, group_name) do update set position = excluded.position
returning group_name
"""

SET_STATUS = """
update teams set status = %(status)s, paused_until = %(until)s, updated_at = app_now()
 where id = %(team_id)s and status <> 'deleted' and (%(until)s::timestamptz is null or %(until)s > app_now())
returning id
"""

LOCK = "select organization_id from teams where id = %s and status <> 'deleted' for no key update"


@dataclass(frozen=True, kw_only=True)
class Team:
    """A team with its groups in order, the active aliases they bring, its USD budget and its own key's hint."""

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
    max_nanousd: int | None
    budget_duration: str | None
    budget_spent_nanousd: int | None
    key_hint: str | None
    access_groups: list[str]
    aliases: list[str]


async def create(tx: CoreTx, team_id: str, **columns: Any) -> bool:
    """Make it; `columns` are those of the table. False when the id is taken, also by one made at the same time."""
    made = insert(TEAMS).values(id=team_id, **columns).on_conflict_do_nothing().returning(TEAMS.c.id)
    return (await tx.execute(made)).first() is not None


async def lock(tx: Tx, team_id: str) -> str | None:
    """Let nobody else change or delete it until `tx` ends. Returns its organization; None when there is no team."""
    rows = await hot(tx, LOCK, (team_id,))
    return rows[0].organization_id if rows else None


async def change(tx: CoreTx, team_id: str, columns: Mapping[str, Any]) -> None:
    """Set these columns of a locked team; calls already accepted keep the terms they were accepted under."""
    await tx.execute(update(TEAMS).where(TEAMS.c.id == team_id).values(**columns, updated_at=func.app_now()))


async def set_access_groups(tx: Tx, team_id: str, groups: Sequence[str]) -> set[str]:
    """Give it these groups, in this order, and no others. Returns those that exist."""
    return {row.group_name for row in await hot(tx, SET_ACCESS_GROUPS, {"team_id": team_id, "groups": list(groups)})}


async def set_status(tx: Tx, team_id: str, status: str, *, until: datetime | None = None) -> bool:
    """Suspend, pause or resume it. until: when a pause ends by itself. False: no such team, or `until` is past."""
    return bool(await hot(tx, SET_STATUS, {"team_id": team_id, "status": status, "until": until}))


async def delete(tx: Tx, team_id: str) -> bool:
    """Delete it, keeping its books and its id. False when there is none."""
    return bool(await hot(tx, DELETE, (team_id,)))


async def jobs_of_deleted(tx: Tx, *, team_id: str | None = None, limit: int) -> list[UUID]:
    """Jobs that a deleted team left open: of this one, else of all that were deleted in the last day."""
    return [row.id for row in await hot(tx, JOBS_OF_DELETED, {"team_id": team_id, "limit": limit})]


async def get(tx: Tx, team_id: str) -> Team | None:
    """The team, or None."""
    rows = await hot(tx, GET, (team_id,))
    return Team(**rows[0]._asdict()) if rows else None


async def page(tx: Tx, *, limit: int, offset: int) -> list[Team]:
    """All teams, newest first."""
    return [Team(**row._asdict()) for row in await hot(tx, PAGE, (limit, offset))]


async def of_organization(tx: Tx, organization_id: str) -> list[Team]:
    """An organization's teams, oldest first."""
    return [Team(**row._asdict()) for row in await hot(tx, OF_ORGANIZATION, (organization_id,))]


async def count(tx: Tx) -> int:
    """How many teams there are."""
    total: int = (await hot(tx, COUNT))[0].total
    return total
