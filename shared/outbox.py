"""The outbox: events, and the deliveries they cause, written by one statement in the transaction of their facts."""

from collections.abc import Sequence
from uuid import UUID

from shared.db import Tx, hot
from shared.event_types import OPT_IN
from shared.events import Event

# `names` mirrors event_types.names: what a subscription may say to mean this type.
RECORD = """
with recorded as (
    insert into events (id, type, team_id, job_id, subject_id, sequence, body, created_at)
    select * from unnest(%(ids)s::uuid[], %(types)s::text[], %(team_ids)s::text[], %(job_ids)s::uuid[],
        %(subject_ids)s::uuid[], %(sequences)s::int[], %(bodies)s::text[], %(at)s::timestamptz[])
    returning id, team_id, job_id, subject_id,
        case when type = any(%(opt_in)s) then array[type] else
             array[type, '*', split_part(type, '.', 1) || '.*', regexp_replace(type, '[^.]*$', '*')] end as names
)
insert into deliveries (id, event_id, team_id, job_id, endpoint_id, callback, rung_at)
select uuid7(), t.*, app_now() from (
    select e.id, e.team_id, e.job_id, w.id, null::text
      from recorded e join webhook_endpoints w on w.team_id = e.team_id
     where w.status = 'active' and w.events && e.names
    union all
    select e.id, e.team_id, e.job_id, null::uuid, 'job'
      from recorded e join jobs j on j.id = e.job_id
     where j.callback_url is not null and j.callback_events && e.names
    union all
    select e.id, e.team_id, e.job_id, null::uuid, 'call'
      from recorded e join calls c on c.id = e.subject_id
     where c.callback_url is not null and c.callback_events && e.names
) t
returning id
"""


async def record(tx: Tx, facts: Sequence[Event]) -> list[UUID]:
    """Write events and one delivery for each active subscribed endpoint and callback; the deliveries' ids, to be rung.

    Comes after the rows the events are about. A sequence number used twice for a job violates its unique index.
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
        "bodies": [f.body() for f in facts],
        "at": [f.at for f in facts],
        "opt_in": list(OPT_IN),
    }
    return [row.id for row in await hot(tx, RECORD, values)]
