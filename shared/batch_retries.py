"""Retries of batches: which lines are left to be run once more.

A batch, its retries and theirs are one family: they read one input file, in which a line has one position.
"""

from collections.abc import Sequence
from uuid import UUID

from shared.db import Tx, hot
from shared.sql_terms import FINAL_BATCH

CODES_IN_FILES = {"batch_expired": "deadline_exceeded", "batch_cancelled": "cancelled"}
"""What error files say for these codes of calls."""

ROOT = """
with recursive above as (
    select id, retry_of, 0 as depth from batches where id = %s
    union all
    select b.id, b.retry_of, a.depth + 1 from batches b join above a on b.id = a.retry_of
)
select id from above order by depth desc limit 1
"""

LOCK = "select id from batches where id = %s for no key update"

FAMILY = """
with recursive family as (
    select id, team_id, status from batches where id = %(root)s
    union all
    select b.id, b.team_id, b.status from batches b join family f on b.retry_of = f.id and b.team_id = f.team_id
)
"""

RUNNING = f"""
{FAMILY}
select id from family where status not in {FINAL_BATCH} order by id limit 1
"""

OTHERS = f"{FAMILY} select id from family where id <> %(but)s"

# By its job alone: the planner of a grown table must have nothing to join, and so nothing to get wrong.
ENDED = """
select position from calls
 where job_id = %(parent)s and batched and state in ('failed', 'cancelled')
   and case when state = 'cancelled' then 'cancelled' when error_code = 'deadline_exceeded' then 'expired'
            else 'failed' end = any(%(statuses)s)
   and (cardinality(%(codes)s::text[]) = 0 or error_code = any(%(codes)s))
"""

SUCCEEDED = "select position from calls where job_id = any(%s) and state = 'completed'"

ANY_LEFT = f"select exists ({ENDED} except {SUCCEEDED.replace('%s', '%(others)s::uuid[]')}) as is_left"


async def lock_family(tx: Tx, batch_id: UUID) -> UUID | None:
    """Let nobody else retry this batch, or one of its family, until `tx` ends.

    Returns one of the family that is not final, or None.
    """
    root = await _root(tx, batch_id)
    await hot(tx, LOCK, (root,))
    rows = await hot(tx, RUNNING, {"root": root})
    return rows[0].id if rows else None


async def positions(tx: Tx, parent_id: UUID, *, statuses: Sequence[str], codes: Sequence[str]) -> list[int]:
    """Where in the input file the lines of this batch are that match and have not succeeded in a retry, in order.

    statuses: of failed, expired, cancelled. codes: the errors of calls; none: all.
    """
    given = {"parent": parent_id, "statuses": list(statuses), "codes": list(codes)}
    ended = {row.position for row in await hot(tx, ENDED, given)}
    others = await _others(tx, parent_id) if ended else []
    if others:
        # What succeeded anywhere in the family was paid for.
        ended.difference_update(row.position for row in await hot(tx, SUCCEEDED, (others,)))
    return sorted(ended)


async def any_left(tx: Tx, parent_id: UUID, *, statuses: Sequence[str], codes: Sequence[str]) -> bool:
    """Whether `positions` has any; of the lines, tens of thousands perhaps, none leaves the database."""
    given = {"parent": parent_id, "statuses": list(statuses), "codes": list(codes)}
    rows = await hot(tx, ANY_LEFT, {**given, "others": await _others(tx, parent_id)})
    return bool(rows[0].is_left)


async def _others(tx: Tx, batch_id: UUID) -> list[UUID]:
    """The other batches of its family."""
    root = await _root(tx, batch_id)
    return [row.id for row in await hot(tx, OTHERS, {"root": root, "but": batch_id})]


async def _root(tx: Tx, batch_id: UUID) -> UUID:
    """The batch that a family began with."""
    rows = await hot(tx, ROOT, (batch_id,))
    return rows[0].id if rows else batch_id
