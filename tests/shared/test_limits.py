"""A team's limits are exact in any 60 s, over processes, for requests and tokens, and closed without Redis."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from redis.asyncio import Redis

from shared import redis_keys
from shared.errors import TooManyRequests, Unavailable
from shared.limits import give_back, is_active, settle_tokens, take
from shared.runtime import redis_client
from tests.shared.limit_subjects import OTHER_KEY, both, limits, one, pass_time, refusal


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with redis_client(redis_url) as client:
        yield client


@pytest.fixture
async def redis_down() -> AsyncIterator[Redis]:
    """A client of a port on which nobody listens."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        async with redis_client(f"redis://127.0.0.1:{reserved.getsockname()[1]}") as client:
            yield client


@pytest.fixture
def frozen_redis_url() -> Iterator[str]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}"


async def test_requests_beyond_the_limit_are_refused_and_say_when_to_come_again(redis: Redis):
    for _ in range(2):
        await take(redis, limits(rpm=2), requests=one())
        await pass_time(redis, 20)

    error = await refusal(redis, limits(rpm=2), one())

    assert error.detail == "Rate limit exceeded"
    assert error.headers["rate_limit_type"] == "requests"
    assert error.headers["X-RateLimit-Remaining"] == "0"
    assert 1 <= int(error.headers["Retry-After"]) <= 20
    assert error.headers["RateLimit"] == f'"team-rpm";r=0;t={error.headers["Retry-After"]}'


async def test_a_refused_request_comes_through_after_retry_after(redis: Redis):
    await take(redis, limits(rpm=1, tpm=100), requests=one(100))
    error = await refusal(redis, limits(rpm=1, tpm=100), one(100))

    await pass_time(redis, int(error.headers["Retry-After"]))
    await take(redis, limits(rpm=1, tpm=100), requests=one(100))


async def test_answers_carry_both_policies_and_the_state_of_requests(redis: Redis):
    (seconds, _) = await redis.time()
    taken = await take(redis, limits(rpm=60, tpm=60_000), requests=one(1_000))

    headers = taken.headers
    assert 60 <= int(headers.pop("X-RateLimit-Reset")) - seconds <= 65
    assert headers == {
        "X-RateLimit-Limit": "60",
        "X-RateLimit-Remaining": "59",
        "RateLimit-Policy": '"team-rpm";q=60;w=60, "team-tpm";q=60000;w=60;qu="tokens"',
        "RateLimit": '"team-rpm";r=59;t=60',
    }


async def test_a_team_with_a_token_limit_only_gets_no_request_headers(redis: Redis):
    taken = await take(redis, limits(tpm=100), requests=one(30))

    assert taken.headers == {
        "RateLimit-Policy": '"team-tpm";q=100;w=60;qu="tokens"',
        "RateLimit": '"team-tpm";r=70;t=60',
    }


async def test_request_refused_for_tokens_uses_no_request(redis: Redis):
    await take(redis, limits(rpm=2, tpm=100), requests=one(90))
    error = await refusal(redis, limits(rpm=2, tpm=100), one(11))

    assert error.headers["rate_limit_type"] == "tokens"
    assert error.headers["RateLimit"].startswith('"team-tpm";r=10;t=')
    taken = await take(redis, limits(rpm=2, tpm=100), requests=one(10))
    assert taken.headers["X-RateLimit-Remaining"] == "0"


async def test_several_requests_are_counted_together_or_not_at_all(redis: Redis):
    await refusal(redis, limits(rpm=3), one() + one() + one() + one())
    taken = await take(redis, limits(rpm=3), requests=one() + one() + one())

    assert taken.headers["X-RateLimit-Remaining"] == "0"


async def test_zero_denies(redis: Redis):
    assert (await refusal(redis, limits(rpm=0), one())).headers["Retry-After"] == "60"
    assert (await refusal(redis, limits(tpm=0), one(1))).headers["Retry-After"] == "60"


async def test_a_token_limit_does_not_hold_back_what_needs_no_tokens(redis: Redis):
    taken = await take(redis, limits(tpm=10), requests=one(10))
    await settle_tokens(redis, limits(tpm=1), taken.ids[0], 50)

    await take(redis, limits(tpm=10), requests=one(0))


