"""Time for workers that could not renew the leases of their calls while the database was away or took no writes."""

from uuid import UUID

from shared.db import Tx, hot

# In the order of ids, as every lock of calls. One that somebody has in hand is being renewed, closed or swept.
PROLONG = """
with short as (
    select id from calls
     where state = 'in_progress' and lease_expires_at < app_now() + make_interval(secs => %(left_s)s)
     order by id for no key update skip locked
)
update calls c set lease_expires_at = app_now() + make_interval(secs => %(left_s)s)
  from short where c.id = short.id returning c.id
"""


async def prolong(tx: Tx, *, left_s: float) -> list[UUID]:
    """Let no lease, also none that has run out, end within so many seconds. Returns the calls that had less."""
    return [row.id for row in await hot(tx, PROLONG, {"left_s": left_s})]
