"""Reading many things as of one moment: what a list shows, its total and its sums agree."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.db import Database, Tx, hot

ONE_MOMENT = "set transaction isolation level repeatable read, read only"

# The default is a spinning disk's; lists are read from indexes alone, which are in memory or on an SSD.
FAST_INDEXES = "set local random_page_cost = 1.1"


@asynccontextmanager
async def snapshot(db: Database) -> AsyncIterator[Tx]:
    """A transaction that only reads, and sees the same rows in all its statements."""
    async with db.transaction() as tx:
        await hot(tx, ONE_MOMENT)
        await hot(tx, FAST_INDEXES)
        yield tx
