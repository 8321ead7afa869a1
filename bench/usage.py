"""CPU time and memory of processes, from /proc (Linux)."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


class _Process(NamedTuple):
    parent: int
    own: int
    children_that_ended: int


@dataclass(frozen=True, kw_only=True)
class Cpu:
    """CPU ms since boot, by part and of the whole machine (all that was not idle)."""

    parts: Mapping[str, float]
    machine: float

    def since(self, before: "Cpu") -> "Cpu":
        """What was used from then to now."""
        return Cpu(
            parts={name: used - before.parts[name] for name, used in self.parts.items()},
            machine=self.machine - before.machine,
        )

    @property
    def others(self) -> float:
        """What programs outside the benchmark, and the kernel's own threads, used."""
        return max(0.0, self.machine - sum(self.parts.values()))


class Measured(Protocol):
    """Something that was run."""

    @property
    def cpu(self) -> Cpu:
        """What was used meanwhile."""

    @property
    def wall_s(self) -> float:
        """How long it took."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """A time in which several things were run."""

    cpu: Cpu
    wall_s: float


def others_percent(runs: Sequence[Measured]) -> float:
    """How much of the machine other programs used while these were run."""
    available_ms = sum(run.wall_s for run in runs) * 1000 * (os.cpu_count() or 1)
    return 100 * sum(run.cpu.others for run in runs) / available_ms


def cpu(parts: Mapping[str, Sequence[int]]) -> Cpu:
    """CPU used so far, `load` by this process. parts: name to pids, with all descendants, also those that ended."""
    table = _table()
    children: dict[int, list[int]] = {}
    for pid, process in table.items():
        children.setdefault(process.parent, []).append(pid)
    used = {name: sum(_ticks(pid, table, children) for pid in pids) * TICK_MS for name, pids in parts.items()}
    user, nice, system, _idle, _iowait, irq, softirq = _numbers((PROC / "stat").read_text().splitlines()[0])[:7]
    # This process has the stack's as children: from /proc, with descendants, they would count twice.
    used["load"] = time.process_time() * 1000
    return Cpu(parts=used, machine=(user + nice + system + irq + softirq) * TICK_MS)


def rss_mb(pid: int) -> float:
    """Resident memory of one process, pages that it shares with others included."""
    line = next(line for line in (PROC / f"{pid}/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def _ticks(pid: int, table: Mapping[int, _Process], children: Mapping[int, list[int]]) -> int:
    if pid not in table:
        raise RuntimeError(f"process {pid} of the benchmark ended while it was measured")
    below = sum(_ticks(child, table, children) for child in children.get(pid, ()))
    return table[pid].own + table[pid].children_that_ended + below


def _table() -> dict[int, _Process]:
    table = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except OSError:
                continue  # it ended just now; what it used is its parent's
            fields = text.rpartition(")")[2].split()
            own, ended = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
            table[int(entry.name)] = _Process(int(fields[1]), own, ended)
    return table


def _numbers(line: str) -> list[int]:
    return [int(word) for word in line.split()[1:]]
