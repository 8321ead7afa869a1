"""Deliveries: one event for one target, sent until it is taken; claims are leases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from shared.db import Tx, hot
from shared.ids import Fence
from shared.signing import Scheme

# The queues are in this transaction's hand: what is leased now was leased before this statement began.
CLAIM = """
with q as materialized (
    select u.id, u.is_open, u.tokens, held.ids as held, least(u.most, u.slots - cardinality(held.ids)) as room
      from unnest(%(queues)s::uuid[], %(most)s::int[], %(slots)s::int[], %(are_open)s::bool[], %(tokens)s::float8[])
           as u(id, most, slots, is_open, tokens)
      join delivery_queues s on s.id = u.id
     cross join lateral (
        select coalesce(array_agg(id), '{}') as ids from deliveries
         where id = any(s.leased) and state in ('pending', 'failing') and lease_expires_at > app_now()) held
), due as (
    select d.id from q cross join lateral (
        select id from deliveries
         where queue_id = q.id and state in ('pending', 'failing') and next_attempt_at <= app_now()
           and (lease_expires_at is null or lease_expires_at <= app_now()) and (q.is_open or trigger = 'test')
         order by next_attempt_at limit greatest(q.room, 0) for update skip locked) d
), claimed as (
    update deliveries d
       set attempt = d.attempt + 1, worker = %(worker)s,
           lease_expires_at = app_now() + make_interval(secs =>
               coalesce(w.timeout_s, %(timeout_s)s::float8) + %(margin_s)s::float8)
      from due join deliveries s on s.id = due.id left join webhook_endpoints w on w.id = s.endpoint_id
     where d.id = due.id
    returning d.*
), noted as (
    update delivery_queues s
       set leased = q.held || c.ids, tokens = q.tokens - cardinality(c.ids), refilled_at = app_now()
      from q join (select queue_id, array_agg(id) as ids from claimed group by queue_id) c on c.queue_id = q.id
     where s.id = q.id
)
select q.id as queue_id, cardinality(q.held) as held, d.id, d.event_id, d.event_type, d.team_id, d.job_id,
       d.endpoint_id, d.callback,
       d.replay_id, d.trigger, d.attempt, d.attempt_count, d.schedule_from, app_now() as claimed_at,
       d.state = 'failing' as was_failing,
       coalesce(d.body, e.body) as body,
       d.body is null and w.payload = 'full' and d.event_type = 'call.completed' as lacks_answer,
       e.subject_id as call_id, coalesce(w.url, c.callback_url, j.callback_url) as url,
       coalesce(w.secret_sealed, c.callback_secret_sealed, j.callback_secret_sealed, t.callback_secret_sealed)
           as secret_sealed,
       case when w.id is not null then 'webhook_endpoints.secret:' || w.id
            when c.callback_secret_sealed is not null then 'calls.callback_secret:' || c.id
            when j.callback_secret_sealed is not null then 'jobs.callback_secret:' || j.id
            else 'teams.callback_secret:' || t.id end as secret_purpose,
       coalesce(w.signing, 'v1') as signing, k.ids as key_ids, k.sealed as keys_sealed,
       w.auth_header_sealed, w.headers_sealed, w.timeout_s, w.retry_schedule_s as schedule_s
  from q
  left join claimed d on d.queue_id = q.id
  left join events e on e.id = d.event_id
  left join webhook_endpoints w on w.id = d.endpoint_id
  left join teams t on d.endpoint_id is null and t.id = d.team_id
  left join jobs j on d.callback = 'job' and j.id = d.job_id
  left join calls c on d.callback = 'call' and c.id = e.subject_id
  left join lateral (
        select array_agg(id) as ids, array_agg(key_sealed) as sealed from webhook_keys k
         where (k.endpoint_id = d.endpoint_id or (k.team_id = t.id and c.callback_secret_sealed is null
                                                   and j.callback_secret_sealed is null))
           and (k.expires_at is null or k.expires_at > app_now())) k on d.id is not null
