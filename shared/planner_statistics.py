"""What Postgres' planner knows of our tables, renewed as soon as as many rows have changed as there were.

A session keeps the plan of a statement until the statistics change. One that was made while a table was nearly empty
reads all of it, for every call, and goes on so beside the 50,000 lines of a batch. Autovacuum looks once in a minute.
"""

from collections.abc import Iterable

from shared.db import Database, hot
from shared.tables import metadata

LEAST_ROWS = 1_000
"""Fewer are read as fast from the whole table as by an index."""
MOST_PAGES = 30_000
"""So many make a whole sample. A table that is larger changes slowly enough for autovacuum."""

# Rows that are committed count, not pages: while a batch is copied in, its rows are not to be seen yet, and whoever
# analysed then would find next to nothing on many pages.
CHANGED = """
select c.oid::regclass::text as name from pg_class c
 where c.relnamespace = current_schema()::regnamespace and c.relname = any(%s)
   and pg_stat_get_mod_since_analyze(c.oid) > greatest(%s, c.reltuples)
   and pg_relation_size(c.oid) <= %s * current_setting('block_size')::bigint
"""


async def renew_changed(db: Database) -> list[str]:
    """Renew what is known of every table that has changed as a whole since. Returns their names."""
    async with db.hot_statement() as tx:
        changed = [row.name for row in await hot(tx, CHANGED, (list(metadata.tables), LEAST_ROWS, MOST_PAGES))]
    await renew(db, changed)
    return changed


async def renew(db: Database, tables: Iterable[str]) -> None:
    """The same for these; what autovacuum or somebody else analyses just now is left to them."""
    for table in tables:
        async with db.hot_statement() as tx:
            await hot(tx, f"analyze (skip_locked) {table}")
