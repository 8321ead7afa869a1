"""Keeps the children of `waybill up` alive, tells run.json who they are, and stops them all."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cli.children import Child, Signals, any_running
from cli.home import Home, write_private

TICK_S = 0.25
DRAIN_S = 8.7  # workers finish within 8 s; with the servers' own stop all of it stays under 10 s
SERVERS_S = 0.9


class Stopped(Exception):
    """Somebody asked `waybill up` to stop."""


class Supervisor:
    """The children by name, in the order they were started."""

    def __init__(self, home: Home, signals: Signals, say: Callable[[str], None]) -> None:
        self.children: dict[str, Child] = {}
        self.facts: dict[str, Any] = {}
        self._home, self._signals, self._say = home, signals, say
        self._written: dict[str, Any] = {}
        self._is_behind = False

    def add(self, child: Child) -> Child:
        self.children[child.name] = child
        return child

    def tick(self, timeout_s: float = TICK_S) -> None:
        """Wait a moment, start again what died and write down the pids.

        Raises Stopped when asked to stop, KeepsDying when a child never stays.
        """
        self._signals.wait(timeout_s)
        if self._signals.asked_to_stop:
            raise Stopped
        for child in self.children.values():
            happened = child.watch()
            if happened:
                self._say(happened)
        self.write_run()

    def wait_until(self, ready: Callable[[], bool], what: str, timeout_s: float) -> None:
        """Tick until `ready`; TimeoutError names what did not come."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} is not ready after {timeout_s:.0f} s; see {self._home.path / 'logs'}")
            self.tick(0.1)

    def worker_pids(self) -> list[int]:
        """The worker units as their parent tells them; none while it is down."""
        worker = self.children.get("worker")
        return self._home.read_worker_pids() if worker and worker.running else []

    def write_run(self) -> None:
        """run.json, when something in it changed."""
        if not self.facts:
            return
        pid = {name: child.pid for name, child in self.children.items()}
        pids = {
            "api": _listed(pid.get("api")),
            "worker": self.worker_pids(),
            "timer": _listed(pid.get("timer")),
            "postgres": pid.get("postgres"),
            "redis": pid.get("valkey"),
            "provider": pid.get("provider"),
        }
        content = {**self.facts, "pids": pids}
        if content != self._written:
            self._write(content)

    def _write(self, content: dict[str, Any]) -> None:
        try:
            write_private(self._home.run, content)
        except OSError as error:
            # The first one must be there; later on a full disk stops nothing, and the next tick tries again.
            if not self._written:
                raise
            if not self._is_behind:
                self._say(f"run.json cannot be written ({error}); trying again")
            self._is_behind = True
        else:
            self._written, self._is_behind = content, False

    def stop(self) -> None:
        """Ask all to end, the servers last; a second Ctrl-C kills."""
        order: Sequence[tuple[Iterable[str], float]] = (
            (("api", "timer", "worker"), DRAIN_S),
            (("migrate", "provider", "valkey", "postgres"), SERVERS_S),
        )
        for names, patience_s in order:
            self.stop_all([self.children[name] for name in names if name in self.children], patience_s)
        self._home.run.unlink(missing_ok=True)
        self._home.worker_pids.unlink(missing_ok=True)

    def stop_all(self, children: Sequence[Child], patience_s: float) -> None:
        """Ask these to end and wait; kill what is left when time is up or somebody insists."""
        deadline = time.monotonic() + patience_s
        for child in children:
            child.ask_to_stop()
        while any_running(children) and time.monotonic() < deadline and not self._signals.insisted:
            self._signals.wait(0.05)
        for child in children:
            child.kill()


def _listed(pid: int | None) -> list[int]:
    return [] if pid is None else [pid]
