"""Queues of deliveries: one per endpoint, and one per team and origin for callbacks; each with a circuit and a rate.

The circuit: closed (open_s = 0), open until `open_until`, from then on half open: one probe at a time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid5

from shared.db import Tx, hot
from shared.sql_terms import WAITING_QUEUES

FAILURES_TO_OPEN = 5
OPEN_S = 60.0
MOST_OPEN_S = 900.0
CONCURRENCY = 5
"""Of a queue without an endpoint."""

TESTS = UUID("a0b8a3d2-6f0e-4c0b-9a55-3f5d3ce1b7a4")

# Ordered, though any one would do: without it the planner may walk through the table for a queue whose rows are few.
ENSURE = """
with made as (
    insert into delivery_queues (id, team_id, endpoint_id)
    select u.id, d.team_id, case when d.endpoint_id = u.id then u.id end
      from unnest(%(ids)s::uuid[]) as u(id)
      cross join lateral (select team_id, endpoint_id from deliveries
                           where queue_id = u.id and state in ('pending', 'failing')
                           order by next_attempt_at limit 1) d
     order by u.id
    on conflict do nothing
    returning id, team_id
)
select id, team_id from made
 union all
select id, team_id from delivery_queues where id = any(%(ids)s::uuid[])
"""

KNOWN = "select id, team_id from delivery_queues where id = any(%s::uuid[])"

# A queue that another sender has in hand is left to it. Its row is read as it is once it is ours.
LOCK = """
select q.id, q.endpoint_id, coalesce(w.status, 'active') as status,
       case when q.open_s = 0 then coalesce(w.max_concurrency, %(concurrency)s)
            when q.open_until <= app_now() then 1 else 0 end as slots,
       w.max_rate_per_s as rate,
       case when w.max_rate_per_s is not null then
            least(greatest(w.max_rate_per_s, 1), coalesce(q.tokens + w.max_rate_per_s * greatest(0,
                  extract(epoch from app_now() - q.refilled_at)::float8), greatest(w.max_rate_per_s, 1))) end as tokens
  from delivery_queues q left join webhook_endpoints w on w.id = q.endpoint_id
 where q.id = any(%(ids)s::uuid[])
 order by q.id
   for no key update of q skip locked
"""

# A healthy queue's row is neither locked nor written: a busy endpoint is not a row that senders wait for.
TELL = """
with said as (
    select q.id, s.succeeded, q.open_s, q.open_until,
           case when s.succeeded then 0 else q.failures_in_a_row end + s.failures as failures,
           not s.succeeded and q.open_s > 0 and q.open_until <= app_now() and s.failures > 0 as probe_failed
      from delivery_queues q
      join unnest(%(ids)s::uuid[], %(succeeded)s::bool[], %(failures)s::int[]) as s(id, succeeded, failures)
        on s.id = q.id
     where s.failures > 0 or q.failures_in_a_row > 0 or q.open_s > 0
     order by q.id
       for no key update of q
), next as (
    select id, failures,
           case when probe_failed then least(2 * open_s, %(most_open_s)s)
                when open_s > 0 and not succeeded then open_s
                when failures >= %(failures_to_open)s then %(first_open_s)s else 0 end as open_s,
           case when open_s > 0 and not succeeded and not probe_failed then open_until end as still_until
      from said
)
update delivery_queues q
   set failures_in_a_row = n.failures, open_s = n.open_s, updated_at = app_now(),
       open_until = case when n.open_s > 0
                         then coalesce(n.still_until, app_now() + make_interval(secs => n.open_s)) end
  from next n where q.id = n.id
"""

CLOSE = """
update delivery_queues set failures_in_a_row = 0, open_s = 0, open_until = null, updated_at = app_now() where id = %s
"""

CIRCUITS = """
select id, case when open_s = 0 then 'closed' when open_until > app_now() then 'open' else 'half_open' end as state,
       case when open_s > 0 then open_until end as until
  from delivery_queues where id = any(%s::uuid[])
