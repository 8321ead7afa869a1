"""The bell: ids on Redis, sent from the background and never waited for."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import dramatiq
import pytest
import redis

from shared.messages import MAX_IDS, Deliver, Ended, Message, RunCalls, Stop
from shared.queue import Bell, joined
from tests.waiting import until


def some_ids(count: int) -> tuple[UUID, ...]:
    return tuple(uuid4() for _ in range(count))


def bells(url: str, queue: str) -> list[dramatiq.Message[Any]]:
    """What Dramatiq would fetch from a queue, oldest first."""
    with redis.Redis.from_url(url) as client:
        queued = client.lrange(f"dramatiq:{queue}", 0, -1)
        stored = client.hgetall(f"dramatiq:{queue}.msgs")
        return [dramatiq.Message.decode(stored[id_]) for id_ in queued]


def ids_of(message: dramatiq.Message[Any]) -> tuple[UUID, ...]:
    return tuple(UUID(hex=id_) for id_ in message.args[0])


async def happens(condition: Callable[[], object], what: str) -> None:
    async def look() -> bool:
        return bool(condition())

    await until(look, what, timeout_s=10)


@pytest.fixture
async def bell(redis_url: str) -> AsyncIterator[Bell]:
    made = Bell(redis_url)
    await made.open()
    yield made
    await made.close()


@pytest.mark.parametrize(("kind", "actor"), [(RunCalls, "run_calls"), (Deliver, "deliver")])
async def test_rung_message_is_on_its_queue_for_its_actor(
    redis_url: str, bell: Bell, kind: type[RunCalls | Deliver], actor: str
):
    ids = some_ids(2)
    bell.ring(kind(ids=ids))
    await happens(lambda: bells(redis_url, kind.queue), "the bell is on the queue")

    (sent,) = bells(redis_url, kind.queue)
    assert (sent.queue_name, sent.actor_name, ids_of(sent), sent.kwargs) == (kind.queue, actor, ids, {})


async def test_closing_sends_what_waits_in_as_few_messages_as_may_be(redis_url: str):
    bell = Bell(redis_url)
    await bell.open()
    first, second, third = some_ids(5), some_ids(5), some_ids(1)
    for ids in (first, second):
        bell.ring(RunCalls(ids=ids))
    bell.ring(Deliver(ids=third))
    await bell.close()

    found = [ids_of(sent) for sent in bells(redis_url, "calls")]
    assert found == [(first + second)[:MAX_IDS], (first + second)[MAX_IDS:]]
    assert [ids_of(sent) for sent in bells(redis_url, "webhooks")] == [third]


def test_only_what_is_queued_is_split():
    ids = some_ids(2 * MAX_IDS + 1)
    messages: list[Message] = [kind(ids=(id_,)) for id_ in ids for kind in (RunCalls, Ended)]

    assert [(type(message), len(message.ids)) for message in joined(messages)] == [
        (RunCalls, MAX_IDS),
        (RunCalls, MAX_IDS),
        (RunCalls, 1),
        (Ended, len(ids)),
    ]


@pytest.mark.parametrize(("kind", "channel"), [(Ended, "waybill:v1:ended"), (Stop, "waybill:v1:cancel")])
async def test_ended_and_stop_are_published_as_hex_ids(
    redis_url: str, bell: Bell, kind: type[Ended | Stop], channel: str
):
    ids = some_ids(MAX_IDS + 2)
    with redis.Redis.from_url(redis_url) as client, client.pubsub() as subscription:
        subscription.subscribe(channel)
        assert subscription.get_message(timeout=5)["type"] == "subscribe"
        bell.ring(kind(ids=ids))
        heard = await asyncio.to_thread(subscription.get_message, ignore_subscribe_messages=True, timeout=5)

    assert heard is not None
    assert heard["data"].decode() == ",".join(id_.hex for id_ in ids)


async def test_ringing_waits_for_nobody_while_redis_is_frozen():
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        frozen.setblocking(False)
        bell = Bell(f"redis://127.0.0.1:{frozen.getsockname()[1]}/0")
        bell.ring(RunCalls(ids=some_ids(1)))
        with pytest.raises(BlockingIOError):
            frozen.accept()  # ringing itself has not even connected
        await bell.open()
        await happens(lambda: not bell._waiting, "the bell is being sent")
        for _ in range(20_000):
            bell.ring(RunCalls(ids=some_ids(1)))
        assert len(bell._waiting) == 10_000, "memory is bounded too"
        async with asyncio.timeout(10):
            await bell.close()


async def test_what_is_rung_once_redis_is_back_is_sent(redis_url: str):
    real = urlsplit(redis_url)
    relayed: set[asyncio.Task[None]] = set()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection(real.hostname, real.port)
        for source, sink in ((reader, to_writer), (to_reader, writer)):
            relayed.add(asyncio.create_task(copied(source, sink)))

    with socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))
        bell = Bell(real._replace(netloc=f"127.0.0.1:{refusing.getsockname()[1]}").geturl())
        await bell.open()
        bell.ring(RunCalls(ids=some_ids(1)))
        await happens(lambda: not bell._waiting, "the bell was taken")
        await asyncio.sleep(1)
        async with await asyncio.start_server(relay, sock=refusing):
            later = some_ids(1)
            bell.ring(RunCalls(ids=later))
            await happens(lambda: bells(redis_url, "calls"), "the later bell is on the queue")
            await bell.close()
            bell._client.connection_pool.disconnect()
            await asyncio.wait(relayed, timeout=10)

    assert [ids_of(sent) for sent in bells(redis_url, "calls")] == [later], "the first waits for the sweeper"


async def copied(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65_536):
        sink.write(data)
    sink.close()
    await sink.wait_closed()
