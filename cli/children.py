"""Programs kept alive: started, started again when they die, stopped together."""

import select
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from cli.spawn import kill_group, tail

EARLY_DEATH_S = 10.0
EARLY_DEATHS_ALLOWED = 4
START_AGAIN_S = 5.0
"""The longest pause before a program is started again."""
STOPPED_FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT)


class KeepsDying(RuntimeError):
    """A program ended right after its start, time and again."""


class Child:
    """One program and when it may start again.

    launch: starts the program anew; stop_signal: asks it to end in good order.
    """

    def __init__(
        self,
        name: str,
        launch: Callable[[], subprocess.Popen[bytes]],
        log: Path,
        *,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name, self.log = name, log
        self._launch, self._stop_signal = launch, stop_signal
        self.process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._start_again_at: float | None = None
        self._early_deaths = 0

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.running and self.process else None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        self.adopt(self._launch())

    def adopt(self, process: subprocess.Popen[bytes]) -> None:
        """Watch a process that runs already."""
        self.process = process
        self._started_at = time.monotonic()
        self._start_again_at = None

    def watch(self) -> str | None:
        """Notice a death, or start again when it is time; returns what happened, if anything."""
        if self.process is None or self.running:
            return None
        now = time.monotonic()
        if self._start_again_at is None:
            return self._note_death(self.process.returncode, now)
        if now < self._start_again_at:
            return None
        try:
            self.start()
        except OSError as error:  # no process or no file to be had now: what runs is not stopped for it
            self._start_again_at = now + START_AGAIN_S
            return f"{self.name} could not be started ({error}); trying again"
        return f"{self.name} started again (pid {self.pid})"

    def _note_death(self, code: int, now: float) -> str:
        if self.process is not None:
            kill_group(self.process)  # what it had started must not work on beside its successor
        early = now - self._started_at < EARLY_DEATH_S
        self._early_deaths = self._early_deaths + 1 if early else 0
        outside = code in STOPPED_FROM_OUTSIDE
        if self._early_deaths > EARLY_DEATHS_ALLOWED and not outside:
            raise KeepsDying(
                f"{self.name} ended {self._early_deaths} times right after its start (last with {code})."
                f" The end of {self.log}:\n{tail(self.log)}"
            )
        delay = min(0.1 * 2.0 ** max(0, self._early_deaths - 1), 1.0 if outside else START_AGAIN_S)
        self._start_again_at = now + delay
        return f"{self.name} ended ({_told(code)}); starting it again"

    def ask_to_stop(self) -> None:
        if self.process is not None and self.running:
            self.process.send_signal(signal.SIGCONT)  # a frozen process would not hear it
            self.process.send_signal(self._stop_signal)

    def kill(self) -> None:
        if self.process is not None:
            kill_group(self.process)
            self.process.wait()


def _told(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def any_running(children: Iterable[Child]) -> bool:
    return any(child.running for child in children)


class Signals:
    """Ctrl-C, SIGTERM and a closed terminal, counted; and a wait that any of them, or a child's end, cuts short."""

    WATCHED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._read, self._write = socket.socketpair()

    def __enter__(self) -> Self:
        for end in (self._read, self._write):
            end.setblocking(False)
        signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        for number in self.WATCHED:
            signal.signal(number, self._count)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number in (*self.WATCHED, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        self._read.close()
        self._write.close()

    def _count(self, number: int, _frame: FrameType | None) -> None:
        self._counts[number] += 1

    @property
    def asked_to_stop(self) -> bool:
        return bool(self._counts)

    @property
    def insisted(self) -> bool:
        """Asked twice in the same way, as by a second Ctrl-C."""
        return any(count > 1 for count in self._counts.values())

    def wait(self, timeout_s: float) -> None:
        ready, _, _ = select.select([self._read], [], [], timeout_s)
        if ready:
            self._read.recv(4096)
