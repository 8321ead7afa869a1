"""Automatic refills: each due period adds its credits once, whatever was down and however many schedulers run."""

from functools import partial

from shared import credit_accounts, one_by_one, refills
from shared.runtime import Runtime

STEP = 100
MOST_AT_ONCE = 400
"""Missed periods of one account that are made up for in one transaction."""


async def add_due(rt: Runtime) -> int:
    """Give what is due to up to a stepful of teams. Returns how many refills were given."""
    async with rt.db.hot_statement() as tx:
        team_ids = await refills.due(tx, limit=STEP)
    return await one_by_one.each(team_ids, partial(refill, rt), what="refills")


async def refill(rt: Runtime, team_id: str) -> int:
    """Give one team the refills whose time has passed, oldest first: one entry each, unique by its due time."""
    async with rt.db.hot_transaction() as tx:
        due = await refills.lock_due(tx, team_id)
        if due is None:
            return 0
        times, following = due.times(limit=MOST_AT_ONCE)
        for at in times:
            reason = f"Auto-refill ({due.period})"
            await credit_accounts.grant(tx, team_id, due.amount, kind="allocation", reason=reason, refill_at=at)
        await refills.advance(tx, team_id, following)
    return len(times)
