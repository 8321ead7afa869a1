"""Credit accounts: what a team was given and what is left, and the append-only entries that say why.

remaining = allocated - used          changes only with an entry
available = remaining - held          the gate
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, update

from shared import ids, tables
from shared.db import CoreTx, Tx, hot
from shared.errors import BadRequest

# The entry decides: where one is there already (a job's second refund, a period's second refill) nothing moves.
# Thresholds that are no longer crossed may be told of again.
ENTER = """
with account as (
    select c.team_id, c.allocated - c.used as remaining, m.unused,
           coalesce((select max(level)
                       from unnest(t.alert_at_percentage || case when c.limit_mode = 'soft' then 120 end) as level
                      where level * (c.allocated + %(amount)s - m.unused) <= 100 * (c.used - m.unused + c.held)), 0)
           as crossed
      from credit_accounts c
      join teams t on t.id = c.team_id and t.status <> 'deleted'
      cross join lateral (select case when %(of_used)s then least(c.used, %(amount)s) else 0 end as unused) m
     where c.team_id = %(team_id)s for update of c
), written as (
    insert into credit_entries (id, team_id, job_id, kind, amount, "before", after, reason, payment_nanousd, refill_at)
    select %(id)s, team_id, %(job_id)s, %(kind)s, %(amount)s, remaining, remaining + %(amount)s, %(reason)s,
           %(payment_nanousd)s, %(refill_at)s
      from account
    on conflict do nothing
    returning id, team_id, job_id, kind, amount, "before", after, reason, created_at
), moved as (
    update credit_accounts c
       set used = c.used - a.unused, allocated = c.allocated + w.amount - a.unused, updated_at = app_now(),
           alerted_percentage = least(c.alerted_percentage, a.crossed),
           last_refill_at = case when %(refill_at)s::timestamptz is null then c.last_refill_at else app_now() end
      from account a join written w using (team_id) where c.team_id = a.team_id
)
select * from written
"""

BALANCE = """
select team_id, allocated, used, held, limit_mode, credit_limit, auto_refill, refill_amount, refill_period,
       last_refill_at, next_refill_at, created_at, updated_at
  from credit_accounts where team_id = %s
"""

BALANCES = BALANCE.replace("team_id = %s", "team_id = any(%s)")

# A statement of its own before any change that may be refused: constraints are checked on the row its snapshot saw.
LOCK = BALANCE + " for update"

ENTRIES = """
select id, team_id, job_id, kind, amount, "before", after, reason, created_at
  from credit_entries where {} order by seq desc limit %(limit)s offset %(offset)s
"""

CONDITIONS = {
    "team_id": "team_id = %(team_id)s",
    "kind": "kind = %(kind)s",
    "job_id": "job_id = %(job_id)s",
    "since": "created_at >= %(since)s",
    "before": "created_at < %(before)s",
}

COUNT_ENTRIES = "select count(*) as total from credit_entries where {}"


@dataclass(frozen=True, kw_only=True)
class Balance:
    """A team's credit account."""

    team_id: str
    allocated: int
    used: int
    held: int
    limit_mode: str
    credit_limit: int | None
    auto_refill: bool
    refill_amount: int | None
    refill_period: str | None
    last_refill_at: datetime | None
    next_refill_at: datetime | None
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

    @property
    def room(self) -> int | None:
        """How many credits the gate lets through now; None: any number."""
        limits = [self.available] if self.limit_mode == "hard" else []
        if self.limit_mode != "unlimited" and self.credit_limit is not None:
            limits.append(self.credit_limit - self.used - self.held)
        return max(0, min(limits)) if limits else None


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
    """Which entries: `since` is included, `before` is not; None means any."""

    team_id: str
    kind: str | None = None
    job_id: UUID | None = None
    since: datetime | None = None
    before: datetime | None = None

    @property
    def where(self) -> str:
        """The conditions asked for and no others, so that each may choose its index."""
        asked = asdict(self)
        return " and ".join(sql for name, sql in CONDITIONS.items() if asked[name] is not None)


async def open_account(tx: CoreTx, team_id: str, allocated: int, **limits: Any) -> None:
    """Make a team's account, with `limits` as for `set_limits`; credits given at once are its first entry."""
    await tx.execute(insert(tables.credit_accounts).values(team_id=team_id, **limits))
    if allocated:
        await grant(tx, team_id, allocated, kind="allocation", reason="Initial credit allocation")


