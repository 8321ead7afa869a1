"""What may refuse calls that are otherwise in order: a key's parallel limit, budgets, credits. Decided on locked rows.

The rows stay locked until the group that is being accepted is written; each submission that passes changes them in
memory, so that the next one sees what is left.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from shared import budgets, charging, facts, ledger, parallel
from shared.budgets import Budget
from shared.db import Tx
from shared.errors import BudgetExceeded, InsufficientCredits, TooManyRequests
from shared.events import Event
from shared.jobs import Job
from shared.ledger import Account, Hold
from shared.new_calls import NewCall
from shared.parallel import Parallel


@dataclass(kw_only=True)
class Gates:
    """The locked rows a group is decided on."""

    keys: dict[UUID, Parallel]
    budgets: dict[UUID, Budget]
    accounts: dict[str, Account]
    _holds: dict[UUID, int] = field(default_factory=dict)

    def take(self, job: Job, new: Sequence[NewCall]) -> None:
        """Set aside what these calls need; the job, which counts them already, holds its credits then.

        Raises TooManyRequests, BudgetExceeded or InsufficientCredits, and then nothing is set aside.
        """
        keys = _each(call.key_id for call in new)
        if any(not self.keys[key].takes(calls) for key, calls in keys.items() if key in self.keys):
            raise TooManyRequests("Rate limit exceeded", retry_after_s=1, headers={"rate_limit_type": "requests"})
        if new:
            self._take(job, _costs(new))
        for key, calls in keys.items():
            if key in self.keys:
                self.keys[key].unfinished += calls

    def take_lines(self, job: Job, budget_ids: Iterable[UUID], nanousd: int) -> None:
        """The same for the lines of a batch by their sum, which these budgets are to hold; no key's limit counts them.

        Raises BudgetExceeded or InsufficientCredits, and then nothing is set aside.
        """
        self._take(job, dict.fromkeys(budget_ids, nanousd) if nanousd else {})

    def _take(self, job: Job, costs: Mapping[UUID, int]) -> None:
        """costs: what each budget is to hold, in nano-dollars; those that are not locked are gone."""
        found = [(self.budgets[id_], nanousd) for id_, nanousd in costs.items() if id_ in self.budgets]
        # A key's own comes before its team's.
        for budget, nanousd in sorted(found, key=lambda cost: cost[0].key_id is None):
            if not budget.takes(nanousd):
                owner = "API key" if budget.key_id is not None else "team"
                raise BudgetExceeded(owner, in_flight=budget.would_take(nanousd))
        short = max(0, charging.should_hold(job) - job.credits_held)
        if short and not self._grants(job.team_id, short):
            raise InsufficientCredits
        for budget, nanousd in found:
            budget.held_nanousd += nanousd
        job.credits_held += short
        if short:
            self._holds[job.id] = self._holds.get(job.id, 0) + short

    async def write(self, tx: Tx, jobs: dict[UUID, Job], *, now: datetime) -> list[Event]:
        """Write what was set aside for these jobs. Returns the warnings that this is cause for."""
        await budgets.save(tx, self.budgets.values())
        holds = [Hold(job_id=id_, team_id=jobs[id_].team_id, credits=held) for id_, held in self._holds.items()]
        await ledger.hold(tx, holds)
        return await warn(tx, self.accounts.values(), now=now)

    def _grants(self, team_id: str, credits_: int) -> bool:
        account = self.accounts.get(team_id)
        return account is not None and account.hold(credits_)


async def lock(tx: Tx, *, limited_keys: Iterable[UUID], budget_ids: Iterable[UUID], team_ids: Iterable[str]) -> Gates:
    """Lock what decides, in the one order: keys and their calls counted, budgets, accounts."""
    keys = await parallel.lock(tx, limited_keys)
    await parallel.count(tx, keys)
    return Gates(keys=keys, budgets=await budgets.lock(tx, budget_ids), accounts=await ledger.lock(tx, team_ids))


async def warn(tx: Tx, accounts: Iterable[Account], *, now: datetime) -> list[Event]:
    """A `credits.low` event for each threshold that a locked account has reached and was not told of."""
    found: list[Event] = []
    alerted: dict[str, Decimal] = {}
    for account in accounts:
        for threshold in account.crossed():
            found.append(facts.credits_low(account, threshold, now))
            alerted[account.team_id] = account.alerted
    await ledger.tell(tx, alerted)
    return found


def _costs(new: Iterable[NewCall]) -> dict[UUID, int]:
    """What each budget would hold for these calls."""
    costs: dict[UUID, int] = {}
    for call in new:
        for id_ in call.budget_ids or ():
            costs[id_] = costs.get(id_, 0) + call.estimate_nanousd
    return costs


def _each(keys: Iterable[UUID | None]) -> dict[UUID, int]:
    counted: dict[UUID, int] = {}
    for key in keys:
        if key is not None:
            counted[key] = counted.get(key, 0) + 1
    return counted
