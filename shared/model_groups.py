"""Model access groups: ordered lists of aliases that teams are given."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from shared import tables
from shared.db import CoreTx, Tx, hot

GROUPS = tables.model_access_groups
MEMBERS = tables.model_access_group_members

READ = """
select g.id, g.group_name, g.display_name, g.description, g.status, g.created_at, g.updated_at,
       array(select h.team_id from team_access_groups h where h.group_name = g.group_name order by h.team_id) as teams
  from model_access_groups g
"""

GET = READ + " where g.group_name = %s"

PAGE = (
    READ
    + """ where %(status)s::text is null or g.status = %(status)s
 order by g.created_at desc, g.group_name limit %(limit)s offset %(offset)s"""
)

COUNT = "select count(*) as total from model_access_groups where %(status)s::text is null or status = %(status)s"

MEMBERS_OF = """
select m.id, m.group_name, a.alias, a.display_name, a.provider, a.actual_model, a.litellm_model, a.description,
       m.priority, a.active, m.created_at
  from model_access_group_members m join model_aliases a on a.alias = m.alias
 where m.group_name = any(%s) order by m.group_name, m.priority, m.position, a.alias
"""

SET_MEMBERS = """
with wanted as (
    select a.alias, w.priority, w.n - 1 as place
      from unnest(%(aliases)s::text[], %(priorities)s::int[]) with ordinality as w(alias, priority, n)
      join model_aliases a on a.alias = w.alias
), left_out as (
    delete from model_access_group_members where group_name = %(group)s and alias <> all (%(aliases)s::text[])
)
insert into model_access_group_members (group_name, alias, priority, position)
select %(group)s, alias, priority, place from wanted
on conflict (group_name, alias) do update set priority = excluded.priority, position = excluded.position
"""

ADD_TO = """
insert into model_access_group_members (group_name, alias, priority, position)
select g.group_name, %(alias)s, coalesce(max(m.priority) + 1, 0), coalesce(max(m.position) + 1, 0)
  from model_access_groups g left join model_access_group_members m on m.group_name = g.group_name
 where g.group_name = any(%(groups)s::text[]) group by g.group_name
on conflict do nothing
"""


@dataclass(frozen=True, kw_only=True)
class Group:
    """A group with the teams that hold it."""

    id: UUID
    group_name: str
    display_name: str
    description: str | None
    status: str
    created_at: datetime
    updated_at: datetime
    teams: list[str]


@dataclass(frozen=True, kw_only=True)
class Member:
    """An alias in a group; the lowest priority is tried first. id, created_at: of the membership."""

    id: UUID
    group_name: str
    alias: str
    display_name: str
    provider: str
    actual_model: str
    litellm_model: str
    description: str | None
    priority: int
    active: bool
    created_at: datetime


async def create(tx: CoreTx, columns: Mapping[str, Any]) -> bool:
    """Make it; `columns` are those of the table. False when the name is taken, also by one made at the same time."""
    made = insert(GROUPS).values(dict(columns)).on_conflict_do_nothing().returning(GROUPS.c.group_name)
    return (await tx.execute(made)).first() is not None


async def lock(tx: CoreTx, names: Sequence[str]) -> set[str]:
    """Let no other transaction change these groups or their members until this one ends. Returns those that exist."""
    wanted = select(GROUPS.c.group_name).where(GROUPS.c.group_name.in_(names))
    return set((await tx.execute(wanted.order_by(GROUPS.c.group_name).with_for_update())).scalars())


async def change(tx: CoreTx, group_name: str, columns: Mapping[str, Any]) -> None:
    """Set these columns, and stamp the change."""
    changed = update(GROUPS).where(GROUPS.c.group_name == group_name)
    await tx.execute(changed.values(**columns, updated_at=func.app_now()))


async def remove(tx: CoreTx, group_name: str) -> None:
    """Delete it. Lock it first, and see that no team holds it."""
    await tx.execute(delete(GROUPS).where(GROUPS.c.group_name == group_name))


async def touch(tx: CoreTx, names: Sequence[str]) -> None:
    """Stamp the change of members."""
    await tx.execute(update(GROUPS).where(GROUPS.c.group_name.in_(names)).values(updated_at=func.app_now()))


async def set_members(tx: Tx, group_name: str, aliases: Sequence[str], priorities: Sequence[int] | None = None) -> None:
    """Make these the members, in this order, and no others. Lock the group first, then the aliases.

    priorities: one for each alias, lowest first; None numbers them.
    """
    numbered = list(range(len(aliases)) if priorities is None else priorities)
    params = {"group": group_name, "aliases": list(aliases), "priorities": numbered}
    await hot(tx, SET_MEMBERS, params)


async def add_to(tx: Tx, groups: Sequence[str], alias: str) -> None:
    """Make the alias the last member of these groups, where it is none yet. Lock them first."""
    await hot(tx, ADD_TO, {"groups": list(groups), "alias": alias})


async def take_out(tx: CoreTx, group_name: str, aliases: Iterable[str]) -> None:
    """Take these aliases out of the group, where they are members."""
    await tx.execute(delete(MEMBERS).where(MEMBERS.c.group_name == group_name, MEMBERS.c.alias.in_(list(aliases))))


async def leave(tx: CoreTx, groups: Sequence[str], alias: str) -> None:
    """Take the alias out of these groups, and stamp the change. Lock them first."""
    await tx.execute(delete(MEMBERS).where(MEMBERS.c.alias == alias, MEMBERS.c.group_name.in_(groups)))
    await touch(tx, groups)


async def get(tx: Tx, group_name: str) -> Group | None:
    """The group, or None."""
    rows = await hot(tx, GET, (group_name,))
    return Group(**rows[0]._asdict()) if rows else None


async def page(tx: Tx, *, status: str | None, limit: int, offset: int) -> tuple[list[Group], int]:
    """Those of this status, newest first, and how many there are in all."""
    params = {"status": status, "limit": limit, "offset": offset}
    found = [Group(**row._asdict()) for row in await hot(tx, PAGE, params)]
    return found, (await hot(tx, COUNT, params))[0].total


async def members(tx: Tx, group_name: str) -> list[Member]:
    """Its aliases in order."""
    return (await members_of(tx, [group_name]))[group_name]


async def members_of(tx: Tx, group_names: Sequence[str]) -> dict[str, list[Member]]:
    """The aliases of each group, in order."""
    found: dict[str, list[Member]] = {name: [] for name in group_names}
    for row in await hot(tx, MEMBERS_OF, (list(group_names),)):
        found[row.group_name].append(Member(**row._asdict()))
    return found
