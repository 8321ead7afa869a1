"""The ledger: holds and what jobs are charged; every race is decided on the locked account row.

remaining = allocated - used          changes only with an entry
available = remaining - held          the gate
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from shared import ids
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
