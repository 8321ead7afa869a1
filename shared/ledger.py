"""Credits: accounts, holds and append-only entries; every race is decided on the locked account row.

remaining = allocated - used          changes only with an entry
available = remaining - held          the gate
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert

from shared import ids, tables
from shared.db import Tx, hot

# Postgres checks constraints against the row its snapshot saw, before it looks for a newer one: with a settlement in
# between, a hold that fits would be refused as overspent. So the lock is taken by a statement of its own.
LOCK = "select team_id from credit_accounts where team_id = any(%s) order by team_id for update"

HOLD = """
with wanted as (
    select w.job_id, w.team_id, w.credits, sum(w.credits) over (partition by w.team_id order by w.n) as up_to
      from unnest(%s::uuid[], %s::text[], %s::bigint[]) with ordinality as w(job_id, team_id, credits, n)
), account as (
    select team_id, allocated - used - held as available, limit_mode
      from credit_accounts where team_id in (select team_id from wanted)
), granted as (
    select w.job_id, w.team_id, w.credits from wanted w join account a using (team_id)
     where w.up_to <= a.available or a.limit_mode <> 'hard'
), moved as (
    update credit_accounts c set held = c.held + g.credits, updated_at = app_now()
      from (select team_id, sum(credits) as credits from granted group by team_id) g
     where c.team_id = g.team_id
)
insert into holds (job_id, team_id, credits) select job_id, team_id, credits from granted returning job_id
"""

SETTLE = """
with ended as (
    select e.*, sum(e.charge) over (partition by e.team_id order by e.n) as up_to
      from unnest(%s::uuid[], %s::uuid[], %s::text[], %s::bigint[], %s::text[]) with ordinality
           as e(entry_id, job_id, team_id, charge, reason, n)
), account as (
    select team_id, allocated - used as remaining
      from credit_accounts where team_id in (select team_id from ended) order by team_id for update
), released as (
    delete from holds where job_id in (select job_id from ended) returning team_id, credits
), moved as (
    update credit_accounts c
       set used = c.used + t.charge, updated_at = app_now(),
           held = c.held - (select coalesce(sum(r.credits), 0) from released r where r.team_id = c.team_id)
      from (select team_id, sum(charge) as charge from ended group by team_id) t join account using (team_id)
     where c.team_id = t.team_id
), written as (
    insert into credit_entries (id, team_id, job_id, kind, amount, "before", after, reason)
    select e.entry_id, e.team_id, e.job_id, 'deduction', -e.charge,
           a.remaining - e.up_to + e.charge, a.remaining - e.up_to, e.reason
      from ended e join account a using (team_id) where e.charge > 0 order by e.n
)
select e.job_id, (a.remaining - e.up_to)::bigint as remaining from ended e join account a using (team_id)
"""

RELEASE_STALE = """
with stale as (
    delete from holds h using jobs j
     where j.id = h.job_id and j.status in ('completed', 'failed', 'cancelled') returning h.team_id, h.credits
)
update credit_accounts c set held = c.held - s.credits, updated_at = app_now()
  from (select team_id, sum(credits) as credits from stale group by team_id) s where c.team_id = s.team_id
returning c.team_id
"""

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


@dataclass(frozen=True, kw_only=True)
class Hold:
    """Credits to set aside for a job."""

    job_id: UUID
    team_id: str
    credits: int


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """The end of a job's hold: `charge` credits are used, the rest is free again."""

    job_id: UUID
    team_id: str
    charge: int
    reason: str


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


async def hold(tx: Tx, wanted: Sequence[Hold]) -> set[UUID]:
    """Set credits aside, first come first served within a team. Returns the jobs that got them."""
    if not wanted:
        return set()
    await hot(tx, LOCK, ([w.team_id for w in wanted],))
    columns = ([w.job_id for w in wanted], [w.team_id for w in wanted], [w.credits for w in wanted])
    return {row.job_id for row in await hot(tx, HOLD, columns)}


async def settle(tx: Tx, ended: Sequence[Settlement]) -> dict[UUID, int]:
    """Charge and release the holds of ended jobs. Returns each job's credits remaining right after it.

    A job is settled once: its row turns final in the same transaction, and (job, kind) is unique among entries.
    """
    if not ended:
        return {}
    columns = (
        [ids.new() for _ in ended],
        [e.job_id for e in ended],
        [e.team_id for e in ended],
        [e.charge for e in ended],
        [e.reason for e in ended],
    )
    return {row.job_id: row.remaining for row in await hot(tx, SETTLE, columns)}


async def release_stale(tx: Tx) -> list[str]:
    """Give back holds whose job is final. Returns the teams; a job's end releases its hold, so there should be none."""
    return [row.team_id for row in await hot(tx, RELEASE_STALE)]


async def entries(tx: Tx, wanted: EntryFilter, *, limit: int, offset: int) -> list[Entry]:
    """A page of the entries that match, newest first."""
    params: Mapping[str, Any] = {**asdict(wanted), "limit": limit, "offset": offset}
    return [Entry(**row._asdict()) for row in await hot(tx, ENTRIES, params)]


async def count_entries(tx: Tx, wanted: EntryFilter) -> int:
    """How many entries match."""
    rows = await hot(tx, COUNT_ENTRIES, asdict(wanted))
    total: int = rows[0].total
    return total
