"""Waiting for calls and jobs: one subscription per process wakes the futures, a batched read each second is the net."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from uuid import UUID

from redis.asyncio import Redis

from shared import calls, log, redis_keys, tasks
from shared.db import Database

logger = log.get(__name__)

NET_S = 1.0
REREADS_PER_S = 100
"""Of all clients together that wait for a change: the process has few connections, and other work."""
MAX_WAIT_S = 600.0


class Waiters:
    """Who in this process waits for what. A lost notification costs a second, never a hang.

    heard: is called whenever calls or jobs ended, whoever waits for them. reread_s: how often a client that waits for
    a change looks for one, while few do.
    """

    def __init__(
        self, db: Database, client: Redis, *, heard: Callable[[], None] = lambda: None, reread_s: float = NET_S
    ) -> None:
        self._db = db
        self._redis = client
        self._heard = heard
        self._least_reread_s = reread_s
        self._rereading = 0
        self._waiting: dict[UUID, set[asyncio.Future[None]]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.is_closed = False

    @property
    def waiting(self) -> int:
        """How many futures are not resolved yet."""
        return sum(map(len, self._waiting.values()))

    async def open(self) -> None:
        """Start listening."""
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._net())]

    async def close(self) -> None:
        """Stop listening and release everybody, so that they answer with what there is."""
        self.is_closed = True
        await tasks.end(self._tasks)
        self.wake(list(self._waiting))

    def expect(self, id_: UUID) -> asyncio.Future[None]:
        """A future that is resolved when this call or job ends. Make it before reading the state; then `wait`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.is_closed:
            future.set_result(None)
        else:
            self._waiting.setdefault(id_, set()).add(future)
        return future

    async def wait(self, id_: UUID, future: asyncio.Future[None], seconds: float) -> bool:
        """Whether it ended within this time. The future is spent afterwards."""
        try:
            await asyncio.wait({future}, timeout=max(0.0, seconds))
        finally:
            self.forget(id_, future)
        return future.done()

    @contextmanager
    def rereading(self) -> Iterator[None]:
        """While a client looks for a change again and again, each `reread_s`."""
        self._rereading += 1
        try:
            yield
        finally:
            self._rereading -= 1

    @property
    def reread_s(self) -> float:
        """How long to pause between two looks: longer the more clients do it."""
        return max(self._least_reread_s, self._rereading / REREADS_PER_S)

    def forget(self, id_: UUID, future: asyncio.Future[None]) -> None:
        """Nobody waits with this future any more."""
        waiting = self._waiting.get(id_)
        if waiting is not None:
            waiting.discard(future)
            if not waiting:
                del self._waiting[id_]

    def wake(self, ids: Iterable[UUID]) -> None:
        """These ended: release who waits for them."""
        for id_ in ids:
            for future in self._waiting.pop(id_, ()):
                if not future.done():
                    future.set_result(None)
        self._heard()

    async def _listen(self) -> None:
        while True:
            try:
                async with self._redis.pubsub() as subscription:
                    await subscription.subscribe(redis_keys.ended_channel())
                    while True:
                        message = await subscription.get_message(ignore_subscribe_messages=True, timeout=30)
                        if message is not None:
                            self.wake(_named(message["data"]))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is listened again
                logger.warning("ended_listener_reconnects", error=type(error).__name__)
                await asyncio.sleep(NET_S)

    async def _net(self) -> None:
        while True:
            await asyncio.sleep(NET_S)
            if not self._waiting:
                continue
            try:
                async with self._db.hot_statement() as tx:
                    self.wake(await calls.ended(tx, list(self._waiting)))
            except Exception as error:  # noqa: BLE001 - the next second tries again
                logger.warning("waiting_net_failed", error=type(error).__name__)


async def woken(event: asyncio.Event, timeout_s: float) -> None:
    """Until the event is set, or this time has passed (0: at once). It is not set afterwards."""
    if not event.is_set() and timeout_s > 0:
        timer = asyncio.get_running_loop().call_later(timeout_s, event.set)
        try:
            await event.wait()
        finally:
            timer.cancel()
    event.clear()


def _named(data: bytes) -> list[UUID]:
    """The ids of a message; none of one that is not ours: all databases of a server share its channels."""
    try:
        return [UUID(hex=id_) for id_ in data.decode().split(",")]
    except ValueError:
        logger.warning("ended_message_odd")
        return []
