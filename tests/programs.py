"""The processes of a stack: start, signal, kill, and whether they run."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cli.embedded.server import Server
from cli.spawn import kill_group, spawn
from tests.waiting import until

PROJECT = Path(__file__).resolve().parent.parent


@dataclass
class Program:
    """One of our processes, its output in a file."""

    name: str
    words: tuple[str, ...]
    env: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} was never started"
        return self.process.pid

    def start(self) -> None:
        """Start it and return at once. From the main thread only: it dies with the thread that started it."""
        if self.process is not None:
            self.process.wait(timeout=10)
        self.process = spawn([sys.executable, "-m", *self.words], env=self.env, log=self.log, cwd=PROJECT)

    def terminate(self) -> None:
        """SIGTERM; `wait` for the end."""
        self.signal(signal.SIGTERM)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL it and all that it started."""
        if self.process is not None:
            kill_group(self.process)
            self.process.wait()


def alive(pid: int) -> bool:
    """Whether the process runs; one that ended and waits to be noticed does not."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


async def started(server: Server) -> None:
    """Start a server whose data is there, without blocking the test's other tasks for long."""

    async def answering() -> bool:
        if not server.running:
            server.spawn()
        return server.answers()

    await until(answering, f"{server.name} answers")


async def ended(server: Server) -> bool:
    """Whether it runs no more."""
    return not server.running
