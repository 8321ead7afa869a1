"""Prompts and answers: kept as long as retention says, and for an hour after the end where nothing is to be stored.

The end of a batch's line is that of the batch: its files are written from these texts.
"""

from shared.db import Tx, hot

# Not one word of a batch's lines before its files are there; a batch that is gone needs none.
IS_OVER = """
(c.id is null or c.completed_at <= {before} and (not c.batched or not exists (
    select from batches b where b.id = c.job_id
       and coalesce(b.completed_at, b.expired_at, b.cancelled_at, b.failed_at, 'infinity') > {before})))
"""

# For a team with `store_payloads` off an hour is long enough to read an answer that was waited for or called back.
ERASE_UNSTORED = f"""
delete from call_payloads where call_id in (
    select p.call_id from call_payloads p left join calls c on c.id = p.call_id
     where p.erase_at is not null and {IS_OVER.format(before="app_now() - interval '1 hour'")}
     limit %s)
returning call_id
"""

# Ids sort by time: the first ones are the oldest. A call that ended later than it was made waits its turn.
ERASE_OLD = f"""
delete from call_payloads where call_id in (
    select p.call_id from call_payloads p left join calls c on c.id = p.call_id
     where p.call_id < (lpad(to_hex((extract(epoch from app_now() - make_interval(days => %(days)s)) * 1000)::bigint),
                             12, '0') || repeat('0', 20))::uuid
       and {IS_OVER.format(before="app_now() - make_interval(days => %(days)s)")}
     order by p.call_id limit %(limit)s)
returning call_id
"""


async def erase_unstored(tx: Tx, *, limit: int) -> int:
    """Erase the texts of calls that ended an hour ago and were not to be stored. Returns how many."""
    return len(await hot(tx, ERASE_UNSTORED, (limit,)))


async def erase_old(tx: Tx, *, days: int, limit: int) -> int:
    """Erase the texts of calls that ended before so many days. Returns how many."""
    return len(await hot(tx, ERASE_OLD, {"days": days, "limit": limit}))
