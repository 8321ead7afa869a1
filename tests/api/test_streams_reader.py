"""One reader for all the streams of a process."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from api.streams import BLOCK_S, MOST_BYTES, MOST_ENTRIES, ChunkFollower, Streams
from shared import redis_keys
from shared.chunks import Entry
from shared.runtime import Runtime
from tests.api.listening import end, words, written_to
from tests.waiting import until


@pytest.fixture
async def streams(runtime: Runtime) -> AsyncIterator[Streams]:
    found = Streams(runtime.redis, uuid4().hex)
    await found.open()
    yield found
    await found.close()


async def heard(follower: ChunkFollower, count: int) -> list[Entry]:
    """The next entries, so many."""
    found: list[Entry] = []
    async with asyncio.timeout(5):
        while len(found) < count:
            found += await follower.take(1)
    return found


async def reads(runtime: Runtime) -> int:
    """How often Redis was asked with XREAD."""
    stats = await runtime.redis.info("commandstats")
    return int(stats.get("cmdstat_xread", {"calls": 0})["calls"])


async def test_each_follower_hears_his_call_and_only_that(runtime: Runtime, streams: Streams):
    ids = [uuid4() for _ in range(30)]
    followers = {id_: streams.follow(id_, is_new=True) for id_ in ids}
    for n in (1, 2):
        for id_ in ids:
            await written_to(runtime.redis, id_, words(n, f"{id_}{n}"))
    for id_, follower in followers.items():
        assert await heard(follower, 2) == [words(n, f"{id_}{n}") for n in (1, 2)]


async def test_one_who_comes_while_the_reader_waits_is_heard_at_once(runtime: Runtime, streams: Streams):
    streams.follow(uuid4(), is_new=True)
    await asyncio.sleep(0.05)
    late = uuid4()
    follower = streams.follow(late, is_new=True)
    await written_to(runtime.redis, late, words(1, "a"))
    async with asyncio.timeout(BLOCK_S / 2):
        assert await follower.take(10) == [words(1, "a")]


class Faulty(Redis):
    """Fails at its first pipelines."""

    faults = 2

    def pipeline(self, *args: Any, **kwargs: Any) -> Pipeline:
        if self.faults:
            self.faults -= 1
            raise ConnectionError
        return super().pipeline(*args, **kwargs)


async def test_one_who_comes_while_the_reader_cannot_be_woken_is_heard_soon(runtime: Runtime):
    faulty = Faulty(connection_pool=runtime.redis.connection_pool)
    streams = Streams(faulty, uuid4().hex)
    await streams.open()
    streams.follow(uuid4(), is_new=True)
    await asyncio.sleep(0.05)
    late = uuid4()
    follower = streams.follow(late, is_new=True)
    await written_to(runtime.redis, late, words(1, "a"))
    async with asyncio.timeout(BLOCK_S / 2):
        assert await follower.take(10) == [words(1, "a")]
    await streams.close()
    assert faulty.faults == 0


async def test_nothing_is_asked_of_redis_while_nobody_follows(runtime: Runtime, streams: Streams):
    follower = streams.follow(uuid4(), is_new=True)
    await asyncio.sleep(0.05)
    follower.leave()
    await runtime.redis.xadd(streams._bell_key, {"b": ""})
    await asyncio.sleep(0.05)
    before = await reads(runtime)
    await asyncio.sleep(0.2)
    assert await reads(runtime) == before


async def test_one_with_a_full_buffer_is_passed_by_and_catches_up(runtime: Runtime, streams: Streams):
    id_ = uuid4()
    slow, quick = (streams.follow(id_, is_new=True) for _ in range(2))
    total = 3 * MOST_ENTRIES
    written = [words(n, str(n)) for n in range(1, total + 1)]
    reading = asyncio.create_task(heard(quick, total))
    await written_to(runtime.redis, id_, *written)
    assert await reading == written
    assert slow.is_behind
    assert len(slow._waiting) <= MOST_ENTRIES
    assert await heard(slow, total) == written
    await written_to(runtime.redis, id_, end(total + 1))
    assert await heard(slow, 1) == await heard(quick, 1) == [end(total + 1)]
    assert not slow.is_behind


async def test_a_buffer_is_bounded_in_bytes_but_takes_one_entry_of_any_size(runtime: Runtime, streams: Streams):
    id_ = uuid4()
    follower = streams.follow(id_, is_new=True)
    huge = [words(n, "x" * 2 * MOST_BYTES) for n in (1, 2)]
    await written_to(runtime.redis, id_, *huge)

    async def is_passed_by() -> bool:
        return follower.is_behind

    await until(is_passed_by, "the full buffer")
    assert len(follower._waiting) == 1
    assert await heard(follower, 2) == huge


async def test_one_who_comes_late_reads_what_was_said_and_then_along(runtime: Runtime, streams: Streams):
    id_ = uuid4()
    await written_to(runtime.redis, id_, words(1, "a"), words(2, "b"))
    follower = streams.follow(id_, is_new=False)
    assert await heard(follower, 2) == [words(1, "a"), words(2, "b")]
    assert await follower.take(0.05) == []
    assert not follower.is_behind
    await written_to(runtime.redis, id_, words(3, "c"))
    assert await heard(follower, 1) == [words(3, "c")]


async def test_one_who_is_told_nothing_can_be_woken(streams: Streams):
    follower = streams.follow(uuid4(), is_new=True)
    waiting = asyncio.create_task(follower.take(60))
    await asyncio.sleep(0.02)
    follower.wake()
    async with asyncio.timeout(1):
        assert await waiting == []


async def test_garbage_in_one_stream_stops_no_other(runtime: Runtime, streams: Streams):
    bad, good = uuid4(), uuid4()
    streams.follow(bad, is_new=True)
    follower = streams.follow(good, is_new=True)
    await runtime.redis.xadd(redis_keys.chunks(bad), {"x": "no json", "n": "1"}, id="1-1")
    await written_to(runtime.redis, good, words(1, "a"))
    assert await heard(follower, 1) == [words(1, "a")]