"""

# A loose index scan: two probes of ix_deliveries_queue_id_due per queue, however many deliveries wait in it.
DUE = f"""
with recursive {WAITING_QUEUES}
select waiting.id
  from waiting
  left join delivery_queues q on q.id = waiting.id
  left join webhook_endpoints w on w.id = q.endpoint_id
 cross join lateral (select d.id from deliveries d
                      where d.queue_id = waiting.id and d.state in ('pending', 'failing')
                        and d.next_attempt_at <= app_now()
                        and (d.lease_expires_at is null or d.lease_expires_at <= app_now())
                      order by d.next_attempt_at limit 1) free
 where waiting.id is not null and (q.open_until is null or q.open_until <= app_now())
   and w.status is distinct from 'pending_verification'
"""


@dataclass(frozen=True, kw_only=True)
class QueueCircuit:
    """`closed`, `open` or `half_open`; until: when it was or is to be tried again, None while it is closed."""

    state: str = "closed"
    until: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Known:
    """A queue that has a row."""

    id: UUID
    team_id: str


@dataclass(frozen=True, kw_only=True)
class Locked:
    """A queue in hand until the transaction ends.

    status: of its endpoint; `active` for callbacks. slots: how many may be under way over all senders: 0 while the
    circuit is open, 1 while it is half open. tokens: deliveries that `rate` (per second) allows now; None: any number.
    """

    id: UUID
    endpoint_id: UUID | None
    status: str
    slots: int
    rate: float | None
    tokens: float | None


@dataclass(frozen=True, kw_only=True)
class Said:
    """What attempts say about a queue: whether one succeeded, and how many failed since the last success."""

    id: UUID
    succeeded: bool
    failures: int


def test_queue(endpoint_id: UUID) -> UUID:
    """The queue of an endpoint's test deliveries: neither circuit, rate nor backlog of the endpoint holds them."""
    return uuid5(TESTS, endpoint_id.hex)


async def ensure(tx: Tx, ids: Sequence[UUID]) -> list[Known]:
    """The rows of these queues, made where there are none; a queue without row and without deliveries is left out.

    Needs a statement of its own: a row that another sender made meanwhile is seen by the next one only.
    """
    found = await hot(tx, ENSURE, {"ids": list(ids)})
    if missing := set(ids) - {row.id for row in found}:
        found += await hot(tx, KNOWN, (list(missing),))
    return [Known(**row._asdict()) for row in found]


async def lock(tx: Tx, ids: Iterable[UUID]) -> list[Locked]:
    """Take these queues in hand; those that another sender has are left out."""
    found = await hot(tx, LOCK, {"ids": list(ids), "concurrency": CONCURRENCY})
    return [Locked(**row._asdict()) for row in found]


async def tell(tx: Tx, said: Sequence[Said]) -> None:
    """Count failures, open circuits and close them. A failure while a circuit is open changes nothing."""
    if not said:
        return
    values = {
        "ids": [s.id for s in said],
        "succeeded": [s.succeeded for s in said],
        "failures": [s.failures for s in said],
        "failures_to_open": FAILURES_TO_OPEN,
        "first_open_s": OPEN_S,
        "most_open_s": MOST_OPEN_S,
    }
    await hot(tx, TELL, values)


async def close(tx: Tx, id_: UUID) -> None:
    """Close a circuit by hand: what is due is sent at once."""
    await hot(tx, CLOSE, (id_,))


async def circuits(tx: Tx, ids: Sequence[UUID]) -> dict[UUID, QueueCircuit]:
    """The circuits by queue; that of a queue that never sent is not there, and closed."""
    return {row.id: QueueCircuit(state=row.state, until=row.until) for row in await hot(tx, CIRCUITS, (list(ids),))}


async def due(tx: Tx) -> list[UUID]:
    """Queues in which something is due and free to be sent."""
    return [row.id for row in await hot(tx, DUE)]
