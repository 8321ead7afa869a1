"""The measurements of streams: each runs one kind of them once, with Waybill or without."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bench.http import Refused
from bench.loop import closed_loop
from bench.report import OWN
from bench.stack import BareLoop, Stack
from bench.stream_http import StreamConnection
from bench.stream_provider import Provider
from bench.stream_question import LONG, Kind, apart_s
from bench.stream_seen import Damaged, Seen
from bench.usage import Cpu, cpu, rss_mb

BARE, WHOLE = "bare", "whole"
WATCH_S = 0.5
OPEN_LIMIT_S = 300.0
START_APART_S = 0.04
"""Between the starts of the many streams: below what one worker unit can begin in a second."""


@dataclass(frozen=True, kw_only=True)
class StreamRun:
    """One run."""

    side: str
    kind: Kind
    concurrency: int
    round: int
    seen: Seen
    cpu: Cpu
    wall_s: float

    def cpu_ms(self, *parts: str) -> float:
        """CPU of some parts per stream."""
        return sum(self.cpu.parts[part] for part in parts) / max(1, self.seen.streams)


@dataclass(kw_only=True)
class Open:
    """Many streams at once. most: open with words on both ends; rss_mb: the most while they were open, by part."""

    asked: int
    now: int = 0
    most: int = 0
    whole: int = 0
    damaged: list[str] = field(default_factory=list)
    rss_before_mb: dict[str, float] = field(default_factory=dict)
    rss_mb: dict[str, float] = field(default_factory=dict)
    api_cpu_s: float = 0.0
    seconds: float = 0.0
    seen: Seen = field(default_factory=Seen)


@dataclass(kw_only=True)
class StreamResults:
    """Everything that was measured in one run of the benchmark."""

    runs: list[StreamRun] = field(default_factory=list)
    idle_ms: float = 0.0
    """CPU of Waybill, Postgres and Valkey in a second without any call."""
    open: Open | None = None

    def of(self, side: str, kind: Kind, concurrency: int) -> list[StreamRun]:
        """The rounds of one measurement, in order."""
        return [r for r in self.runs if (r.side, r.kind, r.concurrency) == (side, kind, concurrency)]


class StreamBench:
    """Measures on a running stack, beside a bare loop that is idle meanwhile."""

    def __init__(self, stack: Stack, bare: BareLoop, provider: Provider) -> None:
        self._stack = stack
        self._bare = bare
        self._parts = {**stack.pids, "provider": [provider.pid], "bare": [bare.pid]}

    async def bare(self, kind: Kind, concurrency: int, seconds: float, round_: int = 0) -> StreamRun:
        """`async for` over litellm's stream."""
        return await self._run(
            BARE, kind, concurrency, round_, lambda: self._bare.stream(kind.name, concurrency, seconds)
        )

    async def whole(self, kind: Kind, concurrency: int, seconds: float, round_: int = 0) -> StreamRun:
        """`POST /v1/chat/completions` with `stream`, on kept-alive connections."""
        connections = [await self._connect() for _ in range(concurrency)]

        async def streams() -> Seen:
            seen = Seen()
            clients = [_follower(connection, kind, seen) for connection in connections]
            timed = await closed_loop(clients, seconds, apart_s=apart_s(kind, concurrency))
            seen.seconds = timed.seconds
            return seen

        run = await self._run(WHOLE, kind, concurrency, round_, streams)
        for connection in connections:
            await connection.close()
        return run

    async def idle_ms(self, seconds: float) -> float:
        """What api, worker, timer, Postgres and Valkey use in a second in which nobody asks for anything."""
        before = cpu(self._parts)
        await asyncio.sleep(seconds)
        used = cpu(self._parts).since(before)
        return sum(used.parts[part] for part in OWN) / seconds

    async def open(self, count: int) -> Open:
        """So many streams open at the same time, each read to its end."""
        result = Open(asked=count, rss_before_mb=self._rss())
        result.rss_mb = dict(result.rss_before_mb)
        before, started = cpu(self._parts).parts["api"], time.perf_counter()
        watching = asyncio.create_task(self._watch(result))
        async with asyncio.timeout(OPEN_LIMIT_S), asyncio.TaskGroup() as running:
            for _ in range(count):
                running.create_task(self._one_of_many(result))
                await asyncio.sleep(START_APART_S)
        watching.cancel()
        result.seconds = time.perf_counter() - started
        result.api_cpu_s = (cpu(self._parts).parts["api"] - before) / 1000
        return result

    async def _one_of_many(self, result: Open) -> None:
        def begun() -> None:
            result.now += 1
            result.most = max(result.most, result.now)

        connection = await self._connect()
        try:
            await connection.follow(LONG, result.seen, begun)
            result.whole += 1
        except (Damaged, Refused, OSError, asyncio.IncompleteReadError) as error:
            result.damaged.append(f"{type(error).__name__}: {error}")
        finally:
            result.now -= 1
            await connection.close()

    async def _watch(self, result: Open) -> None:
        while True:
            for part, now in self._rss().items():
                result.rss_mb[part] = max(now, result.rss_mb[part])
            await asyncio.sleep(WATCH_S)

    def _rss(self) -> dict[str, float]:
        return {part: sum(map(rss_mb, self._stack.pids[part])) for part in ("api", "worker", "timer")}

    async def _connect(self) -> StreamConnection:
        headers = {"Authorization": f"Bearer {self._stack.team_key}"}
        return await StreamConnection.open(self._stack.port, headers)

    async def _run(
        self, side: str, kind: Kind, concurrency: int, round_: int, streams: Callable[[], Awaitable[Seen]]
    ) -> StreamRun:
        before, started = cpu(self._parts), time.perf_counter()
        seen = await streams()
        return StreamRun(
            side=side,
            kind=kind,
            concurrency=concurrency,
            round=round_,
            seen=seen,
            cpu=cpu(self._parts).since(before),
            wall_s=time.perf_counter() - started,
        )


def _follower(connection: StreamConnection, kind: Kind, seen: Seen) -> Callable[[], Awaitable[None]]:
    async def follow() -> None:
        await connection.follow(kind, seen)

    return follow
