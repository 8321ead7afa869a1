"""Queues with something due, and what becomes of it."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import update

from shared import clock, delivery_queues, tables
from shared.deliveries import Delivery, Result
from shared.delivery_queues import QueueCircuit
from shared.runtime import Runtime
from tests.shared.webhook_rows import Rows
from workers.delivery_records import EndedAttempt, Records


async def set_endpoint(rows: Rows, id_: UUID, **values: Any) -> None:
    async with rows.rt.db.transaction() as tx:
        await tx.execute(update(tables.webhook_endpoints).where(tables.webhook_endpoints.c.id == id_).values(**values))


async def busy(rows: Rows, events: int, **values: Any) -> UUID:
    """An endpoint's queue with so many deliveries due."""
    endpoint = await rows.endpoint()
    if values:
        await set_endpoint(rows, endpoint, **values)
    await rows.record(*[rows.event() for _ in range(events)])
    return endpoint


def ended(delivery: Delivery, *, failed: bool) -> EndedAttempt:
    result = Result(
        id=delivery.id,
        attempt=delivery.attempt,
        trigger=delivery.trigger,
        state="failing" if failed else "delivered",
        started_at=clock.now(),
        duration_ms=5,
        status=500 if failed else 200,
        error_class="status" if failed else None,
        error="answered 500" if failed else None,
        retry_in_s=0.0 if failed else None,
    )
    return EndedAttempt(delivery=delivery, result=result)


async def end(rt: Runtime, claimed: Sequence[Delivery], *, failed: bool = False) -> None:
    """Record each claimed delivery as taken or refused by its receiver, one group for all."""
    await Records(rt)._commit([ended(delivery, failed=failed) for delivery in claimed], None)


async def circuit(rt: Runtime, queue: UUID) -> str:
    async with rt.db.statement() as tx:
        return (await delivery_queues.circuits(tx, [queue])).get(queue, QueueCircuit()).state


async def due(rt: Runtime) -> list[UUID]:
    async with rt.db.statement() as tx:
        return await delivery_queues.due(tx)
