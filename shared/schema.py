"""Whether the database is one this code can work on: its revision, and whether it takes writes."""

from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from shared.db import CoreTx
from shared.revision import HEAD


async def is_current(tx: CoreTx) -> bool:
    """Whether the database is at the revision this code needs."""
    try:
        found = await tx.scalar(text("select version_num from alembic_version"))
    except ProgrammingError:
        return False
    return bool(found == HEAD)


async def takes_writes(tx: CoreTx) -> bool:
    """False on a standby, and where a provider has set the database read-only, because its disk is nearly full."""
    return bool(await tx.scalar(text("select current_setting('transaction_read_only') = 'off'")))
