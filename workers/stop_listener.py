"""Hears which calls the api cancelled."""

import asyncio
from collections.abc import Callable, Collection
from uuid import UUID

from redis.asyncio import Redis

from shared import log, redis_keys

logger = log.get(__name__)

RECONNECT_S = 1.0


async def listen(redis: Redis, cancel: Callable[[Collection[UUID]], None], missed: Callable[[], None]) -> None:
    """Tell `cancel` which calls are to be stopped. The lease renewal is the net when Redis is away.

    missed: called when listening begins, also again: what was said until then was not heard.
    """
    while True:
        try:
            async with redis.pubsub() as subscription:
                await subscription.subscribe(redis_keys.cancel_channel())
                missed()
                while True:
                    message = await subscription.get_message(ignore_subscribe_messages=True, timeout=30)
                    if message is not None:
                        cancel(_named(message["data"]))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is listened again
            logger.warning("stop_listener_reconnects", error=type(error).__name__)
            await asyncio.sleep(RECONNECT_S)


def _named(data: bytes) -> set[UUID]:
    """The ids of a message; none of one that is not ours: all databases of a server share its channels."""
    try:
        return {UUID(hex=id_) for id_ in data.decode().split(",")}
    except ValueError:
        logger.warning("stop_message_odd")
        return set()
