"""Rate limits of dispatched lines: as many as fit, nobody asked again before the limit said so, what is unused back."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from shared import ids
from shared.dispatching import Waiting
from shared.limits import Limits, take
from shared.runtime import redis_client
from workers.line_limits import LineLimits


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = redis_client(redis_url)
    yield client
    await client.aclose()


def lines(count: int, *, tokens: int = 10, waited_s: float = 0, **limits: int | None) -> list[Waiting]:
    """Of one team and key."""
    none = dict.fromkeys(("rpm", "tpm", "key_rpm", "key_tpm"))
    shared = {"team_id": "team", "key_id": KEY, "weight": 1, "tokens": tokens, "priority": 0, "room": None}
    shared |= {"waited_s": waited_s}
    return [Waiting(id=ids.new(), scope="openai", **shared, **{**none, **limits}) for _ in range(count)]


KEY = ids.new()


async def test_the_tightest_of_all_limits_decides_how_many_fit(redis: Redis):
    chosen = lines(9, rpm=8, tpm=75, key_rpm=6, key_tpm=1000)
    assert await LineLimits(redis).take(chosen) == chosen[:6]
    chosen = lines(9, tpm=75)
    assert await LineLimits(redis).take(chosen) == chosen[:1], "of 75 tokens 60 are taken"


async def test_who_has_no_room_pauses_until_then_and_it_is_told_whose_limit_it_was(redis: Redis):
    limits = LineLimits(redis)
    assert await limits.take(lines(1, rpm=0)) == []
    assert limits.paused() == (["team"], [])

    limits = LineLimits(redis)
    assert await limits.take(lines(1, key_tpm=0)) == []
    assert limits.paused() == ([], [KEY])


async def in_use(redis: Redis, tokens: int) -> None:
    """So many of the team's tokens, by a live call."""
    await take(redis, [Limits(team_id="team", rpm=None, tpm=100)], requests=[("live", tokens)])


async def test_a_line_larger_than_a_limit_that_is_in_use_pauses_alone(redis: Redis):
    limits, large, small = LineLimits(redis), lines(2, tokens=101, tpm=100), lines(5, tpm=100)
    await in_use(redis, 60)
    assert await limits.take([*small[:1], *large, *small[1:]]) == small[:4]
    assert (limits.paused(), limits.paused_lines()) == (([], []), {line.id for line in large})


async def test_a_large_line_that_waited_for_a_minute_takes_what_is_left_before_those_behind_it(redis: Redis):
    limits, large, small = LineLimits(redis), lines(2, tokens=101, tpm=100, waited_s=60), lines(1, tpm=100)
    await in_use(redis, 60)
    assert await limits.take([*large, *small]) == large[:1]
    assert (limits.paused(), large[1].id in limits.paused_lines()) == ((["team"], []), True)
    assert await LineLimits(redis).take(large[1:]) == [], "nothing is left"


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
