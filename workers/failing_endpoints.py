"""What is done about receivers that fail: notices before they are disabled, queues emptied after, queues limited."""

from shared import clock, deliveries, endpoint_health, ids, log, outbox, queue_limits
from shared.endpoint_health import ToClear
from shared.messages import Deliver
from shared.runtime import Runtime

logger = log.get(__name__)

NOTICES_EVERY_S = 10.0
DISCARD_EVERY_S = 5.0
LIMITS_EVERY_S = 10.0
STEP = 500
MOST_STEPS = 40
"""Steps of one round: so many deliveries are discarded before other endpoints have their turn."""


async def warn_failing(rt: Runtime) -> int:
    """Record the notices that are due at 50, 70 and 90 % of the time after which an endpoint is disabled; how many."""
    after_s = rt.settings.webhook_disable_after_s
    async with rt.db.hot_transaction() as tx:
        events = await endpoint_health.notices(tx, now=clock.now(), disable_after_s=after_s, limit=STEP)
        queues = await outbox.record(tx, events)
    endpoint_health.log_events(events)
    rt.ring(Deliver(ids=tuple(queues)))
    return len(events)


async def discard_of_disabled(rt: Runtime) -> int:
    """Discard what waits for endpoints that were disabled or deleted, in steps; how many deliveries."""
    async with rt.db.hot_statement() as tx:
        found = await endpoint_health.to_clear(tx, limit=STEP)
    return sum([await _discard(rt, endpoint) for endpoint in found])


async def mark_full_queues(rt: Runtime) -> int:
    """Close queues that are full to new deliveries and open those that have room again; how many turned."""
    async with rt.db.hot_statement() as tx:
        turned = await queue_limits.mark(tx, limit=rt.settings.webhook_queue_limit)
    for queue in turned:
        endpoint = None if queue.endpoint_id is None else str(queue.endpoint_id)
        named = {"queue_id": str(queue.id), "team_id": queue.team_id, "endpoint_id": endpoint}
        if queue.is_full:
            logger.warning("delivery_queue_full", **named)
        else:
            logger.info("delivery_queue_has_room", **named)
    return len(turned)


async def _discard(rt: Runtime, endpoint: ToClear) -> int:
    reason = "the endpoint is deleted" if endpoint.deleted else "the endpoint is disabled"
    total = 0
    for _ in range(MOST_STEPS):
        async with rt.db.hot_statement() as tx:
            found = await deliveries.discard(tx, endpoint.id, reason=reason, limit=STEP)
        total += found
        if found < STEP:
            break
    if total:
        logger.info(
            "deliveries_discarded", webhook_id=ids.prefixed("whe", endpoint.id), reason=reason, deliveries=total
        )
    return total