"""

ANSWERS = "select call_id, response::text as response from call_payloads where call_id = any(%s::uuid[])"

KEEP_BODIES = """
update deliveries d set body = b.body from unnest(%(ids)s::uuid[], %(bodies)s::text[]) as b(id, body) where d.id = b.id
"""

RECORD = """
with r as materialized (
    select * from unnest(
        %(id)s::uuid[], %(attempt)s::int[], %(trigger)s::text[], %(state)s::text[], %(started_at)s::timestamptz[],
        %(duration_ms)s::int[], %(dns_ms)s::int[], %(connect_ms)s::int[], %(first_byte_ms)s::int[],
        %(status)s::int[], %(error_class)s::text[], %(error)s::text[], %(request_headers)s::text[],
        %(response_headers)s::text[], %(response_head)s::text[], %(redirect_target)s::text[], %(retry_in_s)s::float8[]
    ) as r(id, attempt, trigger, state, started_at, duration_ms, dns_ms, connect_ms, first_byte_ms, status,
           error_class, error, request_headers, response_headers, response_head, redirect_target, retry_in_s)
), attempted as (
    insert into delivery_attempts
           (delivery_id, number, trigger, started_at, duration_ms, dns_ms, connect_ms, first_byte_ms, status_code,
            error_class, error, request_headers, response_headers, response_head, redirect_target)
    select id, attempt, trigger, started_at, duration_ms, dns_ms, connect_ms, first_byte_ms, status,
           error_class, error, request_headers::jsonb, response_headers::jsonb, response_head, redirect_target from r
    on conflict do nothing
)
update deliveries d
   set state = r.state, attempt_count = d.attempt_count + 1, last_status = r.status, last_error = r.error,
       lease_expires_at = null, trigger = case when r.trigger = 'test' then 'test' else 'scheduled' end,
       next_attempt_at = case when r.retry_in_s is null then d.next_attempt_at
                              else app_now() + make_interval(secs => r.retry_in_s) end,
       delivered_at = case when r.state = 'delivered' then app_now() end
  from r
 where d.id = r.id and d.attempt = r.attempt and d.state in ('pending', 'failing')
returning d.id, d.attempt, d.attempt_count
"""

# `leased` names what may be under way: no scan of deliveries. Limits keep the planner from thinking of one.
SENDERS = """
select distinct d.worker
  from delivery_queues q cross join lateral unnest(q.leased) l(id)
 cross join lateral (select worker from deliveries
                      where id = l.id and state in ('pending', 'failing') and lease_expires_at > app_now() limit 1) d
"""

FREE = """
with left_over as materialized (
    select d.id
      from delivery_queues q cross join lateral unnest(q.leased) l(id)
     cross join lateral (select id from deliveries
                          where id = l.id and worker = any(%(workers)s) and state in ('pending', 'failing')
                            and lease_expires_at > app_now() limit 1) d
)
update deliveries set lease_expires_at = app_now()
 where id = any(array(select id from left_over)) and worker = any(%(workers)s) and state in ('pending', 'failing')
   and lease_expires_at > app_now()
returning queue_id
"""

# What is under way, or just being claimed or recorded, is met again by the next step or by the claim.
DISCARD = """
update deliveries d set state = 'discarded', lease_expires_at = null, last_error = %(reason)s
  from (select id from deliveries
         where queue_id = %(endpoint_id)s and state in ('pending', 'failing') and trigger <> 'test'
           and (lease_expires_at is null or lease_expires_at <= app_now())
         order by next_attempt_at limit %(limit)s for update skip locked) s
 where d.id = s.id
