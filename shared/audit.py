"""The audit log: who did what with an admin's rights, written in the transaction of the deed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import ColumnElement, func, select

from shared import ids, tables
from shared.db import CoreTx, Tx, hot

LOG = tables.audit_log

RECORD = """
insert into audit_log (id, user_id, action, resource_type, resource_id, details, ip_address)
values (%s, %s, %s, %s, %s, %s::jsonb, %s)
"""


@dataclass(frozen=True, kw_only=True)
class Admin:
    """Who uses an admin's rights, and from where. user_id: an admin user's id, or `admin_key`."""

    user_id: str
    ip_address: str | None = None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One deed."""

    id: UUID
    user_id: str
    action: str
    resource_type: str
    resource_id: str | None
    details: Mapping[str, Any]
    ip_address: str | None
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which entries: those that match everything that is given. since is included, before is not."""

    action: str | None = None
    user_id: str | None = None
    resource_type: str | None = None
    since: datetime | None = None
    before: datetime | None = None


async def record(
    tx: Tx,
    by: Admin | None,
    action: str,
    resource_type: str,
    resource_id: str | None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write one entry. `by` None is a team that acts for itself: no admin's deed, no entry. No secret in `details`."""
    if by is not None:
        text = orjson.dumps(details or {}, default=str).decode()
        await hot(tx, RECORD, (ids.new(), by.user_id, action, resource_type, resource_id, text, by.ip_address))


async def page(tx: CoreTx, wanted: Filter, *, limit: int, offset: int) -> Sequence[Entry]:
    """The entries that match, newest first."""
    newest = select(LOG).where(*_matching(wanted)).order_by(LOG.c.created_at.desc(), LOG.c.id.desc())
    return [Entry(**row._asdict()) for row in await tx.execute(newest.limit(limit).offset(offset))]


async def count(tx: CoreTx, wanted: Filter) -> int:
    """How many entries match."""
    return int(await tx.scalar(select(func.count()).select_from(LOG).where(*_matching(wanted))) or 0)


def _matching(wanted: Filter) -> list[ColumnElement[bool]]:
    named = {"action": wanted.action, "user_id": wanted.user_id, "resource_type": wanted.resource_type}
    found = [LOG.c[name] == value for name, value in named.items() if value is not None]
    if wanted.since is not None:
        found.append(LOG.c.created_at >= wanted.since)
    if wanted.before is not None:
        found.append(LOG.c.created_at < wanted.before)
    return found
