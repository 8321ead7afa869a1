"""Automatic refills: each due period adds its credits once, whatever was down and however many schedulers run."""

from functools import partial

from shared import one_by_one, refilling, refills
from shared.runtime import Runtime

STEP = 100


async def add_due(rt: Runtime) -> int:
    """Give what is due to up to a stepful of teams. Returns how many refills were given."""
    async with rt.db.hot_statement() as tx:
        team_ids = await refills.due(tx, limit=STEP)
    return await one_by_one.each(team_ids, partial(refill, rt), what="refills")


async def refill(rt: Runtime, team_id: str) -> int:
    """Give one team what is due to it, in a transaction of its own. Returns how many refills were given."""
    async with rt.db.hot_transaction() as tx:
        return await refilling.give_due(tx, team_id)
