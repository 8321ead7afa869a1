"""Claiming deliveries: many queues in one transaction, each within its circuit, its rate and its concurrency."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor
from uuid import UUID

from shared import deliveries, delivery_queues, payload_forms
from shared.db import Tx
from shared.deliveries import Allowance, Delivery
from shared.delivery_queues import Locked
from shared.runtime import Runtime
from workers.webhook_http import BODY_TIMEOUT_S

LEASE_MARGIN_S = 3.0
"""For recording; what takes longer is told on if nobody has claimed it meanwhile."""
TAKEN_S = 0.05
"""Until a queue that another sender has in hand is looked at again."""
DISCARD_STEP = 500


@dataclass(frozen=True, kw_only=True)
class Won:
    """What was won, and when to look at a queue again: after seconds, or (None) when one of its attempts ends.

    Queues that are not in `again` have nothing more that is due, or an open circuit.
    """

    deliveries: Sequence[Delivery]
    again: Mapping[UUID, float | None]


async def claim(rt: Runtime, most: Mapping[UUID, int], worker: str) -> Won:
    """Lease up to `most` of each of these queues; deliver each one returned."""
    settings = rt.settings
    async with rt.db.hot_transaction() as tx:
        locked = await delivery_queues.lock(tx, most)
        again: dict[UUID, float | None] = dict.fromkeys(most, TAKEN_S)
        for queue in locked:
            del again[queue.id]
        again |= await _discarded(tx, [q for q in locked if q.status == "disabled" and q.endpoint_id is not None])
        allowed = {queue.id: _allowance(queue, most[queue.id]) for queue in locked if queue.slots}
        if not allowed:
            return Won(deliveries=(), again=again)
        won, held = await deliveries.claim(
            tx,
            allowed,
            timeout_s=settings.webhook_timeout_s,
            margin_s=BODY_TIMEOUT_S + LEASE_MARGIN_S,
            worker=worker,
        )
        taken = dict.fromkeys(allowed, 0)
        for delivery in won:
            taken[delivery.queue_id] += 1
        won = await _with_answers(tx, won)
    for queue in locked:
        if queue.id in allowed and queue.status == "active":
            again |= _again(queue, most[queue.id], taken[queue.id], held[queue.id])
    return Won(deliveries=won, again=again)


def _allowance(queue: Locked, most: int) -> Allowance:
    allowed = most if queue.tokens is None else min(most, floor(queue.tokens))
    return Allowance(most=allowed, slots=queue.slots, tokens=queue.tokens, is_open=queue.status == "active")


def _again(queue: Locked, most: int, taken: int, held: int) -> dict[UUID, float | None]:
    """Whatever held the claim back says when it is worth another look; what ran out of due deliveries is not."""
    if held + taken >= queue.slots:
        return {queue.id: None}
    if taken == most:
        return {queue.id: 0.0}
    if queue.tokens is not None and queue.rate is not None and taken == floor(queue.tokens):
        return {queue.id: (1 - (queue.tokens - taken)) / queue.rate}
    return {}


async def _discarded(tx: Tx, disabled: Sequence[Locked]) -> dict[UUID, float | None]:
    again: dict[UUID, float | None] = {}
    for queue in disabled:
        gone = await deliveries.discard(tx, queue.id, reason="the endpoint is disabled", limit=DISCARD_STEP)
        if gone == DISCARD_STEP:
            again[queue.id] = 0.0
    return again


async def _with_answers(tx: Tx, won: Sequence[Delivery]) -> list[Delivery]:
    """Put the answer into the bodies that are to have it, once: the answer itself may be erased before a later try."""
    lacking = {d.id: d for d in won if d.lacks_answer and d.body is not None and d.call_id is not None}
    if not lacking:
        return list(won)
    found = await deliveries.answers(tx, [d.call_id for d in lacking.values() if d.call_id is not None])
    bodies = {
        id_: payload_forms.full(d.body, found.get(d.call_id))
        for id_, d in lacking.items()
        if d.body is not None and d.call_id is not None
    }
    await deliveries.keep_bodies(tx, bodies)
    return [replace(d, body=bodies.get(d.id, d.body)) for d in won]
