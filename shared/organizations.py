"""Organizations: the customers; their teams own the credits, the keys and the jobs.

A deleted organization keeps its row for the books; every read here leaves it out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, update
from sqlalchemy.dialects.postgresql import insert

from shared import tables
from shared.db import CoreTx, Tx, hot

ORGANIZATIONS = tables.organizations

READ = """
select o.id, o.name, o.metadata, o.created_at, o.updated_at,
       case when o.status = 'paused' and o.paused_until <= app_now() then 'active' else o.status end as status,
       array(select t.id from teams t where t.organization_id = o.id and t.status <> 'deleted'
              order by t.created_at, t.id) as teams,
       (select coalesce(sum(c.allocated), 0)::bigint
          from credit_accounts c join teams t on t.id = c.team_id
         where t.organization_id = o.id and t.status <> 'deleted') as credits_allocated
  from organizations o where o.status <> 'deleted'
"""

GET = READ + " and o.id = %s"

PAGE = READ + " order by o.created_at desc, o.id desc limit %s offset %s"

COUNT = "select count(*) as total from organizations where status <> 'deleted'"

# Not `for key share`: that would let the change of status pass which deletes it.
KEEP = "select id from organizations where id = %s and status <> 'deleted' for share"

LOCK = "select status from organizations where id = %s and status <> 'deleted' for no key update"


@dataclass(frozen=True, kw_only=True)
class Organization:
    """An organization with the ids of its teams, oldest first, and all credits they were given."""

    id: str
    name: str
    status: str
    metadata: Mapping[str, Any]
    teams: list[str]
    credits_allocated: int
    created_at: datetime
    updated_at: datetime


async def create(tx: CoreTx, organization_id: str, *, name: str, metadata: Mapping[str, Any]) -> bool:
    """Make it. False when the id is taken, also by one made at the same time."""
    values = {"id": organization_id, "name": name, "metadata": dict(metadata)}
    made = insert(ORGANIZATIONS).values(values).on_conflict_do_nothing().returning(ORGANIZATIONS.c.id)
    return (await tx.execute(made)).first() is not None


async def keep(tx: Tx, organization_id: str) -> bool:
    """Keep it from being changed or deleted until `tx` ends, for one of many. False when there is none."""
    return bool(await hot(tx, KEEP, (organization_id,)))


async def lock(tx: Tx, organization_id: str) -> str | None:
    """Let nobody else change it, or make a team in it, until `tx` ends. Its status; None when there is none."""
    rows = await hot(tx, LOCK, (organization_id,))
    return rows[0].status if rows else None


async def change(tx: CoreTx, organization_id: str, columns: Mapping[str, Any]) -> None:
    """Set these columns of a locked organization."""
    changed = update(ORGANIZATIONS).where(ORGANIZATIONS.c.id == organization_id)
    await tx.execute(changed.values(**columns, updated_at=func.app_now()))


async def get(tx: Tx, organization_id: str) -> Organization | None:
    """The organization, or None."""
    rows = await hot(tx, GET, (organization_id,))
    return Organization(**rows[0]._asdict()) if rows else None


async def page(tx: Tx, *, limit: int, offset: int) -> list[Organization]:
    """All organizations, newest first."""
    return [Organization(**row._asdict()) for row in await hot(tx, PAGE, (limit, offset))]


async def count(tx: Tx) -> int:
    """How many organizations there are."""
    total: int = (await hot(tx, COUNT))[0].total
    return total
