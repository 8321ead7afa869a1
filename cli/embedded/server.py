"""What both launchers share: start until it answers, stop, kill."""

import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from cli.spawn import free_port, kill_group, tail

POLL_S = 0.02
RETRY_S = 0.2
RETRIES = 25

Pause = Callable[[float], None]


class ServerFailed(RuntimeError):
    """The server ended before it answered, or never answered."""


class Server(ABC):
    """One server process on 127.0.0.1; start it from the main thread, since it dies with the thread that started it."""

    name: str
    stop_signal: signal.Signals

    def __init__(self, log: Path, port: int | None) -> None:
        self.log = log
        self._port_is_ours = port is None
        self.port = free_port(port)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The pid of the server itself, not of a program that launched it."""
        if self.process is None:
            raise ServerFailed(f"{self.name} was not started")
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @abstractmethod
    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the server on its port and return at once."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether the server takes work now."""

    def start(self, timeout_s: float = 60, pause: Pause = time.sleep) -> None:
        """Start and wait until it answers; a first try that ends is repeated while an older server lets go.

        pause: called with seconds between looks; what it raises ends the wait and the server.
        """
        try:
            self._start(time.monotonic() + timeout_s, pause)
        except BaseException:
            self.kill()
            raise

    def _start(self, deadline: float, pause: Pause) -> None:
        failures = 0
        self.spawn()
        while not self._ready(deadline, pause):
            failures += 1
            if failures > RETRIES or time.monotonic() > deadline:
                raise ServerFailed(f"{self.name} does not start; the end of {self.log}:\n{tail(self.log)}")
            pause(RETRY_S)
            if self._port_is_ours:
                self.port = free_port(self.port)
            self.spawn()

    def _ready(self, deadline: float, pause: Pause) -> bool:
        """True once it answers; False when it ended or time is up."""
        while self.running and time.monotonic() < deadline:
            if self.answers():
                return True
            pause(POLL_S)
        self.kill()
        return False

    def stop(self, timeout_s: float = 10) -> None:
        """Stop in good order; kill when that takes too long."""
        if self.process is None:
            return
        if self.running:
            self.process.send_signal(signal.SIGCONT)  # a frozen server cannot hear the next one
            self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL, as a crash would end it; data stays and `start` works again."""
        if self.process is not None:
            kill_group(self.process)
            self.process.wait()