async def test_the_wait_for_requests_is_until_enough_of_the_oldest_have_left(redis: Redis):
    await take(redis, limits(rpm=3), requests=one())
    await pass_time(redis, 30)
    await take(redis, limits(rpm=3), requests=one() + one())

    assert int((await refusal(redis, limits(rpm=3), one())).headers["Retry-After"]) <= 30
    assert int((await refusal(redis, limits(rpm=3), one() + one())).headers["Retry-After"]) > 30


async def test_when_both_limits_refuse_the_wait_is_the_longer_one(redis: Redis):
    bound = limits(rpm=2, tpm=10)
    await take(redis, bound, requests=one(1))
    await pass_time(redis, 30)
    await take(redis, bound, requests=one(9))

    error = await refusal(redis, bound, one(10))
    assert error.headers["rate_limit_type"] == "requests"
    assert int(error.headers["Retry-After"]) > 30


async def test_the_wait_for_tokens_is_until_enough_of_the_oldest_have_left(redis: Redis):
    bound = limits(tpm=1_300)
    await take(redis, bound, requests=[request for _ in range(1_200) for request in one(1)])
    await pass_time(redis, 30)
    await take(redis, bound, requests=one(100))

    assert int((await refusal(redis, bound, one(1_200))).headers["Retry-After"]) <= 30
    assert int((await refusal(redis, bound, one(1_201))).headers["Retry-After"]) > 30
    await pass_time(redis, 30)
    await take(redis, bound, requests=one(1_200))


async def test_what_was_given_back_can_be_taken_again(redis: Redis):
    bound = limits(rpm=1, tpm=10)
    taken = await take(redis, bound, requests=one(10))
    await give_back(redis, taken)
    await give_back(redis, taken)
    await take(redis, bound, requests=one(10))

    await refusal(redis, bound, one(1))


async def test_real_tokens_take_the_place_of_the_estimate(redis: Redis):
    bound = limits(tpm=100)
    taken = await take(redis, bound, requests=one(100))
    await settle_tokens(redis, limits(tpm=1), taken.ids[0], 40)
    await take(redis, bound, requests=one(60))

    await refusal(redis, bound, one(1))


async def test_settling_what_has_left_the_window_changes_nothing(redis: Redis):
    bound = limits(tpm=100)
    taken = await take(redis, bound, requests=one(50))
    await pass_time(redis, 60)
    await take(redis, bound, requests=one(1))
    await settle_tokens(redis, limits(tpm=1), taken.ids[0], 100)

    await take(redis, bound, requests=one(99))


async def test_a_key_without_room_uses_nothing_of_its_team(redis: Redis):
    await take(redis, both(of=(2, None), key=(1, None)), requests=one())
    error = await refusal(redis, both(of=(2, None), key=(1, None)), one())

    assert error.headers["RateLimit"].startswith('"key-rpm";r=0;t=')
    assert error.headers["X-RateLimit-Limit"] == "1"
    taken = await take(redis, both(of=(2, None), key=(1, None), key_id=OTHER_KEY), requests=one())
    assert taken.headers["RateLimit"].startswith('"team-rpm";r=0;t='), "one of the team's two was left"


async def test_a_team_without_room_uses_nothing_of_its_key(redis: Redis):
    bound = both(of=(None, 100), key=(5, 500))
    await take(redis, bound, requests=one(100))
    error = await refusal(redis, bound, one(1))
    await pass_time(redis, 60)

    assert error.headers["RateLimit"].startswith('"team-tpm";r=0;t=')
    assert error.headers["rate_limit_type"] == "tokens"
    assert (await take(redis, bound, requests=one(100))).headers["X-RateLimit-Remaining"] == "4"


async def test_answers_carry_the_policies_of_team_and_key_and_the_tightest_limit_on_requests(redis: Redis):
    bound = both(of=(60, 60_000), key=(10, 5000))
    taken = await take(redis, bound, requests=one(1_000))

    assert taken.headers["RateLimit-Policy"] == (
        '"team-rpm";q=60;w=60, "team-tpm";q=60000;w=60;qu="tokens", '
        '"key-rpm";q=10;w=60, "key-tpm";q=5000;w=60;qu="tokens"'
    )
    assert taken.headers["RateLimit"] == '"key-rpm";r=9;t=60'
    assert (taken.headers["X-RateLimit-Limit"], taken.headers["X-RateLimit-Remaining"]) == ("10", "9")


