"""Dramatiq's Redis broker with a consumer that is woken instead of polling, and that fetches only when there is room.

`BLMOVE q q LEFT LEFT` waits until the queue is not empty and puts its head back: a blocking peek that takes nothing.
Relied on: `timeout=0` means no sleep in the inner consumer; the list key `namespace:queue`; `message_cache` and
`outstanding_message_count`. A changed key name makes this a poll every PATIENCE_S, not a hang.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

import redis
from dramatiq import Consumer, DecodeError, Message, MessageProxy
from dramatiq.brokers.redis import RedisBroker

from shared import log, redis_keys
from shared.queue import connect

logger = log.get(__name__)

PATIENCE_S = 1
NO_ROOM_S = 0.020
REDIS_DOWN_S = 0.2
SOCKET_TIMEOUT_S = 5.0


class WakefulBroker(RedisBroker):
    """Consumes the queues of the actor table. No delay queues, no Retries: what is due later stands in Postgres."""

    def __init__(self, url: str, may_fetch: dict[str, Callable[[], bool]]) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            client=connect(url, timeout_s=SOCKET_TIMEOUT_S),
            namespace=redis_keys.DRAMATIQ_NAMESPACE,
            middleware=[],
            heartbeat_timeout=30_000,
            maintenance_chance=20_000,
            dead_message_ttl=86_400_000,
        )
        self._may_fetch = may_fetch

    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue without the delay queue that Dramatiq would add."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:  # noqa: ARG002 - ours: 0
        """A wakeful consumer of a queue."""
        inner = super().consume(queue_name, prefetch, timeout=0)
        return WakefulConsumer(inner, self.client, redis_keys.queue(queue_name), prefetch, self._may_fetch[queue_name])


class WakefulConsumer(Consumer):
    """Wraps Dramatiq's consumer: the same fetch, ack and requeue, another way to wait."""

    def __init__(self, inner: Any, client: redis.Redis, key: str, prefetch: int, may_fetch: Callable[[], bool]) -> None:
        self._inner = inner
        self._client = client
        self._key = key
        self._prefetch = prefetch
        self._may_fetch = may_fetch
        self._freed = threading.Event()

    def __next__(self) -> MessageProxy | None:
        """The next message, or None when there was none to be had for a while."""
        self._freed.clear()
        if not self._inner.message_cache and not self._may_fetch():
            self._freed.wait(NO_ROOM_S)
            return None
        message: MessageProxy | None = next(self._inner)
        if message is None:
            self._wait()
        return message

    def ack(self, message: MessageProxy) -> None:
        """Take the message off the queue for good."""
        self._inner.ack(message)
        self._free()

    def nack(self, message: MessageProxy) -> None:
        """Move the message to the dead letters."""
        self._inner.nack(message)
        self._free()

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Put fetched messages back."""
        self._inner.requeue(messages)

    def close(self) -> None:
        """Put back what was fetched and not handed out yet."""
        fetched = [data for data in self._inner.message_cache if data is not None]
        self._inner.message_cache = []
        with suppress(redis.RedisError):  # Dramatiq's maintenance puts it back later
            self._inner.requeue(list(_readable(fetched)))
        self._inner.close()

    def _wait(self) -> None:
        # While prefetch is full BLMOVE would return at once and spin.
        if self._inner.outstanding_message_count >= self._prefetch:
            self._freed.wait(PATIENCE_S)
            return
        try:
            self._client.blmove(self._key, self._key, PATIENCE_S, "LEFT", "LEFT")
        except redis.RedisError:
            time.sleep(REDIS_DOWN_S)

    def _free(self) -> None:
        if self._inner.outstanding_message_count <= self._prefetch // 2:
            self._freed.set()


def _readable(fetched: Iterable[bytes]) -> Iterator[MessageProxy]:
    """What is no message of ours is left where it is: nobody takes it before this process has ended."""
    for data in fetched:
        try:
            yield MessageProxy(Message.decode(data))
        except DecodeError:
            logger.warning("undecodable_message_left")
