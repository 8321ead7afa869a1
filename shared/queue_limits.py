"""The limit of each queue of deliveries: a full one takes no new ones until it has been worked off a little."""

from dataclasses import dataclass
from uuid import UUID

from shared.db import Tx, hot
from shared.sql_terms import WAITING_QUEUES

ROOM = 0.9
"""A full queue is open again below this share of the limit: it does not flap at the edge."""

# Each queue with something to send is counted up to the limit and no further.
MARK = f"""
with recursive {WAITING_QUEUES}, counted as (
    select waiting.id, n.deliveries from waiting,
           lateral (select count(*) as deliveries from (
                    select from deliveries d where d.queue_id = waiting.id and d.state in ('pending', 'failing')
                     limit %(limit)s) d) n
     where waiting.id is not null
), turned as (
    select q.id, not q.is_full as is_full
      from delivery_queues q left join counted c on c.id = q.id
     where case when q.is_full then coalesce(c.deliveries, 0) < %(limit)s * %(room)s
                else c.deliveries >= %(limit)s end
     order by q.id for no key update of q
)
update delivery_queues q set is_full = t.is_full, updated_at = app_now()
  from turned t where q.id = t.id
returning q.id, q.team_id, q.endpoint_id, q.is_full
"""


@dataclass(frozen=True, kw_only=True)
class Turned:
    """A queue that became full, or open again. endpoint_id: None when it is one of callbacks."""

    id: UUID
    team_id: str
    endpoint_id: UUID | None
    is_full: bool


async def mark(tx: Tx, *, limit: int) -> list[Turned]:
    """Set and clear `is_full`, which `outbox.record` reads; those that changed. limit: deliveries that may wait."""
    return [Turned(**row._asdict()) for row in await hot(tx, MARK, {"limit": limit, "room": ROOM})]
