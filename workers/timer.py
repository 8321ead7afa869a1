"""The timer: one leader sweeps and dispatches, the others wait for its Postgres advisory lock.

python -m workers.timer
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import LiteralString

import psycopg

from shared import log, planner_statistics, tasks
from shared.db import DEAD_PATH, is_down, ran_out_of_time, session_options
from shared.read_settings import read_settings
from shared.runtime import Runtime, open_runtime
from shared.settings import Settings
from workers import failing_endpoints, retention
from workers.background import EVERY_S as BACKGROUND_EVERY_S
from workers.background import Background
from workers.dispatcher import Dispatcher
from workers.rounds import Rounds
from workers.silent_path import hang_up
from workers.sweeper import Sweep

logger = log.get(__name__)

LEADER_LOCK = 0x5741_5942_544D
RETRY_S = 0.5
LEADER_SILENT = "5s"
"""After this long without a word from the leader Postgres frees its lock: a frozen leader must not stop all sweeps."""
ANSWER_S = 4.0
"""A leader who has no answer for so long leads no longer: at the latest when another one may begin."""

DUE_EVERY_S = 1.0
"""How late the next try of a delivery, or one whose bell was lost, may be."""
STATISTICS_EVERY_S = 5.0
HEARTBEAT_EVERY_S = 5.0

CONNECTIONS = 16
"""All steps may be at work at once, some on two connections: none waits for another's."""


@dataclass(frozen=True)
class Step:
    """Work that the leader repeats, `every_s` seconds after its last end; it is cut after half a minute.

    name: in the log. every_s: a number, or what tells it each time.
    """

    name: str
    every_s: float | Callable[[], float]
    work: Callable[[], Awaitable[object]]


@dataclass(frozen=True, kw_only=True)
class Leadership:
    """The leader's lock, on a connection of its own. answer_s: a connection that is silent for so long is ended."""

    connection: psycopg.AsyncConnection[tuple[object, ...]]
    answer_s: float = ANSWER_S

    async def taken(self) -> bool:
        """Whether the lock is ours now."""
        return await self._answer("select pg_try_advisory_lock(%s)", LEADER_LOCK) == (True,)

    async def until_lost(self) -> None:
        """Raises psycopg.Error once the connection, and with it the lock, is lost."""
        while True:
            await self._answer("select 1")
            await asyncio.sleep(RETRY_S)

    async def _answer(self, sql: LiteralString, *values: object) -> tuple[object, ...] | None:
        limit = asyncio.get_running_loop().call_later(self.answer_s, hang_up, self.connection)
        try:
            return await (await self.connection.execute(sql, values)).fetchone()
        finally:
            limit.cancel()


async def lead(rt: Runtime, stopping: asyncio.Event) -> None:
    """Try to become leader until told to stop; a lost connection is lost leadership."""
    while not stopping.is_set():
        try:
            async with await psycopg.AsyncConnection.connect(
                rt.settings.database_url,
                autocommit=True,
                connect_timeout=2,
                application_name="waybill-timer-leader",
                options=session_options({"idle_session_timeout": LEADER_SILENT}),
                **DEAD_PATH,
            ) as connection:
                await _lead_on(Leadership(connection=connection), rt, stopping)
        except (psycopg.Error, OSError) as error:
            logger.warning("leader_connection_lost", error=type(error).__name__)
        await _pause(stopping, RETRY_S)


async def _lead_on(leadership: Leadership, rt: Runtime, stopping: asyncio.Event) -> None:
    while not await leadership.taken():
        await _beat(rt)
        await _pause(stopping, RETRY_S)
        if stopping.is_set():
            return
    logger.info("leading")
    lost = asyncio.create_task(leadership.until_lost())
    loops = [asyncio.create_task(every(step)) for step in steps(rt)]
    stopped = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({lost, stopped, *loops}, return_when=asyncio.FIRST_COMPLETED)
        if lost.done():
            lost.result()
    finally:
        for task in (lost, stopped, *loops):
            task.cancel()
        await asyncio.gather(lost, stopped, *loops, return_exceptions=True)


def steps(rt: Runtime) -> list[Step]:
    """The table of all that the leader does. Bells and the heartbeat wait for no repair, however much there is."""
    dispatcher = Dispatcher(rt)
    sweep = Sweep(rt=rt, after_outage=True)
    return [
        Step("heartbeat", HEARTBEAT_EVERY_S, lambda: _beat(rt)),
        Step("sweep", rt.settings.sweep_s, Rounds("sweep", sweep.repairs()).run),
        *(Step(name, rt.settings.sweep_s, work) for name, work in sweep.bells().items()),
        Step("dispatch", lambda: dispatcher.pause_s, dispatcher.tick),
        Step("due_deliveries", DUE_EVERY_S, sweep.due_deliveries),
        Step("retention", retention.EVERY_S, retention.rounds(rt).run),
        Step("background", BACKGROUND_EVERY_S, Background(rt).run),
        Step("statistics", STATISTICS_EVERY_S, lambda: planner_statistics.renew_changed(rt.db)),
        Step("endpoint_notices", failing_endpoints.NOTICES_EVERY_S, lambda: failing_endpoints.warn_failing(rt)),
        Step(
            "disabled_endpoints", failing_endpoints.DISCARD_EVERY_S, lambda: failing_endpoints.discard_of_disabled(rt)
        ),
        Step("delivery_queue_limits", failing_endpoints.LIMITS_EVERY_S, lambda: failing_endpoints.mark_full_queues(rt)),
    ]


async def every(step: Step) -> None:
    """Repeat one step until cancelled; what it raises is logged, and does not end it."""
    while True:
        try:
            async with asyncio.timeout(30):
                await step.work()
        except Exception as error:  # noqa: BLE001 - it is told, and the next time may do better
            _tell(step, error)
        tasks.raise_lost_cancel()
        await asyncio.sleep(step.every_s() if callable(step.every_s) else step.every_s)


def _tell(step: Step, error: Exception) -> None:
    if ran_out_of_time(error):
        logger.warning("timer_step_too_slow", step=step.name, error=type(error).__name__)
    elif is_down(error):
        logger.warning("database_down", step=step.name, error=type(error).__name__)
    else:
        logger.error("timer_step_failed", step=step.name, exc_info=error)


async def _beat(rt: Runtime) -> None:
    if rt.settings.heartbeat_file is not None:
        rt.settings.heartbeat_file.touch()


async def _pause(stopping: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stopping.wait()
    except TimeoutError:
        return


async def run(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    for signal_ in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_, stopping.set)
    async with open_runtime(settings, name="waybill-timer", pool=CONNECTIONS) as rt:
        await lead(rt, stopping)


def main() -> None:
    """The process."""
    settings = read_settings()
    log.configure(settings.log_level, "timer")
    asyncio.run(run(settings))


if __name__ == "__main__":
    main()
