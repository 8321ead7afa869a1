"""The outbox: events, and the deliveries they cause, written by one statement in the transaction of their facts."""

from collections.abc import Iterable, Sequence
from uuid import UUID

import orjson

from shared.db import Tx, hot
from shared.event_types import OPT_IN, names
from shared.events import Event

LOG_LOCK = 0x5742_4C4F

# Held until the commit can be seen, so that a team's events are numbered in the order in which they become readable:
# who has read up to one has missed none. A statement of its own: who subscribes is read after it.
HOLD = """
select pg_advisory_xact_lock(%(lock)s::int, hashtext(t.id))
  from (select distinct id from unnest(%(team_ids)s::text[]) as u(id) order by 1) t
"""

# `names` mirrors event_types.names: what a subscription may say to mean this type. A callback's queue is that of its
# team and the origin of its URL. Bodies come as one JSON array of texts: the driver escapes every quote of a text[] by
# itself, which took half of what an event costs.
RECORD = """
with recorded as (
    insert into events (id, type, team_id, job_id, subject_id, sequence, created_at, body)
    select e.* from rows from (
        unnest(%(ids)s::uuid[], %(types)s::text[], %(team_ids)s::text[], %(job_ids)s::uuid[], %(subject_ids)s::uuid[],
               %(sequences)s::int[], %(at)s::timestamptz[]), json_array_elements_text(%(bodies)s::json)) as e
    returning id, type, team_id, job_id, subject_id,
        case when type = any(%(opt_in)s) then array[type] else
             array[type, '*', split_part(type, '.', 1) || '.*', regexp_replace(type, '[^.]*$', '*')] end as names
), targets as (
    select e.*, w.id as endpoint_id, null::text as callback, null::text as callback_url
      from recorded e join webhook_endpoints w on w.team_id = e.team_id
     where w.status = 'active' and w.events && e.names
    union all
    select e.*, null::uuid, 'job', j.callback_url from recorded e join jobs j on j.id = e.job_id
     where j.callback_url is not null and j.callback_events && e.names
    union all
    select e.*, null::uuid, 'call', c.callback_url from recorded e join calls c on c.id = e.subject_id
     where c.callback_url is not null and c.callback_events && e.names
)
insert into deliveries (id, event_id, event_type, team_id, job_id, endpoint_id, callback, queue_id, state, last_error)
select uuid7(), t.id, t.type, t.team_id, t.job_id, t.endpoint_id, t.callback, t.queue_id,
       case when q.is_full then 'discarded' else 'pending' end, case when q.is_full then 'queue_full' end
  from (select *, coalesce(endpoint_id, md5(team_id || chr(10) ||
               lower(substring(callback_url from '^[^:]+://[^/?#]+')))::uuid) as queue_id from targets) t
  left join delivery_queues q on q.id = t.queue_id
returning queue_id, state
"""

SUBSCRIBED = """
select distinct team_id from webhook_endpoints
 where team_id = any(%(team_ids)s) and status = 'active' and events && %(names)s
"""


async def subscribed(tx: Tx, team_ids: Iterable[str], types: Iterable[str]) -> set[str]:
    """Those of these teams that have an endpoint which wants events of one of these types."""
    meant = {name for type_ in types for name in names(type_)}
    rows = await hot(tx, SUBSCRIBED, {"team_ids": list(set(team_ids)), "names": list(meant)})
    return {row.team_id for row in rows}


async def hold(tx: Tx, team_ids: Sequence[str]) -> None:
    """Hold these teams' logs until `tx` ends: what others were writing can be read now, and nobody else writes."""
    await hot(tx, HOLD, {"lock": LOG_LOCK, "team_ids": list(team_ids)})


async def record(tx: Tx, facts: Sequence[Event]) -> list[UUID]:
    """Write events and one delivery for each active subscribed endpoint and callback; the queues to be rung.

    Comes after the rows the events are about. A sequence number used twice for a job violates its unique index.
    What a full queue is not to take is kept as `discarded`.
    """
    if not facts:
        return []
    values = {
        "ids": [f.id for f in facts],
        "types": [f.type for f in facts],
        "team_ids": [f.team_id for f in facts],
        "job_ids": [f.job_id for f in facts],
        "subject_ids": [f.subject_id for f in facts],
        "sequences": [f.sequence for f in facts],
        "bodies": orjson.dumps([f.body() for f in facts]).decode(),
        "at": [f.at for f in facts],
        "opt_in": list(OPT_IN),
    }
    await hold(tx, [f.team_id for f in facts])
    return list({row.queue_id: None for row in await hot(tx, RECORD, values) if row.state == "pending"})
