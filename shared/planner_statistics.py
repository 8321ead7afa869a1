"""What Postgres' planner knows of our tables, renewed as soon as one has grown to twice what it was.

A session keeps the plan of a statement until the statistics change. One that was made while a table was nearly empty
reads all of it, for every call, and goes on so beside the 50,000 lines of a batch. Autovacuum looks once in a minute.
"""

from collections.abc import Iterable

from shared.db import Database, hot
from shared.tables import metadata

LEAST_PAGES = 64
"""Below this a whole table is read as fast as an index."""
MOST_PAGES = 30_000
"""So many make a whole sample. A table that is larger changes slowly enough for autovacuum."""

GROWN = """
select c.oid::regclass::text as name from pg_class c
 where c.relnamespace = current_schema()::regnamespace and c.relname = any(%s)
   and pg_relation_size(c.oid) / current_setting('block_size')::int
       between 2 * c.relpages + %s and %s
"""


async def renew_grown(db: Database) -> list[str]:
    """Renew what is known of every table that has at least doubled since. Returns their names."""
    async with db.hot_statement() as tx:
        grown = [row.name for row in await hot(tx, GROWN, (list(metadata.tables), LEAST_PAGES, MOST_PAGES))]
    await renew(db, grown)
    return grown


async def renew(db: Database, tables: Iterable[str]) -> None:
    """The same for these; what autovacuum or somebody else analyses just now is left to them."""
    for table in tables:
        async with db.hot_statement() as tx:
            await hot(tx, f"analyze (skip_locked) {table}")
