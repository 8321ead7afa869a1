"""Webhook endpoints: a team's URLs, and what each of them wants."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, select, update

from shared import tables
from shared.db import CoreTx, Tx, hot

TABLE = tables.webhook_endpoints

SELECT = """
select w.id, w.team_id, w.url, w.events, w.status, w.disabled_reason, w.description, w.metadata, w.signing, w.payload,
       w.auth_header_sealed is not null as has_auth_header, w.headers_sealed, w.timeout_s, w.retry_schedule_s,
       w.max_rate_per_s, w.max_concurrency, w.verify, w.ordered, w.last_status, w.last_triggered_at, w.failing_since,
       w.failed_attempts, w.active_since, w.disabled_at, w.created_at, w.updated_at
  from webhook_endpoints w
 where w.deleted_at is null
"""

GET = SELECT + " and w.id = %(id)s"

LOCK = "select 1 from webhook_endpoints where id = %s and deleted_at is null for no key update"

PAGE = (
    SELECT
    + """
   and w.team_id = %(team_id)s and (%(status)s::text is null or w.status = %(status)s)
 order by w.created_at desc, w.id desc limit %(limit)s offset %(offset)s
"""
)

COUNT = """
select count(*) as total from webhook_endpoints
 where deleted_at is null and team_id = %(team_id)s and (%(status)s::text is null or status = %(status)s)
"""

NEW_RUN: Mapping[str, Any] = {"failing_since": None, "failed_attempts": 0, "noticed_percent": 0, "refused_in_a_row": 0}
"""The columns of an endpoint that has not failed."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A registered URL without its secrets.

    headers_sealed: its own headers, a JSON object sealed for `webhook_endpoints.headers:<id>`; only names are shown.
    timeout_s, retry_schedule_s: None stands for the setting.
    """

    id: UUID
    team_id: str
    url: str
    events: Sequence[str]
    status: str
    disabled_reason: str | None
    description: str | None
    metadata: Mapping[str, Any]
    signing: str
    payload: str
    has_auth_header: bool
    headers_sealed: bytes | None
    timeout_s: float | None
    retry_schedule_s: Sequence[float] | None
    max_rate_per_s: float | None
    max_concurrency: int
    verify: bool
    ordered: bool
    last_status: int | None
    last_triggered_at: datetime | None
    failing_since: datetime | None
    failed_attempts: int
    active_since: datetime
    disabled_at: datetime | None
    created_at: datetime
    updated_at: datetime


async def lock_team(tx: CoreTx, team_id: str) -> bool:
    """Whether the team exists; its endpoints are counted and created one at a time until `tx` ends."""
    there = (tables.teams.c.id == team_id) & (tables.teams.c.status != "deleted")
    statement = select(tables.teams.c.id).where(there).with_for_update(key_share=True)
    return await tx.scalar(statement) is not None


async def get(tx: Tx, id_: UUID) -> Endpoint | None:
    """The endpoint; None when there is none or it was deleted."""
    rows = await hot(tx, GET, {"id": id_})
    return Endpoint(**rows[0]._asdict()) if rows else None


async def lock(tx: Tx, id_: UUID) -> bool:
    """Whether it is there; nobody else changes or deletes it until `tx` ends."""
    return bool(await hot(tx, LOCK, (id_,)))


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
    **terms: Any,
) -> str:
    """Store an endpoint whose URL was checked; the id comes from the edge because the secrets are sealed for it.

    terms: other columns, by name. One with `verify` is not active before it has taken a test. Returns its status.
    """
    status = "disabled" if not active else "pending_verification" if terms.get("verify") else "active"
    await tx.execute(
        insert(TABLE).values(
            id=id_,
            team_id=team_id,
            url=url,
            events=list(events),
            status=status,
            disabled_reason=None if active else "manual",
            disabled_at=None if active else func.app_now(),
            description=description,
            secret_sealed=secret_sealed,
            auth_header_sealed=auth_header_sealed,
            headers_sealed=headers_sealed,
            **terms,
        )
    )
    return status


async def page(tx: Tx, team_id: str, status: str | None, *, limit: int, offset: int) -> list[Endpoint]:
    """The team's endpoints with this status (None: any), newest first."""
    values = {"team_id": team_id, "status": status, "limit": limit, "offset": offset}
    return [Endpoint(**row._asdict()) for row in await hot(tx, PAGE, values)]


async def count(tx: Tx, team_id: str, status: str | None = None) -> int:
    """How many endpoints the team has with this status (None: any); deleted ones do not count."""
    total: int = (await hot(tx, COUNT, {"team_id": team_id, "status": status}))[0].total
    return total


async def change(tx: CoreTx, id_: UUID, values: Mapping[str, Any]) -> None:
    """Set these columns."""
    stamped = {**values, "updated_at": func.app_now()}
    await tx.execute(update(TABLE).where(TABLE.c.id == id_, TABLE.c.deleted_at.is_(None)).values(stamped))


def as_status(status: str) -> dict[str, Any]:
    """The columns that say an endpoint has this status from now on: what failed before is of no account then."""
    if status == "disabled":
        return {
            "status": status,
            "disabled_reason": "manual",
            "disabled_at": func.coalesce(TABLE.c.disabled_at, func.app_now()),
        }
    active = {"active_since": func.app_now()} if status == "active" else {}
    return {"status": status, "disabled_reason": None, "disabled_at": None, **active, **NEW_RUN}


async def delete(tx: CoreTx, id_: UUID) -> None:
    """It is found no more and gets nothing more; its row stays for the deliveries it had, without its secrets."""
    gone = {"deleted_at": func.app_now(), "auth_header_sealed": None, "headers_sealed": None}
    await change(tx, id_, {**as_status("disabled"), **gone})
