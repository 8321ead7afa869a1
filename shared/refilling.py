"""Giving the refills that are due: one entry for each period, oldest first, in the caller's transaction."""

from shared import credit_accounts, refills
from shared.db import Tx

MOST_AT_ONCE = 400
"""Missed periods of one account that are made up for in one step."""


async def give_due(tx: Tx, team_id: str) -> int:
    """Give a team the refills whose time has passed, up to MOST_AT_ONCE. Returns how many.

    Each is unique by its due time. The account is locked until `tx` ends.
    """
    due = await refills.lock_due(tx, team_id)
    if due is None:
        return 0
    times, following = due.times(limit=MOST_AT_ONCE)
    for at in times:
        reason = f"Auto-refill ({due.period})"
        await credit_accounts.grant(tx, team_id, due.amount, kind="allocation", reason=reason, refill_at=at)
    await refills.advance(tx, team_id, following)
    return len(times)


async def give_all_due(tx: Tx, team_id: str) -> None:
    """The same until none is left, before what is refilled is changed: what was due is given as it was agreed."""
    while await give_due(tx, team_id):
        pass
