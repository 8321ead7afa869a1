"""Sample deliveries: examples that an endpoint is sent because somebody asked; no event stands behind them.

They are sent once, whatever the endpoint's status or circuit says, and count for nothing.
"""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from shared import clock, ids
from shared.db import Tx, hot

PER_MINUTE = 10
RECENT = timedelta(minutes=5)

CREATE = """
insert into deliveries (id, event_id, event_type, team_id, queue_id, endpoint_id, body, trigger)
values (%(id)s, %(event_id)s, %(type)s, %(team_id)s, %(queue_id)s, %(endpoint_id)s, %(body)s, 'test')
"""

WAIT = """
select case when count(*) >= %(most)s
            then extract(epoch from min(created_at) + interval '1 minute' - app_now())::float8 end as wait_s
  from (select created_at from deliveries
         where endpoint_id = %(endpoint_id)s and id >= %(first)s and trigger = 'test'
           and created_at > app_now() - interval '1 minute'
         order by id desc limit %(most)s) recent
"""

DISCARD = """
update deliveries set state = 'discarded', lease_expires_at = null, last_error = %(reason)s
 where endpoint_id = %(endpoint_id)s and id >= %(first)s and trigger = 'test' and state in ('pending', 'failing')
"""

RESULT = """
select d.state, d.last_error, a.status_code, a.duration_ms, a.response_head, a.error
  from deliveries d
  left join lateral (select * from delivery_attempts where delivery_id = d.id order by number desc limit 1) a on true
 where d.id = %s and d.state not in ('pending', 'failing')
"""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An example for one endpoint. body: the whole event object, under an id that no event has."""

    event_id: UUID
    type: str
    team_id: str
    queue_id: UUID
    endpoint_id: UUID
    body: str


@dataclass(frozen=True, kw_only=True)
class Received:
    """How a sample was received. latency_ms: of its attempt; None when there was none."""

    ok: bool
    status_code: int | None
    latency_ms: int | None
    response_head: str | None
    error: str | None


async def wait_s(tx: Tx, endpoint_id: UUID) -> float | None:
    """How long until the endpoint may be sent another sample; None: now. Its row is locked by `tx`."""
    rows = await hot(tx, WAIT, {"endpoint_id": endpoint_id, "first": _recent(), "most": PER_MINUTE})
    found: float | None = rows[0].wait_s
    return found


async def create(tx: Tx, sample: Sample) -> UUID:
    """Make the delivery of an example; its queue is rung after the commit."""
    id_ = ids.new()
    await hot(tx, CREATE, {"id": id_, **vars(sample)})
    return id_


async def discard(tx: Tx, endpoint_id: UUID, *, reason: str) -> None:
    """Send none of the examples that wait: their URL is the endpoint's no more."""
    await hot(tx, DISCARD, {"endpoint_id": endpoint_id, "first": _recent(), "reason": reason})


async def result(tx: Tx, id_: UUID) -> Received | None:
    """How it ended; None while it has not."""
    rows = await hot(tx, RESULT, (id_,))
    if not rows:
        return None
    row = rows[0]
    return Received(
        ok=row.state == "delivered",
        status_code=row.status_code,
        latency_ms=row.duration_ms,
        response_head=row.response_head,
        error=row.error or (None if row.state == "delivered" else row.last_error),
    )


def _recent() -> UUID:
    """Where the examples begin that may count or wait: a part of the index, however many deliveries there are."""
    return ids.earliest(clock.now() - RECENT)
