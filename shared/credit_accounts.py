"""Credit accounts: what a team was given and what is left, and the append-only entries that say why.

remaining = allocated - used          changes only with an entry
available = remaining - held          the gate
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert

from shared import ids, tables
from shared.db import Tx, hot

GRANT = """
with moved as (
    update credit_accounts set allocated = allocated + %(amount)s, updated_at = app_now()
     where team_id = %(team_id)s returning allocated - used as remaining
)
insert into credit_entries (id, team_id, kind, amount, "before", after, reason)
select %(id)s, %(team_id)s, %(kind)s, %(amount)s, remaining - %(amount)s, remaining, %(reason)s from moved
returning id, team_id, job_id, kind, amount, "before", after, reason, created_at
"""

BALANCE = """
select team_id, allocated, used, held, limit_mode, credit_limit, created_at, updated_at
  from credit_accounts where team_id = %s
"""


MATCHING_ENTRIES = """
  from credit_entries
 where team_id = %(team_id)s
   and (%(kind)s::text is null or kind = %(kind)s)
   and (%(job_id)s::uuid is null or job_id = %(job_id)s)
   and (%(since)s::timestamptz is null or created_at >= %(since)s)
   and (%(before)s::timestamptz is null or created_at < %(before)s)
"""

ENTRIES = (
    'select id, team_id, job_id, kind, amount, "before", after, reason, created_at'
    + MATCHING_ENTRIES
    + " order by seq desc limit %(limit)s offset %(offset)s"
)

COUNT_ENTRIES = "select count(*) as total" + MATCHING_ENTRIES


@dataclass(frozen=True, kw_only=True)
class Balance:
    """A team's credit account."""

    team_id: str
    allocated: int
    used: int
    held: int
    limit_mode: str
    credit_limit: int | None
    created_at: datetime
    updated_at: datetime

    @property
    def remaining(self) -> int:
        """Allocated and not yet charged; the sum of the entries."""
        return self.allocated - self.used

    @property
    def available(self) -> int:
        """Remaining and not held: what a new hold may take."""
        return self.remaining - self.held


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the ledger; `after = before + amount`, in terms of remaining credits."""

    id: UUID
    team_id: str
    job_id: UUID | None
    kind: str
    amount: int
    before: int
    after: int
    reason: str
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class EntryFilter:
    """Which entries: `since` is included, `before` is not; null means any."""

    team_id: str
    kind: str | None = None
    job_id: UUID | None = None
    since: datetime | None = None
    before: datetime | None = None


async def open_account(tx: Tx, team_id: str, allocated: int) -> None:
    """Make a team's account; credits given at once are its first entry."""
    await tx.execute(insert(tables.credit_accounts).values(team_id=team_id))
    if allocated:
        await grant(tx, team_id, allocated, kind="allocation", reason="Initial credit allocation")


async def grant(tx: Tx, team_id: str, amount: int, *, kind: str, reason: str) -> Entry | None:
    """Add credits (a negative amount takes away). None when the team has no account."""
    params = {"id": ids.new(), "team_id": team_id, "amount": amount, "kind": kind, "reason": reason}
    rows = await hot(tx, GRANT, params)
    return Entry(**rows[0]._asdict()) if rows else None


async def balance(tx: Tx, team_id: str) -> Balance | None:
    """The account as it stands; None when the team has none."""
    rows = await hot(tx, BALANCE, (team_id,))
    return Balance(**rows[0]._asdict()) if rows else None


async def entries(tx: Tx, wanted: EntryFilter, *, limit: int, offset: int) -> list[Entry]:
    """A page of the entries that match, newest first."""
    params: Mapping[str, Any] = {**asdict(wanted), "limit": limit, "offset": offset}
    return [Entry(**row._asdict()) for row in await hot(tx, ENTRIES, params)]


async def count_entries(tx: Tx, wanted: EntryFilter) -> int:
    """How many entries match."""
    rows = await hot(tx, COUNT_ENTRIES, asdict(wanted))
    total: int = rows[0].total
    return total
