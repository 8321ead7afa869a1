"""USD budgets of keys and teams: what their calls may cost in a window, held at accept and spent at the end."""

import calendar
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from shared import ids
from shared.db import Tx, hot

COLUMNS = """
id, key_id, team_id, max_nanousd, soft_nanousd, spent_nanousd, held_nanousd, duration, window_started_at, resets_at,
anchored_at
"""

LOCK = f"select {COLUMNS}, app_now() as now from budgets where id = any(%s) order by id for no key update"

SAVE = """
update budgets b set spent_nanousd = r.spent, held_nanousd = r.held, window_started_at = r.start, resets_at = r.resets
  from unnest(%s::uuid[], %s::bigint[], %s::bigint[], %s::timestamptz[], %s::timestamptz[])
       as r(id, spent, held, start, resets)
 where b.id = r.id
"""

# What is held goes on, and what is spent in a window that is not over; another duration begins a window of its own.
SET = """
insert into budgets as b (id, {owner}, max_nanousd, soft_nanousd, duration, resets_at, anchored_at)
values (%(id)s, %(owner_id)s, %(max)s, %(soft)s, %(duration)s,
        app_now() + make_interval(months => %(months)s, secs => %(seconds)s), app_now())
on conflict ({owner}) do update set max_nanousd = excluded.max_nanousd, soft_nanousd = excluded.soft_nanousd,
       duration = excluded.duration,
       spent_nanousd = case when b.resets_at <= app_now() then 0 else b.spent_nanousd end,
       window_started_at = case when b.duration is distinct from excluded.duration
                                then app_now() else b.window_started_at end,
       anchored_at = case when b.duration is distinct from excluded.duration then app_now() else b.anchored_at end,
       resets_at = case when b.duration is distinct from excluded.duration then excluded.resets_at else b.resets_at end
"""

REMOVE = "delete from budgets where {owner} = %s"

OF = f"select {COLUMNS}, app_now() as now from budgets where {{owner}} = any(%s)"

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LONGEST_YEARS = 100


@dataclass(frozen=True, kw_only=True)
class Duration:
    """The length of a window: whole months, or seconds."""

    months: int = 0
    seconds: int = 0

    def after(self, start: datetime, times: int) -> datetime:
        """The moment so many windows after the start; a day that a month does not have is its last."""
        if not self.months:
            return start + timedelta(seconds=self.seconds * times)
        month = start.month - 1 + self.months * times
        year, month = start.year + month // 12, month % 12 + 1
        return start.replace(year=year, month=month, day=min(start.day, calendar.monthrange(year, month)[1]))


@dataclass(kw_only=True)
class Budget:
    """A budget as it stands. Changed only while it is locked, then saved. No `duration`: it never resets.

    anchored_at: where its first window began, from which the others are counted; None: they are from `resets_at`.
    """

    id: UUID
    key_id: UUID | None
    team_id: str | None
    max_nanousd: int
    soft_nanousd: int | None
    spent_nanousd: int
    held_nanousd: int
    duration: str | None
    window_started_at: datetime
    resets_at: datetime | None
    anchored_at: datetime | None = None

    def takes(self, nanousd: int) -> bool:
        """Whether this much more may be held."""
        return self.spent_nanousd + self.held_nanousd + nanousd <= self.max_nanousd

    def would_take(self, nanousd: int) -> bool:
        """Whether it had room, were it not for what is held now."""
        return self.spent_nanousd + nanousd <= self.max_nanousd

    def settle(self, *, held: int, spent: int) -> None:
        """A call ended: what was held for it is free, what it cost is spent."""
        self.held_nanousd -= held
        self.spent_nanousd += spent

    def roll(self, now: datetime) -> None:
        """Begin the window that `now` is in; what is held goes on into it.

        Months that begin on a 31st do so again after a shorter one.
        """
        if self.duration is None or self.resets_at is None or now < self.resets_at:
            return
        length, start, times = parse_duration(self.duration), self.anchored_at or self.resets_at, 1
        if length.seconds:
            times += int((now - start).total_seconds()) // length.seconds
        while length.after(start, times) <= now:
            times += 1
        self.spent_nanousd = 0
        self.window_started_at, self.resets_at = length.after(start, times - 1), length.after(start, times)


def parse_duration(text: str) -> Duration:
    """`30s`, `5m`, `2h`, `30d`, `1mo`. Raises ValueError on anything else, and on more than a hundred years."""
    found = re.fullmatch(r"([1-9][0-9]{0,9})(s|m|h|d|mo)", text)
    if found is None:
        raise ValueError("a duration is a whole number with s, m, h, d or mo")
    count, unit = int(found[1]), found[2]
    length = Duration(months=count) if unit == "mo" else Duration(seconds=count * SECONDS[unit])
    if length.months > 12 * LONGEST_YEARS or length.seconds > 365 * SECONDS["d"] * LONGEST_YEARS:
        raise ValueError("a duration is at most a hundred years")
    return length


async def lock(tx: Tx, budget_ids: Iterable[UUID]) -> dict[UUID, Budget]:
    """Lock budgets in id order, each in the window of now. Those that are gone are left out."""
    wanted = sorted(set(budget_ids))
    return {budget.id: budget for budget in _read(await hot(tx, LOCK, (wanted,)))} if wanted else {}


async def save(tx: Tx, changed: Iterable[Budget]) -> None:
    """Write what may change of locked budgets."""
    rows = sorted(changed, key=lambda budget: budget.id)
    if rows:
        columns = (
            [b.id for b in rows],
            [b.spent_nanousd for b in rows],
            [b.held_nanousd for b in rows],
            [b.window_started_at for b in rows],
            [b.resets_at for b in rows],
        )
        await hot(tx, SAVE, columns)


async def set_budget(
    tx: Tx,
    *,
    key_id: UUID | None = None,
    team_id: str | None = None,
    max_nanousd: int | None,
    soft_nanousd: int | None = None,
    duration: str | None = None,
) -> None:
    """Make or change the budget of a key or of a team; without a maximum there is none any more.

    Raises ValueError when the duration is none.
    """
    owner, owner_id = ("key_id", key_id) if team_id is None else ("team_id", team_id)
    if max_nanousd is None:
        await hot(tx, REMOVE.format(owner=owner), (owner_id,))
        return
    length = None if duration is None else parse_duration(duration)
    params = {
        "id": ids.new(),
        "owner_id": owner_id,
        "max": max_nanousd,
        "soft": soft_nanousd,
        "duration": duration,
        "months": None if length is None else length.months,
        "seconds": None if length is None else length.seconds,
    }
    await hot(tx, SET.format(owner=owner), params)


async def of_keys(tx: Tx, key_ids: Iterable[UUID]) -> dict[UUID, Budget]:
    """The budgets of keys that have one, each in the window of now."""
    found = _read(await hot(tx, OF.format(owner="key_id"), (list(key_ids),)))
    return {budget.key_id: budget for budget in found if budget.key_id is not None}


async def of_team(tx: Tx, team_id: str) -> Budget | None:
    """The budget of a team, in the window of now; None when it has none."""
    return next(iter(_read(await hot(tx, OF.format(owner="team_id"), ([team_id],)))), None)


def _read(rows: Iterable[object]) -> list[Budget]:
    found = []
    for row in rows:
        columns = row._asdict()  # type: ignore[attr-defined]
        now = columns.pop("now")
        budget = Budget(**columns)
        budget.roll(now)
        found.append(budget)
    return found
