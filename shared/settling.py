"""The money of calls and jobs that ended: budgets spent, holds lowered or settled, in as few statements as it takes."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from shared import budgets, charging, gates, ledger
from shared.db import Tx
from shared.events import Event
from shared.jobs import Job
from shared.ledger import Settlement


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What these budgets held, each, for calls that ended, and what those calls cost."""

    budget_ids: Collection[UUID]
    held_nanousd: int
    spent_nanousd: int = 0


async def settle(
    tx: Tx, locked: Mapping[UUID, Job], spent: Sequence[Spent], ended: Sequence[Job], *, now: datetime
) -> list[Event]:
    """Settle final calls with their budgets, and jobs with their team: what ended is charged, what is over is free.

    ended: the jobs that become final here. Returns the warnings that this is cause for. A job_based job that goes on
    costs no statement.
    """
    await _spend(tx, spent)
    lowered = [job for job in locked.values() if not job.is_final and charging.excess(job)]
    owed = {job.id: charging.owed(job) for job in ended}
    over = any(owed[job.id] > job.credits_held for job in ended)
    accounts = await ledger.lock(tx, [job.team_id for job in (*ended, *lowered)]) if over else {}
    changes = [_lower(job, accounts) for job in lowered] + [_charge(job, owed[job.id], accounts) for job in ended]
    remaining = await ledger.settle(tx, changes)
    for job in ended:
        job.credits_remaining = remaining[job.id]
    return await gates.warn(tx, accounts.values(), now=now)


async def _spend(tx: Tx, spent: Iterable[Spent]) -> None:
    """What budgets held for calls is free again, what those cost is spent."""
    held = [(id_, part) for part in spent for id_ in part.budget_ids]
    locked = await budgets.lock(tx, [id_ for id_, _ in held])
    for id_, part in held:
        if id_ in locked:
            locked[id_].settle(held=part.held_nanousd, spent=part.spent_nanousd)
    await budgets.save(tx, locked.values())


def _lower(job: Job, accounts: Mapping[str, ledger.Account]) -> Settlement:
    """A job that goes on wants less than it holds. A hold of nothing has no row: then all of it is given back."""
    excess = charging.excess(job)
    job.credits_held -= excess
    if job.team_id in accounts:
        accounts[job.team_id].settle(release=excess, owed=0)
    release = excess if job.credits_held else None
    return Settlement(job_id=job.id, team_id=job.team_id, charge=0, release=release, reason="")


def _charge(job: Job, owed: int, accounts: Mapping[str, ledger.Account]) -> Settlement:
    """A job ended: what it owes is taken from its hold, then from free credits; what is still missing is our loss."""
    account = accounts.get(job.team_id)
    job.credits_charged = owed if account is None else account.settle(release=job.credits_held, owed=owed)
    job.credits_lost = owed - job.credits_charged
    job.credits_held = 0
    reason = f"Job {job.job_type} {job.status}"
    return Settlement(job_id=job.id, team_id=job.team_id, charge=job.credits_charged, reason=reason)
