"""One worker unit: an event loop on the main thread, Dramatiq's threads beside it, and an orderly end."""

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Thread

from dramatiq import Worker

from shared import log, tasks
from shared.calls import Claimed
from shared.ids import Fence
from shared.messages import Deliver, RunCalls, RunLines, TendBatches
from shared.runtime import Runtime, open_runtime
from shared.settings import Settings
from workers import dead_senders
from workers.app import Taker, create_broker
from workers.batches import Batches
from workers.calls import Calls
from workers.delivery_loop import DeliveryLoop
from workers.lease import Renewer
from workers.pool import LoopLag, Pool
from workers.provider import Provider
from workers.stop_listener import listen
from workers.watchdog import Watchdog
from workers.webhook_http import WebhookSender
from workers.webhooks import Deliverer

logger = log.get(__name__)

PROVIDER_THREADS = 64
"""litellm runs the synchronous start of every call in the loop's default executor."""
BATCH_THREADS = 16
"""The same in a unit of batches: they would only stand in each other's way, and in that of live calls."""
LINE_THREADS = 2
"""Of a unit that serves batches alone: for the one message of each of its two queues that it has in hand."""
LINE_PACE_S = 0.002
"""A line that was claimed is to start soon: a unit takes 500 a second at most, and none while it is late."""

STOP_THREADS_MS = 5000
CUT_OTHERS_S = 5


def name_of_this() -> str:
    """How this unit is named on leases and attempts."""
    return f"{dead_senders.place(socket.gethostname())}:{os.getpid()}"


async def serve(settings: Settings, provider: Provider, *, calls: bool = True, batches: bool = True) -> None:
    """Work until SIGTERM or SIGINT, then drain and return. calls: with deliveries. batches: with their lines."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(PROVIDER_THREADS if calls else BATCH_THREADS))
    stopping = asyncio.Event()
    for signal_ in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_, stopping.set)
    sender = WebhookSender(settings.webhook_networks, http=settings.webhook_http)
    async with open_runtime(settings, name="waybill-worker") as rt:
        work = _Work(rt, provider, name_of_this())
        if calls:
            work.serve_calls(sender)
        if batches:
            work.serve_batches(alone=not calls)
        await work.until(stopping)
    await sender.close()


class _Work:
    """What one unit serves, and how it ends."""

    def __init__(self, rt: Runtime, provider: Provider, name: str) -> None:
        self._rt = rt
        self._name = name
        self._lag = LoopLag()
        self._calls = Calls(rt, provider, name)
        self._takers: dict[str, Taker] = {}
        self._pools: list[Pool[Claimed]] = []
        self._deliveries: DeliveryLoop | None = None
        self._batches: Batches | None = None
        self._threads = 0
        self._prefetch = 1

    def serve_calls(self, sender: WebhookSender) -> None:
        """Calls and deliveries."""
        self._takers[RunCalls.actor] = self._pool(self._rt.settings.calls_in_flight, pace_s=0.0)
        self._deliveries = DeliveryLoop(self._rt, Deliverer.of(self._rt, sender), self._name)
        self._takers[Deliver.actor] = self._deliveries
        self._threads += self._rt.settings.worker_threads
        # A full taker may block this many threads; there are as many for each queue.
        self._prefetch = max(1, self._rt.settings.worker_threads // 2)

    def serve_batches(self, *, alone: bool) -> None:
        """Batches and their lines; beside calls these have half the room, so that calls keep theirs."""
        most = self._rt.settings.calls_in_flight
        self._takers[RunLines.actor] = self._pool(most if alone else max(1, most // 2), pace_s=LINE_PACE_S)
        self._batches = Batches(self._rt, self._name)
        self._takers[TendBatches.actor] = self._batches
        self._threads += LINE_THREADS if alone else self._rt.settings.worker_threads

    def _pool(self, limit: int, *, pace_s: float) -> Pool[Claimed]:
        pool = Pool(limit=limit, lag=self._lag, claim=self._calls.claim, run=self._calls.run, pace_s=pace_s)
        self._pools.append(pool)
        return pool

    async def until(self, stopping: asyncio.Event) -> None:
        """Work until told to stop, then drain."""
        loop, settings = asyncio.get_running_loop(), self._rt.settings
        broker = create_broker(settings.redis_url, loop, self._takers)
        worker = Worker(broker, worker_timeout=1000, worker_threads=self._threads)
        worker.queue_prefetch = self._prefetch
        lost = partial(_stop_lost, loop, self._calls)
        renewer = Renewer(settings.database_url, settings.lease_s, lambda: tuple(self._calls.held), lost)
        watchdog = Watchdog(loop, settings.watchdog_s, lambda: _threads(worker, renewer), settings.heartbeat_file)
        listener = asyncio.create_task(listen(self._rt.redis, self._calls.cancel, renewer.wake))
        if self._deliveries is not None:
            await dead_senders.free(self._rt, self._name)
        worker.start()
        renewer.start()
        watchdog.start()
        logger.info("working", worker=self._name, serves=sorted(self._takers))
        await stopping.wait()
        until = loop.time() + settings.drain_s
        logger.info("draining", calls=sum(len(pool.tasks) for pool in self._pools))
        self._close_doors()
        watchdog.stop()
        # Dramatiq's threads end first, so that the bells in their memory are back on the queue before the drain.
        await asyncio.to_thread(worker.stop, STOP_THREADS_MS)
        await self._drain(max(0.0, until - loop.time()))
        await tasks.end([listener])
        renewer.stop()
        logger.info("drained")

    def _close_doors(self) -> None:
        for pool in self._pools:
            pool.close_door()
        if self._deliveries is not None:
            self._deliveries.close_door()
        if self._batches is not None:
            self._batches.close_door()

    async def _drain(self, grace_s: float) -> None:
        """Calls have the whole grace; deliveries and batches are repeated by another unit, and have less."""
        short_s = min(CUT_OTHERS_S, self._rt.settings.drain_s)
        draining: list[Awaitable[int]] = [
            pool.drain(grace_s, lambda fence: self._calls.stop(fence, "drained")) for pool in self._pools
        ]
        if self._deliveries is not None:
            draining.append(self._deliveries.drain(short_s, _leave))
        if self._batches is not None:
            draining.append(self._batches.drain(short_s))
        await asyncio.gather(*draining)


def _threads(worker: Worker, renewer: Renewer) -> list[Thread]:
    return [*worker.workers, *worker.consumers.values(), renewer.thread]


def _stop_lost(loop: asyncio.AbstractEventLoop, calls: Calls, fence: Fence) -> None:
    loop.call_soon_threadsafe(calls.stop, fence, "lost")


def _leave(_: Fence) -> None:
    """A delivery that is cut is sent again by another unit once its lease has expired."""
