"""Deliveries and their attempts: kept as long as retention says, and until they are final."""

from shared.db import Tx, hot
from shared.sql_terms import EARLIEST_ID

# The rows are kept an hour longer than `delivered=false` looks back: what it shows as missed was not deleted.
BEFORE = "app_now() - make_interval(days => %(days)s, hours => 1)"

# Ids sort by time: the first ones are the oldest.
OLDEST = EARLIEST_ID.format(BEFORE)

# First the attempts: a delivery has as many as its schedule has steps, and more after each retry.
DELETE_ATTEMPTS = f"""
delete from delivery_attempts where (delivery_id, number) in (
    select a.delivery_id, a.number from delivery_attempts a left join deliveries d on d.id = a.delivery_id
     where a.delivery_id < {OLDEST} and a.started_at <= {BEFORE}
       and (d.id is null or d.state not in ('pending', 'failing'))
     order by a.delivery_id limit %(limit)s)
returning number
"""

# One that was tried again of late keeps its attempts, and they it.
DELETE_FINAL = f"""
delete from deliveries where id in (
    select d.id from deliveries d
     where d.id < {OLDEST} and d.state not in ('pending', 'failing')
       and not exists (select from delivery_attempts a where a.delivery_id = d.id)
     order by d.id limit %(limit)s)
   and state not in ('pending', 'failing')
returning id
"""


async def delete_attempts(tx: Tx, *, days: int, limit: int) -> int:
    """Delete attempts of final deliveries, made before so many days. Returns how many."""
    return len(await hot(tx, DELETE_ATTEMPTS, {"days": days, "limit": limit}))


async def delete_final(tx: Tx, *, days: int, limit: int) -> int:
    """Delete final deliveries made before so many days that have no attempt any more. Returns how many."""
    return len(await hot(tx, DELETE_FINAL, {"days": days, "limit": limit}))