async def grant(
    tx: Tx,
    team_id: str,
    amount: int,
    *,
    kind: str,
    reason: str,
    payment_nanousd: int | None = None,
    refill_at: datetime | None = None,
) -> Entry | None:
    """Add credits to `allocated`, once for each `refill_at`. None when the team has no account, or has this refill.

    payment_nanousd: what was paid for them, in nano-dollars, where somebody said it.
    """
    given = {"kind": kind, "reason": reason, "payment_nanousd": payment_nanousd, "refill_at": refill_at}
    return await _enter(tx, team_id, amount, of_used=False, given=given)


async def refund_job(tx: Tx, team_id: str, job_id: UUID, amount: int, *, reason: str) -> Entry | None:
    """Give back what a job was charged: `used` shrinks, since it counts charges that stand. None when it was refunded.

    Where `used` was set below the charge meanwhile, the rest is added to `allocated`: `used` is never negative.
    """
    return await _enter(tx, team_id, amount, of_used=True, given={"kind": "refund", "reason": reason, "job_id": job_id})


async def adjust(
    tx: Tx, team_id: str, *, allocated: int | None = None, used: int | None = None, reason: str = "Manual adjustment"
) -> list[Entry]:
    """Set what the team was given or has used; the difference of each is an `adjustment` entry, no difference is none.

    Raises BadRequest when a `hard` account would be overspent; nothing is changed then.
    """
    account = await lock(tx, team_id)
    if account is None:
        return []
    given = 0 if allocated is None else allocated - account.allocated
    given_back = 0 if used is None else account.used - used
    check_hard(account.limit_mode, account.available + given + given_back)
    entries = []
    # What adds comes first, so that a hard account is not overspent between the two.
    for amount, of_used in sorted(((given, False), (given_back, True)), reverse=True):
        if amount:
            entry = await _enter(tx, team_id, amount, of_used=of_used, given={"kind": "adjustment", "reason": reason})
            entries.extend([entry] if entry else [])
    return entries


async def set_limits(tx: CoreTx, team_id: str, **limits: Any) -> None:
    """Set `limit_mode` and/or `credit_limit`. Raises BadRequest when an overdrawn account would become `hard`."""
    if not limits:
        return
    account = await lock(tx, team_id)
    if account is not None:
        check_hard(limits.get("limit_mode", account.limit_mode), account.available)
    accounts = tables.credit_accounts
    await tx.execute(update(accounts).where(accounts.c.team_id == team_id).values(**limits, updated_at=func.app_now()))


def check_hard(limit_mode: str, available: int) -> None:
    """Refuse what leaves a `hard` account below zero. Raises BadRequest."""
    if limit_mode == "hard" and available < 0:
        raise BadRequest(
            f"limit_mode 'hard' does not let credits_available fall below zero; this would make it {available}"
        )


async def lock(tx: Tx, team_id: str) -> Balance | None:
    """The account, locked until the transaction ends; None when the team has none."""
    rows = await hot(tx, LOCK, (team_id,))
    return Balance(**rows[0]._asdict()) if rows else None


async def balance(tx: Tx, team_id: str) -> Balance | None:
    """The account as it stands; None when the team has none."""
    rows = await hot(tx, BALANCE, (team_id,))
    return Balance(**rows[0]._asdict()) if rows else None


async def balances(tx: Tx, team_ids: Iterable[str]) -> dict[str, Balance]:
    """The accounts of these teams, by team."""
    rows = await hot(tx, BALANCES, (list(team_ids),))
    return {row.team_id: Balance(**row._asdict()) for row in rows}


async def entries(tx: Tx, wanted: EntryFilter, *, limit: int, offset: int) -> list[Entry]:
    """A page of the entries that match, newest first."""
    params = {**asdict(wanted), "limit": limit, "offset": offset}
    return [Entry(**row._asdict()) for row in await hot(tx, ENTRIES.format(wanted.where), params)]


async def count_entries(tx: Tx, wanted: EntryFilter) -> int:
    """How many entries match."""
    rows = await hot(tx, COUNT_ENTRIES.format(wanted.where), asdict(wanted))
    total: int = rows[0].total
    return total


async def _enter(tx: Tx, team_id: str, amount: int, *, of_used: bool, given: Mapping[str, Any]) -> Entry | None:
    """Write an entry and move the account by it: `allocated`, or with of_used `used` as far as there is some."""
    nothing = {"job_id": None, "payment_nanousd": None, "refill_at": None}
    params = {**nothing, **given, "id": ids.new(), "team_id": team_id, "amount": amount, "of_used": of_used}
    rows = await hot(tx, ENTER, params)
    return Entry(**rows[0]._asdict()) if rows else None
