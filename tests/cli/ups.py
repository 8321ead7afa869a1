"""`waybill up` as a process that a test starts, looks into and stops."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from cli.config import PROJECT
from cli.spawn import free_port
from tests.cli.processes import of_home, until


class Up:
    """One `waybill up` in a home of its own; over the programs of small_stack unless `real`."""

    def __init__(self, home: Path, *, real: bool = False) -> None:
        self.home, self.port = home, free_port()
        self.module = "cli" if real else "tests.cli.small_stack"
        self.output = home.with_suffix(".out")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *programs: str, **env: str) -> "Up":
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("WAYBILL_", "MAKE"))}
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module, "up", *programs],
                cwd=PROJECT,
                env={**clean, "WAYBILL_HOME": str(self.home), "WAYBILL_PORT": str(self.port), **env},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        return self

    def ready(self) -> "Up":
        until(lambda: "Waybill is ready" in self.text or not self.running, "ready", timeout_s=60)
        assert self.running, self.text
        return self

    @property
    def text(self) -> str:
        return self.output.read_text()

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def run(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.home / "run.json").read_text())
        return content

    def pid(self, name: str) -> int:
        value = self.run["pids"][name]
        return int(value[0] if isinstance(value, list) else value)

    def ended(self) -> int:
        assert self.process is not None
        return self.process.wait(timeout=40)

    def kill(self) -> None:
        """End it and whatever of it is left."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        for pid in of_home(self.home):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)
