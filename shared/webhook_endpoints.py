"""Webhook endpoints: a team's URLs, and what each of them wants."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, insert, select

from shared import tables
from shared.db import CoreTx


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A registered URL without its secrets."""

    id: UUID
    team_id: str
    url: str
    events: Sequence[str]
    status: str
    disabled_reason: str | None
    description: str | None
    signing: str
    failing_since: datetime | None
    last_status: int | None
    last_triggered_at: datetime | None
    created_at: datetime
    updated_at: datetime


async def lock_team(tx: CoreTx, team_id: str) -> bool:
    """Whether the team exists; its endpoints are counted and created one at a time until `tx` ends."""
    there = (tables.teams.c.id == team_id) & (tables.teams.c.status != "deleted")
    statement = select(tables.teams.c.id).where(there).with_for_update(key_share=True)
    return await tx.scalar(statement) is not None


async def count(tx: CoreTx, team_id: str) -> int:
    """How many endpoints the team has, disabled ones too."""
    statement = select(func.count()).where(tables.webhook_endpoints.c.team_id == team_id)
    return await tx.scalar(statement) or 0


async def create(
    tx: CoreTx,
    id_: UUID,
    team_id: str,
    *,
    url: str,
    events: Sequence[str],
    active: bool,
    description: str | None,
    secret_sealed: bytes,
    auth_header_sealed: bytes | None,
    headers_sealed: bytes | None,
) -> Endpoint:
    """Store an endpoint whose URL was checked; the id comes from the edge because the secrets are sealed for it."""
    table = tables.webhook_endpoints
    statement = (
        insert(table)
        .values(
            id=id_,
            team_id=team_id,
            url=url,
            events=list(events),
            status="active" if active else "disabled",
            disabled_reason=None if active else "manual",
            description=description,
            secret_sealed=secret_sealed,
            auth_header_sealed=auth_header_sealed,
            headers_sealed=headers_sealed,
        )
        .returning(*(table.c[name] for name in Endpoint.__dataclass_fields__))
    )
    return Endpoint(**(await tx.execute(statement)).one()._asdict())
