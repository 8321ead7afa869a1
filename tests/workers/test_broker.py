"""The wakeful broker on a real Valkey: what it relies on in Dramatiq, how it wakes, and what it leaves on the queue."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import pytest
import redis
from dramatiq import Message, Worker

from shared.ids import Fence
from shared.messages import Deliver, RunCalls
from shared.queue import Bell, connect, encode
from tests.waiting import until
from workers.app import create_broker
from workers.broker import WakefulBroker, WakefulConsumer
from workers.pool import LoopLag, Pool

QUEUE = "dramatiq:calls"
STORED = "dramatiq:calls.msgs"


@dataclass(frozen=True)
class Claim:
    """A claimed row."""

    fence: Fence


@dataclass
class Unit:
    """Dramatiq's threads over a pool with room for one, whose rows run until `held` is set."""

    broker: WakefulBroker
    worker: Worker
    pool: Pool[Claim]
    ran: list[UUID]
    held: asyncio.Event


@pytest.fixture
def valkey(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def broker(redis_url: str) -> Iterator[WakefulBroker]:
    made = WakefulBroker(redis_url, {"calls": lambda: True})
    yield made
    made.close()


@pytest.fixture
async def unit(redis_url: str) -> AsyncIterator[Unit]:
    """The test starts the worker; the fixture ends it."""
    held, ran = asyncio.Event(), []

    async def claim(ids: Sequence[UUID], start: Callable[[Claim], None]) -> None:
        for id_ in ids:
            start(Claim((id_, 1)))

    async def run(row: Claim) -> None:
        ran.append(row.fence[0])
        await held.wait()

    pool, deliveries = (Pool(limit=1, lag=LoopLag(), claim=claim, run=run) for _ in range(2))
    pools: dict[str, Pool[Any]] = {RunCalls.actor: pool, Deliver.actor: deliveries}
    broker = create_broker(redis_url, asyncio.get_running_loop(), pools)
    worker = Worker(broker, worker_timeout=50, worker_threads=2)
    worker.queue_prefetch = 4
    yield Unit(broker, worker, pool, ran, held)
    pool.close_door()
    deliveries.close_door()
    held.set()
    await asyncio.to_thread(worker.stop, 5000)
    await pool.drain(10, lambda _: None)


async def happens(condition: Callable[[], object], what: str) -> None:
    async def look() -> bool:
        return bool(condition())

    await until(look, what, timeout_s=10)


def ring(broker: WakefulBroker, count: int) -> list[UUID]:
    """Bells of one call each."""
    ids = [uuid4() for _ in range(count)]
    for id_ in ids:
        broker.enqueue(encode(RunCalls(ids=(id_,))))
    return ids


def waiting(valkey: redis.Redis) -> list[UUID]:
    """The calls whose bells are on the queue."""
    stored = [valkey.hget(STORED, id_) for id_ in valkey.lrange(QUEUE, 0, -1)]
    return [UUID(hex=Message.decode(data).args[0][0]) for data in stored]


def peeking(valkey: redis.Redis) -> list[dict[str, str]]:
    """The connections that wait in a BLMOVE."""
    return [client for client in valkey.client_list() if client["cmd"] == "blmove" and "b" in client["flags"]]


def test_dramatiq_keeps_a_queue_as_a_list_under_this_key(broker: WakefulBroker, valkey: redis.Redis):
    ring(broker, 2)
    assert valkey.type(QUEUE) == b"list"
    assert valkey.llen(QUEUE) == 2


def test_dramatiqs_consumer_counts_what_it_fetched(broker: WakefulBroker, valkey: redis.Redis):
    ring(broker, 4)
    inner = broker.consume("calls", prefetch=3)._inner

    message = next(inner)
    assert (len(inner.message_cache), inner.outstanding_message_count, valkey.llen(QUEUE)) == (2, 3, 1)
    inner.ack(message)
    assert inner.outstanding_message_count == 2


@pytest.mark.timeout(20)
def test_dramatiqs_consumer_without_timeout_does_not_sleep(broker: WakefulBroker):
    inner = broker.consume("calls")._inner
    assert [next(inner) for _ in range(300)] == [None] * 300  # with Dramatiq's own back-off: many minutes


def test_full_prefetch_waits_for_an_ack_and_not_for_redis(broker: WakefulBroker, valkey: redis.Redis):
    ring(broker, 2)
    consumer = broker.consume("calls", prefetch=1)
    message = next(consumer)
    valkey.config_resetstat()
    assert next(consumer) is None
    assert "cmdstat_blmove" not in valkey.info("commandstats"), "it would be answered at once, again and again"

    consumer.ack(message)
    assert next(consumer) is not None


@dataclass
class Peeks:
    """A Redis client that keeps what its BLMOVE answered."""

    client: redis.Redis
    seen: list[bytes | None] = field(default_factory=list)

    def blmove(self, *args: Any) -> None:
        self.seen.append(self.client.blmove(*args))


async def test_bell_wakes_an_idle_consumer_and_is_still_there_to_be_fetched(
    redis_url: str, broker: WakefulBroker, valkey: redis.Redis
):
    inner = broker.consume("calls")._inner
    peeks = Peeks(connect(redis_url, timeout_s=5))
    consumer = WakefulConsumer(inner, peeks, QUEUE, 1, lambda: True)
    woken = asyncio.create_task(asyncio.to_thread(next, consumer))
    await happens(lambda: peeking(valkey), "the consumer waits in Redis")
    (id_,) = ring(broker, 1)

    assert await woken is None
    assert peeks.seen == valkey.lrange(QUEUE, 0, -1), "woken by the bell, not by its patience"
    assert next(consumer).args == ([id_.hex],)


def test_bells_stay_in_redis_while_the_gate_is_closed(redis_url: str, valkey: redis.Redis):
    room = threading.Event()
    broker = WakefulBroker(redis_url, {"calls": room.is_set})
    ids = ring(broker, 3)
    consumer = broker.consume("calls", prefetch=2)
    assert [next(consumer) for _ in range(3)] == [None] * 3
    assert waiting(valkey) == ids

    room.set()
    assert next(consumer) is not None
    room.clear()
    assert next(consumer) is not None, "what is fetched is handed out"
    assert next(consumer) is None
    assert waiting(valkey) == ids[2:]


def test_closing_a_consumer_puts_back_what_it_did_not_hand_out(broker: WakefulBroker, valkey: redis.Redis):
    ids = ring(broker, 3)
    consumer = broker.consume("calls", prefetch=3)
    assert next(consumer) is not None
    assert waiting(valkey) == []

    consumer.close()
    assert sorted(waiting(valkey)) == sorted(ids[1:])


async def test_rung_call_is_run_and_its_bell_is_gone_before_it_ends(redis_url: str, unit: Unit, valkey: redis.Redis):
    unit.worker.start()
    assert set(unit.worker.consumers) == {"calls", "webhooks"}, "no consumer of a delay queue"
    assert unit.broker.delay_queues == set()
    await happens(lambda: len(peeking(valkey)) == 2, "both consumers wait in Redis")
    bell = Bell(redis_url)
    await bell.open()
    id_ = uuid4()
    bell.ring(RunCalls(ids=(id_,)))

    await happens(lambda: unit.ran == [id_], "the call runs")
    await happens(lambda: valkey.hlen(STORED) == 0, "its bell is acknowledged")
    assert set(unit.pool.tasks) == {(id_, 1)}
    await bell.close()


def test_messages_that_are_none_of_ours_keep_no_other_from_going_back(broker: WakefulBroker, valkey: redis.Redis):
    ids = ring(broker, 4)
    for stored in valkey.lrange(QUEUE, 1, 2):
        valkey.hset(STORED, stored, b"no message")
    consumer = broker.consume("calls", prefetch=4)
    assert next(consumer) is not None
    consumer.close()
    assert waiting(valkey) == [ids[3]]


async def test_bells_of_a_closed_door_are_back_on_the_queue_after_the_stop(unit: Unit, valkey: redis.Redis):
    ids = ring(unit.broker, 5)
    unit.worker.start()
    await happens(lambda: unit.ran and valkey.hlen(STORED) == 4, "one runs, one waits for room, the rest is fetched")
    assert waiting(valkey) == ids[4:], "no room, so the last one was left"

    unit.pool.close_door()
    await asyncio.to_thread(unit.worker.stop, 5000)
    (running,) = unit.ran
    assert sorted(waiting(valkey)) == sorted(set(ids) - {running})
    assert valkey.hlen(STORED) == 4
