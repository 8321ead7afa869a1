"""The outbox: events, and the deliveries they cause, written by one statement in the transaction of their facts."""

from collections.abc import Iterable, Sequence
from uuid import UUID

import orjson

from shared.db import Tx, hot
from shared.event_types import names
from shared.events import Event
from shared.sql_terms import EVENT_NAMES

LOG_LOCK = 0x5742_4C4F

# Held until the commit can be seen, so that a team's events are numbered in the order in which they become readable:
# who has read up to one has missed none. A statement of its own: who subscribes is read after it.
HOLD = """
select pg_advisory_xact_lock(%(lock)s::int, hashtext(t.id))
  from (select distinct id from unnest(%(team_ids)s::text[]) as u(id) order by 1) t
"""

# A callback's queue is that of its team and the origin of its URL. Events come as one JSON text: as arrays, of which
# the driver writes every element by itself, they took half of what an event costs. The planner, too, thinks of a
# hundred of them, however many there are, and never of reading all calls or jobs for their callbacks.
RECORD = f"""
with given as materialized (
    select id, type, team_id, job_id, subject_id, sequence, at, body
      from json_to_recordset(%(events)s::json) as e(id uuid, type text, team_id text, job_id uuid, subject_id uuid,
                                                    sequence int, at timestamptz, body text)
), recorded as (
    insert into events (id, type, team_id, job_id, subject_id, sequence, created_at, body) select * from given
), kinds as materialized (
    select type, {EVENT_NAMES.format("type")} as names
      from (select distinct type from given) g
), targets as (
    select e.*, w.id as endpoint_id, null::text as callback, null::text as callback_url
      from given e join kinds k using (type) join webhook_endpoints w on w.team_id = e.team_id
     where w.status = 'active' and w.events && k.names
    union all
    select e.*, null::uuid, 'job', j.callback_url
      from given e join kinds k using (type) join jobs j on j.id = e.job_id
     where j.callback_url is not null and j.callback_events && k.names
    union all
    select e.*, null::uuid, 'call', c.callback_url
      from given e join kinds k using (type) join calls c on c.id = e.subject_id
     where c.callback_url is not null and c.callback_events && k.names
), made as (
    insert into deliveries
           (id, event_id, event_type, team_id, job_id, endpoint_id, callback, queue_id, state, last_error)
    select uuid7(), t.id, t.type, t.team_id, t.job_id, t.endpoint_id, t.callback, t.queue_id,
           case when q.is_full then 'discarded' else 'pending' end, case when q.is_full then 'queue_full' end
      from (select *, coalesce(endpoint_id, md5(team_id || chr(10) ||
                   lower(substring(callback_url from '^[^:]+://[^/?#]+')))::uuid) as queue_id from targets) t
      left join delivery_queues q on q.id = t.queue_id
    returning queue_id, state
)
select distinct queue_id from made where state = 'pending'
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
    events = [
        {
            "id": f.id,
            "type": f.type,
            "team_id": f.team_id,
            "job_id": f.job_id,
            "subject_id": f.subject_id,
            "sequence": f.sequence,
            "at": f.at,
            "body": f.body(),
        }
        for f in facts
    ]
    await hold(tx, list({f.team_id for f in facts}))
    rows = await hot(tx, RECORD, {"events": orjson.dumps(events).decode()})
    return [row.queue_id for row in rows]
