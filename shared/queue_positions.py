"""Where in its team's queue a call is."""

from uuid import UUID

from shared.db import Tx, hot

# In the order in which they run: rung ones by their bell, then those whose turn the dispatcher gives. Both come in
# order out of an index, so that a long queue costs no more than its beginning.
POSITION = """
with waiting as (
    (select id, 0 as held, row_number() over (order by rung_at) as place from calls
      where team_id = %(team_id)s and state = 'pending' and not batched and rung_at is not null
      order by rung_at limit 64)
    union all
    (select id, 1, row_number() over (order by priority desc, id) from calls
      where team_id = %(team_id)s and state = 'pending' and not batched and rung_at is null
      order by priority desc, id limit 64)
)
select position from (select id, row_number() over (order by held, place) as position from waiting) w
 where id = %(call_id)s
"""


async def of_call(tx: Tx, team_id: str, call_id: UUID) -> int | None:
    """The place of a pending call among its team's, from 1; None: behind the first 64, or no longer pending.

    Lines of batches wait behind all calls and have none.
    """
    rows = await hot(tx, POSITION, {"team_id": team_id, "call_id": call_id})
    return rows[0].position if rows else None