returning d.id
"""


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What may be claimed of a queue that is in hand.

    most: by its turn and its rate. slots: under way over all senders, what is leased already counts.
    tokens: what its rate allows now; None: it has none. is_open: whether its endpoint takes anything but tests.
    """

    most: int
    slots: int
    tokens: float | None = None
    is_open: bool = True


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One claimed delivery with all that its attempt needs. `attempt` is the fence, `attempt_count` the tries told.

    body: None when its event is no longer kept. timeout_s, schedule_s: None means the setting.
    schedule_from: tries made before the schedule began anew. claimed_at: by the database's clock.
    """

    id: UUID
    queue_id: UUID
    event_id: UUID
    event_type: str
    team_id: str
    job_id: UUID | None
    endpoint_id: UUID | None
    callback: str | None
    replay_id: UUID | None
    trigger: str
    attempt: int
    attempt_count: int
    schedule_from: int
    claimed_at: datetime
    was_failing: bool
    body: str | None
    lacks_answer: bool
    call_id: UUID | None
    url: str
    secret_sealed: bytes
    secret_purpose: str
    signing: Scheme
    key_ids: Sequence[UUID] | None
    keys_sealed: Sequence[bytes] | None
    auth_header_sealed: bytes | None
    headers_sealed: bytes | None
    timeout_s: float | None
    schedule_s: Sequence[float] | None

    @property
    def fence(self) -> Fence:
        """The id and the attempt number under which the delivery is held."""
        return self.id, self.attempt


@dataclass(frozen=True, kw_only=True)
class Result:
    """How an attempt ended and what follows: `state` is the delivery's next, `retry_in_s` from now by database time.

    request_headers: without the values of secret ones.
    """

    id: UUID
    attempt: int
    state: str
    started_at: datetime
    duration_ms: int
    trigger: str = "scheduled"
    dns_ms: int | None = None
    connect_ms: int | None = None
    first_byte_ms: int | None = None
    status: int | None = None
    error_class: str | None = None
    error: str | None = None
    request_headers: Mapping[str, str] | None = None
    response_headers: Mapping[str, str] | None = None
    response_head: str | None = None
    redirect_target: str | None = None
    retry_in_s: float | None = None


RESULT = tuple(field.name for field in fields(Result))
DELIVERY = tuple(field.name for field in fields(Delivery))


async def claim(
    tx: Tx, allowed: Mapping[UUID, Allowance], *, timeout_s: float, margin_s: float, worker: str
) -> tuple[list[Delivery], dict[UUID, int]]:
    """Lease the oldest due of queues that `delivery_queues.lock` took; and how many each queue had leased before.

    The lease is the endpoint's timeout (`timeout_s` where it has none) and `margin_s`: a sender that died blocks the
    places of its queues so long at most.
    """
    values = {
        "queues": list(allowed),
        "most": [w.most for w in allowed.values()],
        "slots": [w.slots for w in allowed.values()],
        "are_open": [w.is_open for w in allowed.values()],
        "tokens": [w.tokens for w in allowed.values()],
        "timeout_s": timeout_s,
        "margin_s": margin_s,
        "worker": worker,
    }
    rows = await hot(tx, CLAIM, values)
    claimed = [Delivery(**{name: getattr(row, name) for name in DELIVERY}) for row in rows if row.id is not None]
    return claimed, {row.queue_id: row.held for row in rows}


async def answers(tx: Tx, call_ids: Sequence[UUID]) -> dict[UUID, str | None]:
    """What calls were answered, as JSON text; None or not there where it is not kept."""
    return {row.call_id: row.response for row in await hot(tx, ANSWERS, (list(call_ids),))}


async def keep_bodies(tx: Tx, bodies: Mapping[UUID, str]) -> None:
    """Give deliveries a body of their own, which every try sends."""
    if bodies:
        await hot(tx, KEEP_BODIES, {"ids": list(bodies), "bodies": list(bodies.values())})


async def record(tx: Tx, results: Sequence[Result]) -> dict[Fence, int]:
    """Write attempts, and the states of deliveries that no later claim owns: the fences, with tries so far."""
    values: dict[str, Any] = {name: [getattr(result, name) for result in results] for name in RESULT}
    for name in ("request_headers", "response_headers"):
        values[name] = [None if headers is None else orjson.dumps(headers).decode() for headers in values[name]]
    return {(row.id, row.attempt): row.attempt_count for row in await hot(tx, RECORD, values)}


async def senders(tx: Tx) -> list[str]:
    """The workers that hold leases, or did when they died."""
    return [row.worker for row in await hot(tx, SENDERS)]


async def free(tx: Tx, workers: Sequence[str]) -> list[UUID]:
    """End the leases of workers that are no more, so that their deliveries are sent again; the queues to be rung."""
    return list({row.queue_id: None for row in await hot(tx, FREE, {"workers": list(workers)})})


async def discard(tx: Tx, endpoint_id: UUID, *, reason: str, limit: int) -> int:
    """Give up at most `limit` of an endpoint's undelivered deliveries; how many."""
    return len(await hot(tx, DISCARD, {"endpoint_id": endpoint_id, "reason": reason, "limit": limit}))
