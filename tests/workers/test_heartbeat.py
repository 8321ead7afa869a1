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
