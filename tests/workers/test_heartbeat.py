"""The file that says from outside that a process without a port is well."""

import asyncio
import threading
from pathlib import Path

from tests.waiting import until
from workers.watchdog import Watchdog


async def test_a_well_unit_touches_its_heartbeat_and_goes_on_touching_it(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    watchdog = Watchdog(asyncio.get_running_loop(), 10, lambda: [threading.current_thread()], alive)
    watchdog.start()

    async def beaten() -> bool:
        return alive.exists()

    await until(beaten, "the first beat")
    alive.unlink()
    await until(beaten, "the next beat")
    watchdog.stop()


async def test_a_heartbeat_that_cannot_be_written_ends_no_watch(tmp_path: Path) -> None:
    alive, checks = tmp_path / "not there yet" / "alive", 0

    def threads() -> list[threading.Thread]:
        nonlocal checks
        checks += 1
        return [threading.current_thread()]

    async def checked_twice() -> bool:
        return checks >= 2

    watchdog = Watchdog(asyncio.get_running_loop(), 60, threads, alive)
    watchdog.start()
    await until(checked_twice, "it watches after a beat that failed")
    watchdog.stop()
