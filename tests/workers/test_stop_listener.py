"""The stop listener: whatever is said on its channel, it goes on listening."""

import asyncio
from collections.abc import Collection
from uuid import UUID

import pytest
from redis.asyncio import Redis

from shared import ids, redis_keys
from shared.runtime import redis_client
from tests.waiting import until
from workers.stop_listener import listen


@pytest.mark.parametrize("odd", [b"hello", b"\xff\xfe", b""])
async def test_a_message_that_is_not_ours_is_passed_over(redis_url: str, odd: bytes):
    redis, wanted = redis_client(redis_url), ids.new()
    heard: list[Collection[UUID]] = []
    begun: list[int] = []
    listening = asyncio.create_task(listen(redis, heard.append, lambda: begun.append(1)))

    async def heard_by_somebody() -> int:
        said: int = await redis.publish(redis_keys.cancel_channel(), odd)
        return said

    async def stopped() -> bool:
        return {wanted} in heard

    await until(heard_by_somebody, "it listens")
    await redis.publish(redis_keys.cancel_channel(), wanted.hex)
    await until(stopped, "it has heard what was said next", timeout_s=10)
    assert begun == [1], "it has not listened anew"
    listening.cancel()
    await asyncio.wait({listening})
    assert listening.cancelled()
    await redis.aclose()


async def test_what_was_said_while_it_did_not_listen_is_looked_for(redis_url: str):
    redis, begun = redis_client(redis_url), asyncio.Semaphore(0)
    listening = asyncio.create_task(listen(redis, lambda _: None, begun.release))
    async with asyncio.timeout(30):
        await begun.acquire()
        await until(lambda: cut_off(redis), "it has subscribed")
        await begun.acquire()
    listening.cancel()
    await asyncio.wait({listening})
    await redis.aclose()


async def cut_off(redis: Redis) -> int:
    """How many listeners were."""
    gone: int = await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    return gone
