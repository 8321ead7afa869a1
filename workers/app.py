"""The actor table: which message runs what. An actor waits for room, claims, starts the tasks and returns: early ack.

From then on the lease protects the work, not Dramatiq's message.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

import dramatiq

from shared import log
from shared.messages import Deliver, RunCalls
from shared.queue import encode
from workers.broker import WakefulBroker
from workers.pool import Pool

logger = log.get(__name__)

CLAIM_TIMEOUT_S = 30

ACTORS: tuple[type[RunCalls] | type[Deliver], ...] = (RunCalls, Deliver)


def create_broker(url: str, loop: asyncio.AbstractEventLoop, pools: Mapping[str, Pool[Any]]) -> WakefulBroker:
    """The broker with one actor per message; pools: actor name to the pool that runs what its ids stand for."""
    broker = WakefulBroker(url, {kind.queue: pools[kind.actor].has_room for kind in ACTORS})
    for kind in ACTORS:
        declare = dramatiq.actor(broker=broker, actor_name=kind.actor, queue_name=kind.queue)
        declare(_actor(kind, pools[kind.actor], broker, loop))
    return broker


def _actor(
    kind: type[RunCalls] | type[Deliver], pool: Pool[Any], broker: WakefulBroker, loop: asyncio.AbstractEventLoop
) -> Callable[[Sequence[str]], None]:
    def act(hex_ids: Sequence[str]) -> None:
        ids = [UUID(hex=hex_id) for hex_id in hex_ids]
        if not pool.reserve(len(ids)):
            broker.enqueue(encode(kind(ids=tuple(ids))))
            return
        try:
            asyncio.run_coroutine_threadsafe(pool.take(ids), loop).result(timeout=CLAIM_TIMEOUT_S)
        except Exception as error:  # noqa: BLE001 - the rows are untouched; the sweeper rings them again
            logger.warning("claim_failed", actor=kind.actor, ids=len(ids), error=type(error).__name__)

    return act
