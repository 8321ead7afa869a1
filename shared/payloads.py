"""Prompts and answers: kept as long as retention says, and for an hour after the end where nothing is to be stored.

The end of a batch's line is that of the batch: its files are written from these texts.
"""

from dataclasses import dataclass

from shared.db import Tx, hot
from shared.sql_terms import EARLIEST_ID

# Not one word of a batch's lines before its files are there; a batch that is gone needs none.
IS_OVER = """
(c.id is null or c.completed_at <= {before} and (not c.batched or not exists (
    select from batches b where b.id = c.job_id
       and coalesce(b.completed_at, b.expired_at, b.cancelled_at, b.failed_at, 'infinity') > {before})))
"""

# For a team with `store_payloads` off an hour is long enough to read an answer that was waited for or called back.
# `erase_at` says when to look, an hour after the texts were taken for the first time. What is not over by then is put
# off: by an hour again while it runs, so that an end is always seen before its hour has passed. What somebody has
# locked is being ended.
ERASE_UNSTORED = """
with looked_at as materialized (
    select call_id from call_payloads where erase_at <= app_now() order by erase_at limit %s for update skip locked
), found as materialized (
    select l.call_id,
           case when c.id is null then '-infinity' else greatest(
                coalesce(c.completed_at, 'infinity'),
                case when b.id is not null
                     then coalesce(b.completed_at, b.expired_at, b.cancelled_at, b.failed_at, 'infinity') end)
           end + interval '1 hour' as erase_at
      from looked_at l left join calls c on c.id = l.call_id left join batches b on c.batched and b.id = c.job_id
), erased as (
    delete from call_payloads p using found f where p.call_id = f.call_id and f.erase_at <= app_now()
    returning p.call_id
), put_off as (
    update call_payloads p set erase_at = least(f.erase_at, app_now() + interval '1 hour')
      from found f where p.call_id = f.call_id and f.erase_at > app_now()
)
select (select count(*) from erased) as erased, (select count(*) from looked_at) as looked_at
"""

# Ids sort by time: the first ones are the oldest. A call that ended later than it was made waits its turn.
ERASE_OLD = f"""
delete from call_payloads where call_id in (
    select p.call_id from call_payloads p left join calls c on c.id = p.call_id
     where p.call_id < {EARLIEST_ID.format("app_now() - make_interval(days => %(days)s)")}
       and {IS_OVER.format(before="app_now() - make_interval(days => %(days)s)")}
     order by p.call_id limit %(limit)s)
returning call_id
"""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a step found that is not to be stored: how many texts, and how many of them it erased."""

    looked_at: int
    erased: int


async def erase_unstored(tx: Tx, *, limit: int) -> Step:
    """Erase the texts of calls that ended an hour ago and were not to be stored, of those whose time to be looked at
    has come.
    """
    [row] = await hot(tx, ERASE_UNSTORED, (limit,))
    return Step(**row._asdict())


async def erase_old(tx: Tx, *, days: int, limit: int) -> int:
    """Erase the texts of calls that ended before so many days. Returns how many."""
    return len(await hot(tx, ERASE_OLD, {"days": days, "limit": limit}))
