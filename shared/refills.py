"""Refills: credits that an account is given by itself, once for each period, also for periods we were down in."""

from calendar import monthrange
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from shared.db import Tx, hot

PERIODS = ("monthly", "weekly", "daily")
DAYS = {"weekly": 7, "daily": 1}

LOCK = """
select auto_refill, refill_period as period, next_refill_at, app_now() as now
  from credit_accounts where team_id = %s for update
"""

ENABLE = """
update credit_accounts
   set auto_refill = true, refill_amount = %(amount)s, refill_period = %(period)s, refill_day = %(day)s,
       next_refill_at = %(at)s, updated_at = app_now()
 where team_id = %(team_id)s
"""

RESIZE = "update credit_accounts set refill_amount = %s, updated_at = app_now() where team_id = %s"

DISABLE = """
update credit_accounts set auto_refill = false, next_refill_at = null, updated_at = app_now() where team_id = %s
"""

DUE = """
select c.team_id from credit_accounts c join teams t on t.id = c.team_id and t.status <> 'deleted'
 where c.auto_refill and c.next_refill_at <= app_now() order by c.next_refill_at limit %s
"""

LOCK_DUE = """
select team_id, refill_amount as amount, refill_period as period, refill_day as day, next_refill_at as at,
       app_now() as now
  from credit_accounts where team_id = %s and auto_refill and next_refill_at <= app_now() for update
"""

ADVANCE = "update credit_accounts set next_refill_at = %s where team_id = %s"


@dataclass(frozen=True, kw_only=True)
class Due:
    """A locked account whose refills since `at` are not given yet. day: of the month, before it is clamped."""

    team_id: str
    amount: int
    period: str
    day: int
    at: datetime
    now: datetime

    def times(self, *, limit: int) -> tuple[list[datetime], datetime]:
        """The due times that have passed, oldest first and at most `limit`, and the one after them."""
        passed: list[datetime] = []
        at = self.at
        while at <= self.now and len(passed) < limit:
            passed.append(at)
            at = following(at, self.period, self.day)
        return passed, at


def following(at: datetime, period: str, day: int) -> datetime:
    """One period after `at`; monthly on `day` of the next month, or on its last day where it is shorter."""
    if period in DAYS:
        return at + timedelta(days=DAYS[period])
    year, month = (at.year + 1, 1) if at.month == 12 else (at.year, at.month + 1)
    return at.replace(year=year, month=month, day=min(day, monthrange(year, month)[1]))


async def enable(tx: Tx, team_id: str, *, amount: int, period: str) -> None:
    """Refill from one period after now; an account that refills in this period already keeps its next time."""
    [account] = await hot(tx, LOCK, (team_id,))
    if account.auto_refill and account.period == period:
        await hot(tx, RESIZE, (amount, team_id))
        return
    day: int = account.now.day
    at = following(account.now, period, day)
    await hot(tx, ENABLE, {"team_id": team_id, "amount": amount, "period": period, "day": day, "at": at})


async def disable(tx: Tx, team_id: str) -> None:
    """Stop refilling; amount and period are kept to be seen."""
    await hot(tx, DISABLE, (team_id,))


async def due(tx: Tx, *, limit: int) -> Sequence[str]:
    """Teams whose next refill is due, the longest due first."""
    return [row.team_id for row in await hot(tx, DUE, (limit,))]


async def lock_due(tx: Tx, team_id: str) -> Due | None:
    """The account, locked, if a refill is still due; None when another scheduler was quicker."""
    rows = await hot(tx, LOCK_DUE, (team_id,))
    return Due(**rows[0]._asdict()) if rows else None


async def advance(tx: Tx, team_id: str, at: datetime) -> None:
    """The refills before `at` are given."""
    await hot(tx, ADVANCE, (at, team_id))
