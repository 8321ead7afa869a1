"""Provider credentials: an organization's keys for providers, sealed; at most one is active for each provider."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, insert, update
from sqlalchemy.exc import IntegrityError

from shared import tables
from shared.db import CoreTx, Tx, hot

CREDENTIALS = tables.provider_credentials

ONE_ACTIVE = "uq_provider_credentials_active"
ONE_NAME = "uq_provider_credentials_organization_id_credential_name"

READ = """
select p.id, p.organization_id, p.provider, p.credential_name, p.api_base, p.is_active, p.key_hint, p.created_by,
       p.created_at, p.updated_at
  from provider_credentials p
"""

GET = READ + " where p.id = %s"

LOCK = READ + " where p.id = %s for no key update"

MATCHING = """
 where (%(organization_id)s::text is null or p.organization_id = %(organization_id)s)
   and (%(provider)s::text is null or p.provider = %(provider)s) and (p.is_active or not %(active_only)s)
"""

PAGE = READ + MATCHING + " order by p.created_at desc, p.id limit %(limit)s offset %(offset)s"

COUNT = "select count(*) as total from provider_credentials p" + MATCHING


class ActiveExists(Exception):
    """The organization has another active credential for this provider."""


class NameTaken(Exception):
    """The organization has another credential of this name."""


@dataclass(frozen=True, kw_only=True)
class Credential:
    """A credential without its key. key_hint: the end of the key; is_active: used where none is named."""

    id: UUID
    organization_id: str
    provider: str
    credential_name: str
    api_base: str | None
    is_active: bool
    key_hint: str
    created_by: str | None
    created_at: datetime
    updated_at: datetime


async def create(tx: CoreTx, columns: Mapping[str, Any]) -> None:
    """Make it. Raises ActiveExists, NameTaken; `tx` is of no more use then."""
    try:
        await tx.execute(insert(CREDENTIALS).values(dict(columns)))
    except IntegrityError as error:
        raise _taken(error) from None


async def change(tx: CoreTx, credential_id: UUID, columns: Mapping[str, Any]) -> None:
    """Set these columns; calls see them at their next attempt. Raises ActiveExists, NameTaken, as `create`."""
    changed = update(CREDENTIALS).where(CREDENTIALS.c.id == credential_id)
    try:
        await tx.execute(changed.values(**columns, updated_at=func.app_now()))
    except IntegrityError as error:
        raise _taken(error) from None


async def remove(tx: CoreTx, credential_id: UUID) -> None:
    """Delete it, with its key; attempts keep its id."""
    await tx.execute(delete(CREDENTIALS).where(CREDENTIALS.c.id == credential_id))


async def get(tx: Tx, credential_id: UUID) -> Credential | None:
    """The credential, or None."""
    rows = await hot(tx, GET, (credential_id,))
    return Credential(**rows[0]._asdict()) if rows else None


async def lock(tx: Tx, credential_id: UUID) -> Credential | None:
    """The credential, which no other transaction changes until this one ends; or None."""
    rows = await hot(tx, LOCK, (credential_id,))
    return Credential(**rows[0]._asdict()) if rows else None


async def page(
    tx: Tx, *, organization_id: str | None, provider: str | None, active_only: bool, limit: int, offset: int
) -> tuple[list[Credential], int]:
    """Those that match, newest first, and how many match in all."""
    params = {
        "organization_id": organization_id,
        "provider": provider,
        "active_only": active_only,
        "limit": limit,
        "offset": offset,
    }
    found = [Credential(**row._asdict()) for row in await hot(tx, PAGE, params)]
    return found, (await hot(tx, COUNT, params))[0].total


def _taken(error: IntegrityError) -> Exception:
    """Which rule the database upheld."""
    rule = getattr(getattr(error.orig, "diag", None), "constraint_name", None)
    return {ONE_ACTIVE: ActiveExists(), ONE_NAME: NameTaken()}.get(str(rule), error)
