"""Which migration this code needs, and whether the database has it."""

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
