"""Looking at processes from outside: who belongs to a home, and waiting for a condition."""

import time
from collections.abc import Callable
from pathlib import Path


def until(condition: Callable[[], bool], what: str, timeout_s: float = 30) -> None:
    """Wait for a condition; fails with `what` when it never holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)


def environment(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def alive(pid: int) -> bool:
    """Whether the process runs; one that ended and waits to be noticed does not."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def of_home(home: Path) -> list[int]:
    """Every running process that was given this WAYBILL_HOME or works inside it, as Postgres' own children do."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if alive(pid) and (f"WAYBILL_HOME={home}" in environment(pid) or _inside(pid, home))]


def _inside(pid: int, home: Path) -> bool:
    try:
        return Path(f"/proc/{pid}/cwd").readlink().is_relative_to(home)
    except OSError:
        return False
