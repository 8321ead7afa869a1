"""How an endpoint does: its deliveries by state, and how soon each was first tried."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from shared import ids
from shared.db import Tx, hot

MOST_TIMED = 10_000
"""First attempts that the percentiles look at, the newest ones."""
CLOCKS = timedelta(minutes=1)
"""How far the clocks of those who make ids may be apart."""

STATES = """
select count(*) as deliveries,
       count(*) filter (where state = 'delivered') as delivered,
       count(*) filter (where state = 'failing') as failing,
       count(*) filter (where state = 'exhausted') as exhausted,
       count(*) filter (where state in ('delivered', 'failing', 'exhausted', 'aborted')) as tried
  from deliveries
 where endpoint_id = %(id)s and id >= %(first)s and created_at >= %(since)s and trigger <> 'test'
"""

OLDEST = """
select extract(epoch from app_now() - min(created_at))::float8 as age_s from deliveries
 where queue_id = %(id)s and state in ('pending', 'failing') and trigger <> 'test'
"""

UNDELIVERED = "select count(*) as waiting from deliveries where queue_id = %s and state in ('pending', 'failing')"

# A replay's first attempt waits for its turn in the replay, which says nothing of how soon news arrive.
FIRST_ATTEMPTS = """
select percentile_cont(0.5) within group (order by waited_ms) as p50_ms,
       percentile_cont(0.95) within group (order by waited_ms) as p95_ms
  from (select greatest(0, extract(epoch from a.started_at - d.created_at) * 1000)::float8 as waited_ms
          from (select id, created_at from deliveries
                 where endpoint_id = %(id)s and id >= %(first)s and created_at >= %(since)s and trigger <> 'test'
                   and replay_id is null
                 order by id desc limit %(most)s) d
          join delivery_attempts a on a.delivery_id = d.id and a.number = 1) timed
"""


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Of the deliveries made since a moment; samples count for nothing.

    tried: those that were sent at least once and not discarded. oldest_undelivered_age_s: of all that still wait.
    first_attempt_p50_ms, first_attempt_p95_ms: from the event to the start of its first attempt.
    """

    deliveries: int
    delivered: int
    failing: int
    exhausted: int
    tried: int
    oldest_undelivered_age_s: float | None
    first_attempt_p50_ms: float | None
    first_attempt_p95_ms: float | None


async def since(tx: Tx, endpoint_id: UUID, at: datetime) -> Stats:
    """How the endpoint did since then."""
    values = {"id": endpoint_id, "first": ids.earliest(at - CLOCKS), "since": at, "most": MOST_TIMED}
    states = (await hot(tx, STATES, values))[0]
    oldest = (await hot(tx, OLDEST, values))[0]
    timed = (await hot(tx, FIRST_ATTEMPTS, values))[0]
    return Stats(
        **states._asdict(),
        oldest_undelivered_age_s=oldest.age_s,
        first_attempt_p50_ms=timed.p50_ms,
        first_attempt_p95_ms=timed.p95_ms,
    )


async def undelivered(tx: Tx, endpoint_id: UUID) -> int:
    """How many deliveries wait to be sent to the endpoint."""
    waiting: int = (await hot(tx, UNDELIVERED, (endpoint_id,)))[0].waiting
    return waiting
