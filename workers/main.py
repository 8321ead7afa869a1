"""The worker's parent: imports litellm once, forks the units, and forks again what dies.

    python -m workers.main

It stays free of threads: only then is a fork safe, and a killed unit is back in a moment instead of seconds.
"""

import asyncio
import ctypes
import gc
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

import orjson

from shared import log
from shared.read_settings import read_settings
from shared.sealer import Sealer
from workers.environment import prepare_environment, take_provider_keys

logger = log.get(__name__)

SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
Kind = Literal["calls", "batch"]
"""What a unit serves: calls and deliveries, or batches."""
NICE = 10
"""Batches take what calls leave of the machine."""
AUTOGROUP = Path("/proc/self/autogroup")
LOOK_S = 5
"""How often the parent looks at its units when no signal tells it to."""
RESTART_PAUSE_S = 0.5
KILL_GRACE_S = 15
PR_SET_PDEATHSIG = 1


class Units:
    """The forked units of this parent, so many of each kind. run: what a unit of a kind does.

    What the machine refuses (a process, a place for the file) is asked for again: the units that run work on.
    """

    def __init__(
        self,
        counts: Mapping[Kind, int],
        run: Callable[[Kind], None],
        pids_file: Path | None,
        fork: Callable[[], int] = os.fork,
    ) -> None:
        self._counts = counts
        self._run = run
        self._pids_file = pids_file
        self._fork = fork
        self._started: dict[int, tuple[Kind, float]] = {}
        self._written: list[int] = []

    def serve(self) -> None:
        """Keep the units running until SIGTERM or SIGINT, then let them drain."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        stopping = False
        while not stopping:
            is_full = self._fill()
            self._write_pids()
            received = signal.sigtimedwait(SIGNALS, LOOK_S if is_full else RESTART_PAUSE_S)
            stopping = received is not None and received.si_signo in (signal.SIGTERM, signal.SIGINT)
            self._reap()
        for pid in self._started:
            os.kill(pid, signal.SIGTERM)

    def wait(self, grace_s: float) -> None:
        """Wait for the units to drain; kill what is left after grace_s."""
        until = time.monotonic() + grace_s
        while self._started and time.monotonic() < until:
            signal.sigtimedwait({signal.SIGCHLD}, 0.5)
            self._reap()
        for pid in self._started:
            os.kill(pid, signal.SIGKILL)

    def _fill(self) -> bool:
        """Start what is missing. Returns whether all are there now."""
        running = Counter(kind for kind, _ in self._started.values())
        for kind, count in self._counts.items():
            for _ in range(count - running[kind]):
                try:
                    self._started[self._start(kind)] = kind, time.monotonic()
                except OSError as error:
                    logger.error("unit_not_started", kind=kind, error=str(error))  # noqa: TRY400 - the machine's trouble
                    return False
        return True

    def _start(self, kind: Kind) -> int:
        parent = os.getpid()
        pid = self._fork()
        if pid:
            return pid
        try:
            die_with_parent(parent)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            self._run(kind)
        except BaseException:
            logger.exception("unit_failed")
            os._exit(1)
        os._exit(0)

    def _reap(self) -> None:
        while self._started:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            kind, started = self._started.pop(pid, ("calls", 0.0))
            lived_s, code = time.monotonic() - started, os.waitstatus_to_exitcode(status)
            logger.warning("unit_ended", pid=pid, kind=kind, status=code, lived_s=round(lived_s, 1))
            self._write_pids()
            if lived_s < RESTART_PAUSE_S:
                time.sleep(RESTART_PAUSE_S)

    def _write_pids(self) -> None:
        pids = list(self._started)
        if self._pids_file is None or pids == self._written:
            return
        fresh = self._pids_file.with_suffix(".new")
        try:
            fresh.write_bytes(orjson.dumps(pids))
            fresh.replace(self._pids_file)
        except OSError as error:
            logger.warning("unit_pids_not_written", error=str(error))
        else:
            self._written = pids


def die_with_parent(parent: int) -> None:
    """On Linux a unit is killed when its parent dies, also when the parent died just now."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def step_back() -> None:
    """Leave the machine to everybody else. Where Linux shares it out by session, that takes a session of our own."""
    os.nice(NICE)
    if sys.platform == "linux":
        # What wakes up here waits for the turn of what runs.
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    if AUTOGROUP.exists():
        os.setsid()
        with suppress(OSError):
            AUTOGROUP.write_text(str(NICE))


def main() -> None:
    """The process."""
    settings = read_settings()
    log.configure(settings.log_level, "worker")
    keys: Mapping[str, str] = take_provider_keys(os.environ)
    prepare_environment(settings.calls_in_flight)
    # Only now: litellm reads the environment when it is imported.
    from workers.litellm_provider import LitellmProvider, warm_up

    provider = LitellmProvider(settings, Sealer(settings.encryption_key.get_secret_value()), keys)
    from workers.unit import serve

    def run(kind: Kind) -> None:
        if kind == "batch":
            step_back()
        serves_batches = kind == "batch" or not settings.batch_workers
        asyncio.run(serve(settings, provider, calls=kind == "calls", batches=serves_batches))

    warm_up()
    gc.collect()
    gc.freeze()
    units = Units({"calls": settings.workers, "batch": settings.batch_workers}, run, settings.worker_pids_file)
    units.serve()
    units.wait(settings.drain_s + KILL_GRACE_S)


if __name__ == "__main__":
    main()
