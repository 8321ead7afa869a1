"""Ringing: a message with ids on Redis, after the commit, never waited for; the sweeper rings again what was lost."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from queue import SimpleQueue
from uuid import UUID

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker

from shared import log, redis_keys
from shared.messages import MAX_IDS, Ended, Message, Queued, Stop

Ring = Callable[[Message], None]
"""Hand a message over for sending, with any number of ids; returns at once and never raises."""

logger = log.get(__name__)

REDIS_TIMEOUT_S = 1.0
PAUSE_AFTER_FAILURE_S = 1.0
CLOSE_S = 1.0


class PatientRedis(redis.Redis):
    """A client whose timeouts look like lost connections, which is what Dramatiq's broker understands."""

    def execute_command(self, *args: object, **options: object) -> object:
        """Run a command; raises redis.ConnectionError for a timeout too."""
        try:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except redis.TimeoutError as error:
            raise redis.ConnectionError(str(error)) from error


def connect(url: str, *, timeout_s: float = REDIS_TIMEOUT_S) -> PatientRedis:
    """A Redis client without silent retries: a repeated enqueue would be two messages."""
    pool = redis.ConnectionPool.from_url(
        url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, health_check_interval=15
    )
    return PatientRedis(connection_pool=pool)


def encode(message: Queued) -> dramatiq.Message[None]:
    """The Dramatiq message of ours: actor name, queue and ids, nothing else."""
    ids = [id_.hex for id_ in message.ids]
    return dramatiq.Message(queue_name=message.queue, actor_name=message.actor, args=(ids,), kwargs={}, options={})


class Bell:
    """Sends messages from a thread of its own. Redis down or frozen delays nobody: the row waits for the sweeper."""

    def __init__(self, url: str) -> None:
        self._client = connect(url)
        self._broker = RedisBroker(client=self._client, middleware=[], namespace=redis_keys.DRAMATIQ_NAMESPACE)
        self._waiting: deque[Message] = deque(maxlen=10_000)
        self._wake: SimpleQueue[bool] = SimpleQueue()
        self._is_awake = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bell", daemon=True)

    async def open(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def close(self) -> None:
        """Send what waits, for at most a second, then stop."""
        if not self._thread.is_alive():
            return
        self._closing.set()
        self._wake.put(False)
        await asyncio.to_thread(self._thread.join, CLOSE_S)
        await asyncio.to_thread(self._broker.close)

    def ring(self, message: Message) -> None:
        """Queue a message for sending, in pieces of MAX_IDS; without ids it is none. Beyond 10,000 the oldest go."""
        if message.ids:
            self._waiting.append(message)
            if not self._is_awake:
                self._is_awake = True
                self._wake.put(True)

    def _run(self) -> None:
        while self._wake.get():
            # From here on a new message wakes again: none is left waiting.
            self._is_awake = False
            messages = joined(self._taken())
            try:
                self._send(messages)
            except Exception as error:  # noqa: BLE001 - the rows wait for the sweeper
                logger.warning("ring_failed", error=type(error).__name__, messages=len(messages))
                self._closing.wait(PAUSE_AFTER_FAILURE_S)

    def _taken(self) -> Iterator[Message]:
        with suppress(IndexError):
            while True:
                yield self._waiting.popleft()

    def _send(self, messages: list[Message]) -> None:
        for message in messages:
            if isinstance(message, Ended | Stop):
                self._client.publish(message.channel, ",".join(id_.hex for id_ in message.ids))
            else:
                self._broker.enqueue(encode(message))


def joined(messages: Iterable[Message]) -> list[Message]:
    """The same ids, each once, in as few messages as MAX_IDS allows; what is published has no such limit."""
    ids: dict[type[Message], list[UUID]] = {}
    for message in messages:
        ids.setdefault(type(message), []).extend(message.ids)
    return [message for kind, all_ in ids.items() for message in _split(kind, list(dict.fromkeys(all_)))]


def _split(kind: type[Message], ids: list[UUID]) -> list[Message]:
    most = len(ids) if kind in (Ended, Stop) else MAX_IDS
    return [kind(ids=tuple(ids[start : start + most])) for start in range(0, len(ids), most)]
