"""A closed loop, the same for the bare litellm loop and for HTTP: n clients, each asks again once it has its answer."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

Ask = Callable[[], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Timed:
    """One run. calls_per_s: all calls by the time from the first question to the last answer."""

    calls_per_s: float
    latencies_ms: list[float]

    @property
    def calls(self) -> int:
        """How many were asked and answered."""
        return len(self.latencies_ms)

    def percentile_ms(self, percent: float) -> float:
        """The nearest-rank percentile of the latencies."""
        return percentile(self.latencies_ms, percent)


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of some values."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * int(percent * 10) // 1000) - 1)]


async def closed_loop(clients: Sequence[Ask], seconds: float) -> Timed:
    """Let every client ask for this long; what is under way then is waited for and counts."""
    began = time.perf_counter()
    latencies: list[float] = []

    async def client(ask: Ask) -> None:
        ended = began
        while ended < began + seconds:
            started = time.perf_counter()
            await ask()
            ended = time.perf_counter()
            latencies.append(round((ended - started) * 1000, 3))

    async with asyncio.TaskGroup() as clients_running:
        for ask in clients:
            clients_running.create_task(client(ask))
    return Timed(calls_per_s=len(latencies) / (time.perf_counter() - began), latencies_ms=latencies)
