"""How queues of deliveries and endpoints stand, over all teams: what waits, whose circuit is open, who is disabled."""

from collections.abc import Mapping
from dataclasses import dataclass

from shared.db import Tx, hot

# A queue in which nothing waits is not tried again: its circuit says nothing any more.
QUEUES = """
select count(*) filter (where q.open_s > 0 and q.open_until > app_now()) as open,
       count(*) filter (where q.open_s > 0 and q.open_until <= app_now()) as half_open,
       count(*) filter (where q.is_full) as full_queues,
       (select count(*) from deliveries where state in ('pending', 'failing')) as waiting
  from delivery_queues q
 cross join lateral (select d.id from deliveries d where d.queue_id = q.id and d.state in ('pending', 'failing')
                      order by d.next_attempt_at limit 1) unsent
 where q.open_s > 0 or q.is_full
"""

ENDPOINTS = """
select count(*) filter (where status = 'active') as active,
       count(*) filter (where status = 'active' and failing_since is not null) as failing,
       count(*) filter (where status = 'pending_verification') as pending_verification,
       count(*) filter (where status = 'disabled') as disabled
  from webhook_endpoints where deleted_at is null
"""

REASONS = """
select disabled_reason as reason, count(*) as endpoints from webhook_endpoints
 where deleted_at is null and status = 'disabled' and disabled_reason is not null group by disabled_reason
"""

DISABLED = ("manual", "gone", "failing", "url_refused")


@dataclass(frozen=True, kw_only=True)
class Health:
    """waiting: deliveries that are not delivered yet. open, half_open: circuits. full_queues: they take no more.

    endpoints: by status; `failing` ones are active. disabled: by reason.
    """

    waiting: int
    open: int
    half_open: int
    full_queues: int
    endpoints: Mapping[str, int]
    disabled: Mapping[str, int]


async def find(tx: Tx) -> Health:
    """As of now; deleted endpoints do not count."""
    [queues] = await hot(tx, QUEUES)
    [endpoints] = await hot(tx, ENDPOINTS)
    reasons = {row.reason: row.endpoints for row in await hot(tx, REASONS)}
    disabled = {reason: reasons.get(reason, 0) for reason in DISABLED}
    return Health(**queues._asdict(), endpoints=endpoints._asdict(), disabled=disabled)
