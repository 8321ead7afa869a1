"""The watchdog: ends a process whose threads or event loop have died; its leases heal it."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from shared import log

logger = log.get(__name__)

EXIT_CODE = 70
CHECK_S = 1.0


class Watchdog:
    """Ends the process when a watched thread is dead or the loop did not answer for `patience_s`.

    Time in which the whole process was stopped does not count: a check that comes late is not held against the loop.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        patience_s: float,
        threads: Callable[[], Iterable[threading.Thread]],
        heartbeat: Path | None = None,
    ) -> None:
        self._loop = loop
        self._patience_s = patience_s
        self._threads = threads
        self._heartbeat = heartbeat
        self._answered = True
        self._silent_s = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Start watching."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; call before threads are stopped on purpose."""
        self._stopping.set()

    def _run(self) -> None:
        checked = time.monotonic()
        while not self._stopping.wait(CHECK_S):
            late_s, checked = time.monotonic() - checked - CHECK_S, time.monotonic()
            self._listen(CHECK_S if late_s < CHECK_S else 0.0)
            dead = [thread.name for thread in self._threads() if not thread.is_alive()]
            if dead or self._silent_s > self._patience_s:
                logger.critical("watchdog_exit", dead_threads=dead, loop_silent_s=self._silent_s)
                os._exit(EXIT_CODE)
            if self._heartbeat is not None and not self._silent_s:
                # A disk that is full ends no watch: that the file grows old tells of it.
                with suppress(OSError):
                    self._heartbeat.touch()

    def _listen(self, passed_s: float) -> None:
        self._silent_s = 0.0 if self._answered else self._silent_s + passed_s
        if self._answered:
            self._answered = False
            self._loop.call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        self._answered = True
