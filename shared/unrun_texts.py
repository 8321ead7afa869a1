"""Texts of lines that never ran: nobody reads them once their batch is over, and a retry takes them from its file.

So they do not wait for retention like all others: a batch of 200 MB that is cancelled at once leaves none of it.
"""

from shared.db import Tx, hot

LINES = 5000
"""Of one step. Each reads past those that the steps before it left without texts."""

# What is asked for is in the order of an index. A planner that has not seen these lines yet would sort all of them.
IN_ORDER = """
select set_config(name, 'off', true) from unnest(array['enable_sort', 'enable_bitmapscan', 'enable_seqscan']) name
"""

# All of them ended at once and have the last numbers of their batch, and they go in that order: as long as the last one
# has its text there are some, and to know that takes the same for 50,000 lines as for one. No batch has more than a
# week, and ids sort by time.
ERASE = """
with ended as materialized (
    select b.id from batches b
     where b.status in ('expired', 'cancelled')
       and b.id >= (lpad(to_hex((extract(epoch from app_now() - interval '9 days') * 1000)::bigint), 12, '0')
                    || repeat('0', 20))::uuid
       and exists (select from call_payloads p where p.call_id = (
                   select c.id from calls c where c.job_id = b.id and c.ended_number is not null and c.attempt = 0
                    order by c.ended_number desc limit 1))
     order by b.id limit 1
), unrun as materialized (
    select c.id from ended e join calls c on c.job_id = e.id
     where c.ended_number is not null and c.attempt = 0
       and exists (select from call_payloads p where p.call_id = c.id)
     order by c.ended_number limit %s
)
delete from call_payloads p using unrun u where p.call_id = u.id
returning p.call_id
"""


async def erase(tx: Tx, *, limit: int) -> int:
    """Erase texts of lines that never ran, of one batch that expired or was cancelled. Returns how many.

    `tx` is a transaction, and this all there is in it: the planner's settings are its own.
    """
    await hot(tx, IN_ORDER)
    return len(await hot(tx, ERASE, (limit,)))
