"""Sending an endpoint an example, so that its team sees what comes and we see that it is taken."""

import asyncio
from uuid import UUID

from api.desk import Desk
from api.wire import event_examples
from shared import clock, delivery_queues, event_types, ids, sample_deliveries
from shared.db import Tx
from shared.messages import Deliver
from shared.runtime import Runtime
from shared.sample_deliveries import Received, Sample

FIRST_LOOK_S = 0.02
SLOWEST_LOOK_S = 0.25
GRACE_S = 5.0
"""Beyond the endpoint's timeout: for the queue, and for reading the answer."""


async def create(tx: Tx, endpoint_id: UUID, team_id: str, type_: str = event_types.TEST) -> UUID:
    """Make the delivery of this type's example; `ring` after the commit."""
    webhook_id = ids.prefixed("whe", endpoint_id)
    event = event_examples.event(type_, id_=ids.new(), team_id=team_id, at=clock.now(), webhook_id=webhook_id)
    sample = Sample(
        event_id=event.id,
        type=event.type,
        team_id=team_id,
        queue_id=delivery_queues.test_queue(endpoint_id),
        endpoint_id=endpoint_id,
        body=event.body(),
    )
    return await sample_deliveries.create(tx, sample)


def ring(rt: Runtime, endpoint_id: UUID) -> None:
    """Have the endpoint's examples sent now."""
    rt.ring(Deliver(ids=(delivery_queues.test_queue(endpoint_id),)))


async def received(rt: Runtime, desk: Desk, id_: UUID, *, timeout_s: float) -> Received | None:
    """How the example was received; None when nobody has sent it in time, or this process ends."""
    until, pause_s = clock.monotonic() + timeout_s + GRACE_S, FIRST_LOOK_S
    while clock.monotonic() < until and not desk.waiters.is_closed:
        await asyncio.sleep(pause_s)
        async with rt.db.hot_statement() as tx:
            found = await sample_deliveries.result(tx, id_)
        if found is not None:
            return found
        pause_s = min(2 * pause_s, SLOWEST_LOOK_S)
    return None
