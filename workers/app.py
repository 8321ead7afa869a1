"""The actor table: which message is for whom. An actor waits for room, hands its ids over and returns: early ack.

From then on the row and its lease protect the work, not Dramatiq's message.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol
from uuid import UUID

import dramatiq

from shared import log
from shared.messages import Deliver, Queued, RunCalls, RunLines, TendBatches
from shared.queue import encode
from workers.broker import WakefulBroker

logger = log.get(__name__)

CLAIM_TIMEOUT_S = 30


class Taker(Protocol):
    """Who works on the ids of a message: `has_room` and `reserve` are called from threads, `take` on the loop."""

    def has_room(self) -> bool:
        """Whether a message should be fetched at all."""

    def reserve(self, slots: int) -> bool:
        """Wait for room; False when nothing more is taken."""

    async def take(self, ids: Sequence[UUID]) -> None:
        """Start on them."""


ACTORS: tuple[type[Queued], ...] = (RunCalls, RunLines, TendBatches, Deliver)


def create_broker(url: str, loop: asyncio.AbstractEventLoop, takers: Mapping[str, Taker]) -> WakefulBroker:
    """The broker with an actor for each message that a taker is for; takers: by actor name. Other queues are left."""
    served = [kind for kind in ACTORS if kind.actor in takers]
    broker = WakefulBroker(url, {kind.queue: takers[kind.actor].has_room for kind in served})
    for kind in served:
        declare = dramatiq.actor(broker=broker, actor_name=kind.actor, queue_name=kind.queue)
        declare(_actor(kind, takers[kind.actor], broker, loop))
    return broker


def _actor(
    kind: type[Queued], taker: Taker, broker: WakefulBroker, loop: asyncio.AbstractEventLoop
) -> Callable[[Sequence[str]], None]:
    def act(hex_ids: Sequence[str]) -> None:
        ids = [UUID(hex=hex_id) for hex_id in hex_ids]
        if not taker.reserve(len(ids)):
            broker.enqueue(encode(kind(ids=tuple(ids))))
            return
        try:
            asyncio.run_coroutine_threadsafe(taker.take(ids), loop).result(timeout=CLAIM_TIMEOUT_S)
        except Exception as error:  # noqa: BLE001 - the rows are untouched; the sweeper rings them again
            logger.warning("claim_failed", actor=kind.actor, ids=len(ids), error=type(error).__name__)

    return act
