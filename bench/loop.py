"""A closed loop, the same for the bare litellm loop and for HTTP: n clients, each asks again once it has its answer."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

Ask = Callable[[], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Timed:
    """One run. seconds: from the first question to the last answer."""

    seconds: float
    latencies_ms: list[float]

    @property
    def calls_per_s(self) -> float:
        """All calls by the time until the last answer."""
        return self.calls / self.seconds

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


async def closed_loop(clients: Sequence[Ask], seconds: float, *, apart_s: float = 0.0) -> Timed:
    """Let every client ask for this long; what is under way then is waited for and counts.

    apart_s: between the first questions of two clients.
    """
    began = time.perf_counter()
    latencies: list[float] = []

    async def client(number: int, ask: Ask) -> None:
        ended = began
        if apart_s:
            await asyncio.sleep(number * apart_s)
        while ended < began + seconds:
            started = time.perf_counter()
            await ask()
            ended = time.perf_counter()
            latencies.append(round((ended - started) * 1000, 3))

    async with asyncio.TaskGroup() as clients_running:
        for number, ask in enumerate(clients):
            clients_running.create_task(client(number, ask))
    return Timed(seconds=time.perf_counter() - began, latencies_ms=latencies)
