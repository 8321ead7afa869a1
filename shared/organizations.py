"""Organizations: the customers; their teams own the credits, the keys and the jobs."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from shared import tables
from shared.db import Tx, hot

GET = """
select o.id, o.name, o.status, o.metadata, o.created_at, o.updated_at,
       array(select t.id from teams t where t.organization_id = o.id order by t.created_at, t.id) as teams,
       (select coalesce(sum(c.allocated), 0)::bigint
          from credit_accounts c join teams t on t.id = c.team_id where t.organization_id = o.id) as credits_allocated
  from organizations o where o.id = %s
"""

USAGE = """
select count(*) as total_jobs, coalesce(sum(j.client_cost_nanousd), 0)::bigint as total_cost_nanousd
  from jobs j where j.team_id in (select id from teams where organization_id = %s)
"""


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


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What all jobs of an organization came to."""

    total_jobs: int
    total_cost_nanousd: int


async def create(tx: Tx, organization_id: str, *, name: str, metadata: Mapping[str, Any]) -> bool:
    """Make it. False when there is one with this id, also one made at the same time."""
    values = {"id": organization_id, "name": name, "metadata": dict(metadata)}
    made = insert(tables.organizations).values(values).on_conflict_do_nothing().returning(tables.organizations.c.id)
    return (await tx.execute(made)).first() is not None


async def lock(tx: Tx, organization_id: str) -> bool:
    """Keep it from being deleted until the transaction ends. False when there is none."""
    one = select(tables.organizations.c.id).where(tables.organizations.c.id == organization_id)
    return (await tx.execute(one.with_for_update(key_share=True, read=True))).first() is not None


async def get(tx: Tx, organization_id: str) -> Organization | None:
    """The organization, or None."""
    rows = await hot(tx, GET, (organization_id,))
    return Organization(**rows[0]._asdict()) if rows else None


async def usage(tx: Tx, organization_id: str) -> Usage:
    """Sums over every job of its teams."""
    rows = await hot(tx, USAGE, (organization_id,))
    return Usage(**rows[0]._asdict())