async def test_a_key_may_be_limited_where_its_team_is_not(redis: Redis):
    taken = await take(redis, both(key=(1, None)), requests=one())

    assert taken.headers["RateLimit-Policy"] == '"key-rpm";q=1;w=60'
    await refusal(redis, both(key=(1, None)), one())
    await take(redis, both(key=(1, None), key_id=OTHER_KEY), requests=one())


async def test_when_team_and_key_refuse_the_longer_wait_is_told(redis: Redis):
    await take(redis, limits(rpm=1), requests=one())
    await pass_time(redis, 30)
    await take(redis, both(key=(1, None)), requests=one())

    error = await refusal(redis, both(of=(1, None), key=(1, None)), one())
    assert error.headers["RateLimit"] == f'"key-rpm";r=0;t={error.headers["Retry-After"]}'
    assert int(error.headers["Retry-After"]) > 30


async def test_what_is_given_back_and_settled_is_so_for_team_and_key(redis: Redis):
    bound = both(of=(2, 100), key=(2, 100))
    given_back = await take(redis, bound, requests=one(100))
    await give_back(redis, given_back)
    settled = await take(redis, bound, requests=one(100))
    await settle_tokens(redis, bound, settled.ids[0], 40)

    taken = await take(redis, bound, requests=one(60))
    assert taken.headers["X-RateLimit-Remaining"] == "0"
    for subject in bound:
        assert await redis.hget(redis_keys.tokens_taken(subject.team_id, subject.key_id), "total") == b"100"


async def test_teams_do_not_share_a_limit(redis: Redis):
    await take(redis, limits(rpm=1, team="acme"), requests=one())
    await take(redis, limits(rpm=1, team="other"), requests=one())


async def test_nothing_is_kept_longer_than_the_window(redis: Redis):
    await take(redis, limits(rpm=5, tpm=100), requests=one(10))

    lives_ms = [await redis.pttl(key) for key in await redis.keys("*")]
    assert len(lives_ms) == 3
    assert all(0 < ms <= 61_000 for ms in lives_ms)


async def test_limits_survive_the_loss_of_the_cached_script(redis: Redis):
    await take(redis, limits(rpm=2), requests=one())
    await redis.script_flush()

    assert (await take(redis, limits(rpm=2), requests=one())).headers["X-RateLimit-Remaining"] == "0"


async def test_without_redis_limited_teams_are_refused_and_others_go_on(redis_down: Redis):
    with pytest.raises(Unavailable) as caught:
        await take(redis_down, limits(rpm=1), requests=one())

    assert int(caught.value.headers["Retry-After"]) >= 1
    assert (await take(redis_down, limits(), requests=one(5))).headers == {}


async def test_a_redis_that_does_not_answer_is_unavailable_too(frozen_redis_url: str):
    async with redis_client(frozen_redis_url, timeout_s=0.1) as frozen:
        with pytest.raises(Unavailable):
            await take(frozen, limits(tpm=1), requests=one(1))


async def test_the_limiter_says_whether_it_is_active(redis: Redis, redis_down: Redis):
    assert await is_active(redis)
    assert not await is_active(redis_down)
    try:
        await redis.config_set("min-replicas-to-write", "1")
        assert not await is_active(redis), "a Redis that takes no writes cannot count"
    finally:
        await redis.config_set("min-replicas-to-write", "0")


async def test_corrections_without_redis_do_not_raise(redis: Redis, redis_down: Redis):
    taken = await take(redis, limits(rpm=1, tpm=10), requests=one(10))

    assert await give_back(redis_down, taken) == ()
    await settle_tokens(redis_down, limits(tpm=1), taken.ids[0], 5)


def admitted(url: str, attempts: int) -> int:
    """How many of `attempts` simultaneous requests one process gets through; runs in a process of its own."""

    async def attempt(redis: Redis) -> bool:
        try:
            await take(redis, limits(rpm=41, tpm=10_000), requests=one(10))
        except TooManyRequests:
            return False
        return True

    async def run() -> int:
        async with redis_client(url, timeout_s=10) as redis:
            return sum(await asyncio.gather(*(attempt(redis) for _ in range(attempts))))

    return asyncio.run(run())


def test_two_processes_at_once_admit_exactly_the_limit(redis_url: str):
    with ProcessPoolExecutor(max_workers=2, mp_context=get_context("spawn")) as pool:
        counts = pool.map(admitted, [redis_url] * 2, [80] * 2)
        assert sum(counts) == 41
