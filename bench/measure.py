"""The measurements: each runs one thing once and says how fast it was and what CPU it took."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

import orjson
import psycopg

from bench.http import Connection
from bench.loop import Timed, closed_loop
from bench.question import QUESTION
from bench.stack import TEAM, BareLoop, Stack
from bench.usage import Cpu, cpu, rss_mb

BARE, WHOLE, ACCEPT = "bare", "whole", "accept"
JOB = {"team_id": TEAM, "job_type": "bench"}
CALL_BODY = orjson.dumps(QUESTION)
ACCEPT_BODY = orjson.dumps({**JOB, "calls": [QUESTION]})
PAUSES_S = (0.02, 0.13, 0.05, 0.09, 0.03, 0.17, 0.07, 0.11)
"""Between single calls: uneven, so that no timer of the product keeps step with them."""

STARTED = "select extract(epoch from started_at - created_at)::float8 * 1000 from calls where job_id = %s"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run. workers: units of the product at that time, also beside the bare loop."""

    kind: str
    workers: int
    round: int
    concurrency: int
    timed: Timed
    cpu: Cpu
    wall_s: float

    def cpu_ms(self, part: str) -> float:
        """CPU of a part per call."""
        return self.cpu.parts[part] / max(1, self.timed.calls)


@dataclass(kw_only=True)
class Results:
    """Everything that was measured in one run of the benchmark."""

    runs: list[Run] = field(default_factory=list)
    start_ms: list[float] = field(default_factory=list)
    rss_mb: dict[str, float] = field(default_factory=dict)

    def of(self, kind: str, workers: int, concurrency: int) -> list[Run]:
        """The rounds of one measurement, in order."""
        return [r for r in self.runs if (r.kind, r.workers, r.concurrency) == (kind, workers, concurrency)]


class Bench:
    """Measures on a running stack, beside a bare loop that is idle meanwhile."""

    def __init__(self, stack: Stack, bare: BareLoop, workers: int) -> None:
        self._stack = stack
        self._bare = bare
        self._workers = workers
        self._parts = {**stack.pids, "bare": [bare.pid]}

    async def bare(self, concurrency: int, seconds: float, round_: int = 0) -> Run:
        """The bare litellm loop."""
        return await self._run(BARE, concurrency, round_, lambda: self._bare.run(concurrency, seconds))

    async def whole(self, concurrency: int, seconds: float, round_: int = 0) -> Run:
        """Calls that are waited for: `POST /jobs/{id}/llm-call`, each connection on a job of its own."""
        async with live_clients(self._stack, concurrency) as clients:
            return await self._run(WHOLE, concurrency, round_, lambda: closed_loop(clients, seconds))

    async def accept(self, concurrency: int, seconds: float, round_: int = 0) -> Run:
        """Jobs with one call each, accepted and not waited for."""
        connections = [await self._stack.connect({"Prefer": "respond-async"}) for _ in range(concurrency)]
        clients = [_submitter(connection) for connection in connections]
        run = await self._run(ACCEPT, concurrency, round_, lambda: closed_loop(clients, seconds))
        for connection in connections:
            await connection.close()
        return run

    async def start_ms(self, calls: int) -> list[float]:
        """How long single calls on an idle system waited for their start, from the arrival of the request."""
        connection = await self._stack.connect()
        job = await _new_job(connection)
        ask = _caller(connection, job)
        for pause_s in _pauses(calls):
            await asyncio.sleep(pause_s)
            await ask()
        await connection.close()
        with psycopg.connect(self._stack.facts["database_url"], connect_timeout=10) as database:
            return [waited_ms for (waited_ms,) in database.execute(STARTED, (job,)).fetchall()]

    def rss_mb(self) -> dict[str, float]:
        """Memory of the api and of each worker unit now."""
        pids = self._stack.pids
        units = {f"worker unit {n}": rss_mb(pid) for n, pid in enumerate(pids["worker"], 1)}
        return {"api": rss_mb(pids["api"][0]), **units}

    async def _run(self, kind: str, concurrency: int, round_: int, timed: Callable[[], Awaitable[Timed]]) -> Run:
        before, started = cpu(self._parts), time.perf_counter()
        result = await timed()
        return Run(
            kind=kind,
            workers=self._workers,
            round=round_,
            concurrency=concurrency,
            timed=result,
            cpu=cpu(self._parts).since(before),
            wall_s=time.perf_counter() - started,
        )


@asynccontextmanager
async def live_clients(stack: Stack, count: int) -> AsyncIterator[list[Callable[[], Awaitable[None]]]]:
    """So many connections that ask one question after the other, each on a job of its own."""
    connections = [await stack.connect() for _ in range(count)]
    yield [_caller(connection, await _new_job(connection)) for connection in connections]
    for connection in connections:
        await connection.close()


def _caller(connection: Connection, job_id: str) -> Callable[[], Awaitable[None]]:
    async def ask() -> None:
        await connection.post(f"/api/jobs/{job_id}/llm-call", CALL_BODY, expect=200)

    return ask


def _submitter(connection: Connection) -> Callable[[], Awaitable[None]]:
    async def submit() -> None:
        await connection.post("/api/jobs/create", ACCEPT_BODY, expect=202)

    return submit


async def _new_job(connection: Connection) -> str:
    made: dict[str, Any] = await connection.post_json("/api/jobs/create", JOB)
    job_id: str = made["job_id"]
    return job_id


def _pauses(count: int) -> Iterator[float]:
    return islice(cycle(PAUSES_S), count)
