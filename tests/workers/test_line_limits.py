"""Rate limits of dispatched lines: as many as fit, nobody asked again before the limit said so, what is unused back."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from shared import ids
from shared.dispatching import Waiting
from shared.runtime import redis_client
from workers.line_limits import LineLimits


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = redis_client(redis_url)
    yield client
    await client.aclose()


def lines(count: int, *, tokens: int = 10, **limits: int | None) -> list[Waiting]:
    """Of one team and key."""
    none = dict.fromkeys(("rpm", "tpm", "key_rpm", "key_tpm"))
    shared = {"team_id": "team", "key_id": KEY, "weight": 1, "tokens": tokens, "priority": 0, "room": None}
    return [Waiting(id=ids.new(), scope="openai", **shared, **{**none, **limits}) for _ in range(count)]


KEY = ids.new()


async def test_the_tightest_of_all_limits_decides_how_many_fit(redis: Redis):
    chosen = lines(9, rpm=8, tpm=75, key_rpm=6, key_tpm=1000)
    assert await LineLimits(redis).take(chosen) == chosen[:6]
    chosen = lines(9, tpm=75)
    assert await LineLimits(redis).take(chosen) == chosen[:1], "of 75 tokens 60 are taken"


async def test_who_has_no_room_is_held_until_then_and_it_is_told_whose_limit_it_was(redis: Redis):
    limits = LineLimits(redis)
    assert await limits.take(lines(1, rpm=0)) == []
    assert limits.held() == (["team"], [])

    limits = LineLimits(redis)
    assert await limits.take(lines(1, key_tpm=0)) == []
    assert limits.held() == ([], [KEY])


async def test_what_was_not_rung_after_all_is_given_back(redis: Redis):
    limits, chosen = LineLimits(redis), lines(3, rpm=2)
    assert await limits.take(chosen) == chosen[:2]
    await limits.give_back([chosen[0].id])
    assert await limits.take(chosen[2:]) == chosen[2:]


async def test_lines_without_limits_never_ask_redis():
    gone = redis_client("redis://127.0.0.1:1")
    chosen = lines(2)
    assert await LineLimits(gone).take(chosen) == chosen
    assert await LineLimits(gone).take(lines(1, rpm=5)) == []
    await gone.aclose()
