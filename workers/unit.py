"""One worker unit: an event loop on the main thread, Dramatiq's threads beside it, and an orderly end."""

import asyncio
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Thread
from uuid import UUID

import redis
from dramatiq import Worker

from shared import log, redis_keys, tasks
from shared.messages import Deliver, RunCalls
from shared.runtime import Runtime, open_runtime
from shared.settings import Settings
from workers import dead_senders
from workers.app import create_broker
from workers.calls import Calls
from workers.delivery_loop import DeliveryLoop
from workers.lease import Renewer
from workers.pool import Fence, LoopLag, Pool
from workers.provider import Provider
from workers.watchdog import Watchdog
from workers.webhook_http import WebhookSender
from workers.webhooks import Deliverer

logger = log.get(__name__)

PROVIDER_THREADS = 64
"""litellm runs the synchronous start of every call in the loop's default executor."""

STOP_THREADS_MS = 5000
CUT_DELIVERIES_S = 5


def name_of_this() -> str:
    """How this unit is named on leases and attempts."""
    return f"{dead_senders.place(socket.gethostname())}:{os.getpid()}"


async def serve(settings: Settings, provider: Provider) -> None:
    """Work until SIGTERM or SIGINT, then drain and return."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(PROVIDER_THREADS))
    stopping = asyncio.Event()
    for signal_ in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_, stopping.set)
    sender = WebhookSender(settings.webhook_networks, http=settings.webhook_http)
    async with open_runtime(settings, name="waybill-worker") as rt:
        await _work(rt, provider, sender, stopping)
    await sender.close()


async def _work(rt: Runtime, provider: Provider, sender: WebhookSender, stopping: asyncio.Event) -> None:
    loop, settings, name, lag = asyncio.get_running_loop(), rt.settings, name_of_this(), LoopLag()
    calls = Calls(rt, provider, name)
    pool = Pool(limit=settings.calls_in_flight, lag=lag, claim=calls.claim, run=calls.run)
    deliveries = DeliveryLoop(rt, Deliverer.of(rt, sender), name)
    broker = create_broker(settings.redis_url, loop, {RunCalls.actor: pool, Deliver.actor: deliveries})
    worker = Worker(broker, worker_timeout=1000, worker_threads=settings.worker_threads)
    # A full calls pool may block this many threads; the others stay free for deliveries.
    worker.queue_prefetch = max(1, settings.worker_threads // 2)
    lost = partial(_stop_lost, loop, calls)
    renewer = Renewer(settings.database_url, settings.lease_s, lambda: tuple(calls.held), lost)
    watchdog = Watchdog(loop, settings.watchdog_s, lambda: _threads(worker, renewer), settings.heartbeat_file)
    listener = asyncio.create_task(_listen(rt, calls))
    await dead_senders.free(rt, name)
    worker.start()
    renewer.start()
    watchdog.start()
    logger.info("working", worker=name)
    await stopping.wait()
    until = loop.time() + settings.drain_s
    logger.info("draining", calls=len(pool.tasks), deliveries=len(deliveries.tasks))
    pool.close_door()
    deliveries.close_door()
    watchdog.stop()
    # Dramatiq's threads end first, so that the bells in their memory are back on the queue before the drain.
    await asyncio.to_thread(worker.stop, STOP_THREADS_MS)
    await asyncio.gather(
        pool.drain(max(0.0, until - loop.time()), lambda fence: calls.stop(fence, "drained")),
        deliveries.drain(min(CUT_DELIVERIES_S, settings.drain_s), _leave),
    )
    await tasks.end([listener])
    renewer.stop()
    logger.info("drained")


async def _listen(rt: Runtime, calls: Calls) -> None:
    """Stop calls that the api cancelled; the lease renewal is the net when Redis is away."""
    while True:
        try:
            async with rt.redis.pubsub() as subscription:
                await subscription.subscribe(redis_keys.cancel_channel())
                while True:
                    message = await subscription.get_message(ignore_subscribe_messages=True, timeout=30)
                    if message is not None:
                        calls.cancel({UUID(hex=id_) for id_ in message["data"].decode().split(",")})
        except (redis.RedisError, OSError) as error:
            logger.warning("stop_listener_reconnects", error=type(error).__name__)
            await asyncio.sleep(1)


def _threads(worker: Worker, renewer: Renewer) -> list[Thread]:
    return [*worker.workers, *worker.consumers.values(), renewer.thread]


def _stop_lost(loop: asyncio.AbstractEventLoop, calls: Calls, fence: Fence) -> None:
    loop.call_soon_threadsafe(calls.stop, fence, "lost")


def _leave(_: Fence) -> None:
    """A delivery that is cut is sent again by another unit once its lease has expired."""
