"""Sending what is due, as a worker unit does it, without one."""

from uuid import UUID

from shared import delivery_queues
from shared.deliveries import Delivery
from shared.runtime import Runtime
from workers import delivery_claims
from workers.delivery_claims import Won
from workers.webhook_http import WebhookSender
from workers.webhooks import Deliverer, deliver

MANY = 100


async def claim(rt: Runtime, *queue_ids: UUID, most: int = MANY, worker: str = "w1") -> Won:
    """Won of queues that may be new."""
    async with rt.db.hot_statement() as tx:
        known = await delivery_queues.ensure(tx, queue_ids)
    return await delivery_claims.claim(rt, {queue.id: most for queue in known}, worker)


async def send(rt: Runtime, sender: WebhookSender, *queue_ids: UUID, most: int = MANY) -> list[Delivery]:
    """Won and deliver what is due in these queues, one by one; what was claimed."""
    claimed = (await claim(rt, *queue_ids, most=most)).deliveries
    by = Deliverer.of(rt, sender)
    for delivery in claimed:
        await deliver(by, delivery)
    return list(claimed)
