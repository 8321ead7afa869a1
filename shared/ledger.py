"""The ledger: holds and what jobs are charged; every race is decided on the locked account row.

remaining = allocated - used          changes only with an entry
available = remaining - held          the gate
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from shared import ids
from shared.db import Tx, hot

SOFT_THRESHOLD = Decimal(120)
"""A `soft` team is also told when it is this far over what it was given, in percent."""

# Postgres checks constraints against the row its snapshot saw, before it looks for a newer one: with a settlement in
# between, a hold that fits would be refused as overspent. So the lock is taken by a statement of its own.
LOCK = """
select a.team_id, a.allocated, a.used, a.held, a.limit_mode, a.credit_limit, a.alerted_percentage as alerted,
       t.alert_at_percentage as alert_at
  from unnest(%s::text[]) as w(team_id) join credit_accounts a using (team_id) join teams t on t.id = a.team_id
 order by a.team_id for update of a
"""

HOLD = """
with wanted as (
    select * from unnest(%s::uuid[], %s::text[], %s::bigint[]) as w(job_id, team_id, credits)
), moved as (
    update credit_accounts a set held = a.held + w.credits, updated_at = app_now()
      from (select team_id, sum(credits) as credits from wanted group by team_id) w where a.team_id = w.team_id
)
insert into holds (job_id, team_id, credits) select job_id, team_id, credits from wanted
on conflict (job_id) do update set credits = holds.credits + excluded.credits
"""

SETTLE = """
with change as (
    select e.*, sum(e.charge) over (partition by e.team_id order by e.n) as up_to
      from unnest(%s::uuid[], %s::uuid[], %s::text[], %s::bigint[], %s::bigint[], %s::text[]) with ordinality
           as e(entry_id, job_id, team_id, charge, release, reason, n)
), account as (
    select team_id, allocated - used as remaining
      from credit_accounts where team_id in (select team_id from change) order by team_id for update
), freed as (
    delete from holds h using change e where h.job_id = e.job_id and e.release is null returning h.team_id, h.credits
), lowered as (
    update holds h set credits = h.credits - e.release from change e
     where h.job_id = e.job_id and e.release is not null returning h.team_id, e.release as credits
), released as (
    select team_id, sum(credits) as credits from (table freed union all table lowered) f group by team_id
), moved as (
    update credit_accounts c
       set used = c.used + t.charge, updated_at = app_now(),
           held = c.held - coalesce((select r.credits from released r where r.team_id = c.team_id), 0)
      from (select team_id, sum(charge) as charge from change group by team_id) t join account using (team_id)
     where c.team_id = t.team_id
), written as (
    insert into credit_entries (id, team_id, job_id, kind, amount, "before", after, reason)
    select e.entry_id, e.team_id, e.job_id, 'deduction', -e.charge,
           a.remaining - e.up_to + e.charge, a.remaining - e.up_to, e.reason
      from change e join account a using (team_id) where e.charge > 0 order by e.n
)
select e.job_id, (a.remaining - e.up_to)::bigint as remaining from change e join account a using (team_id)
"""

TELL = """
update credit_accounts a set alerted_percentage = t.percentage
  from unnest(%s::text[], %s::numeric[]) as t(team_id, percentage) where a.team_id = t.team_id
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


@dataclass(kw_only=True)
class Account:
    """A locked account, changed in memory as holds are granted and charges taken; the statements write the same.

    alerted: the highest threshold the team was told of since credits were last added.
    """

    team_id: str
    allocated: int
    used: int
    held: int
    limit_mode: str
    credit_limit: int | None
    alerted: Decimal
    alert_at: Sequence[Decimal]

    @property
    def available(self) -> int:
        """What is neither used nor held; below zero only where the mode allows it."""
        return self.allocated - self.used - self.held

    @property
    def room(self) -> int | None:
        """How many more credits may be held; None: any number."""
        limits = [self.available] if self.limit_mode == "hard" else []
        if self.limit_mode != "unlimited" and self.credit_limit is not None:
            limits.append(self.credit_limit - self.used - self.held)
        return max(0, min(limits)) if limits else None

    def hold(self, credits_: int) -> bool:
        """Set credits aside, all or none."""
        if credits_ > 0 and self.room is not None and credits_ > self.room:
            return False
        self.held += credits_
        return True

    def settle(self, *, release: int, owed: int) -> int:
        """Free a job's hold and take what it owes. Returns what could be taken: in `hard`, what free credits reach."""
        self.held -= release
        room = self.room if self.limit_mode == "hard" else None
        # What was held for the job is the job's, also when a limit was lowered meanwhile.
        charge = owed if room is None else min(owed, max(release, room))
        self.used += charge
        return charge

    def crossed(self) -> list[Decimal]:
        """The thresholds that used + held reached and the team was not told of; it counts as told now."""
        if self.allocated <= 0:
            return []
        thresholds = {*self.alert_at, *([SOFT_THRESHOLD] if self.limit_mode == "soft" else [])}
        taken = 100 * (self.used + self.held)
        found = sorted(t for t in thresholds if t > self.alerted and taken >= t * self.allocated)
        if found:
            self.alerted = found[-1]
        return found


@dataclass(frozen=True, kw_only=True)
class Hold:
    """Credits to set aside for a job, on top of what it holds; one for each job."""

    job_id: UUID
    team_id: str
    credits: int


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """`charge` credits of a job are used; of its hold `release` are free again, all of it when None."""

    job_id: UUID
    team_id: str
    charge: int
    reason: str
    release: int | None = None


async def lock(tx: Tx, team_ids: Iterable[str]) -> dict[str, Account]:
    """Lock accounts in team order, after everything else a transaction locks."""
    wanted = sorted(set(team_ids))
    return {row.team_id: Account(**row._asdict()) for row in await hot(tx, LOCK, (wanted,))} if wanted else {}


async def hold(tx: Tx, granted: Sequence[Hold]) -> None:
    """Set credits aside that the locked accounts granted."""
    if granted:
        columns = ([h.job_id for h in granted], [h.team_id for h in granted], [h.credits for h in granted])
        await hot(tx, HOLD, columns)


async def settle(tx: Tx, changes: Sequence[Settlement]) -> dict[UUID, int]:
    """Charge jobs and free what they hold. Returns each job's credits remaining right after it.

    A job is charged once: its row turns final in the same transaction, and (job, kind) is unique among entries. A
    charge above the job's hold needs the account locked first, to know that there is room for it.
    """
    if not changes:
        return {}
    columns = (
        [ids.new() for _ in changes],
        [c.job_id for c in changes],
        [c.team_id for c in changes],
        [c.charge for c in changes],
        [c.release for c in changes],
        [c.reason for c in changes],
    )
    return {row.job_id: row.remaining for row in await hot(tx, SETTLE, columns)}


async def tell(tx: Tx, alerted: Mapping[str, Decimal]) -> None:
    """Remember the highest threshold that each of these teams was told of."""
    if alerted:
        await hot(tx, TELL, (list(alerted), list(alerted.values())))


async def release_stale(tx: Tx) -> list[str]:
    """Give back holds whose job is final. Returns the teams; a job's end releases its hold, so there should be none."""
    return [row.team_id for row in await hot(tx, RELEASE_STALE)]
