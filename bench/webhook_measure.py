"""The measurements of webhooks: events are recorded as the api does it, and looked for at the receivers."""

import asyncio
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import cycle, islice
from typing import Any, Self

import httpx
import orjson

from bench.http import Connection
from bench.loop import Timed, closed_loop, percentile
from bench.stack import PLENTY, Stack
from bench.usage import Cpu, cpu
from cli.config import PROJECT
from cli.home import read_json
from cli.seed import DEMO_GROUP, ORGANIZATION
from shared import clock, ids, outbox
from shared.db import Database
from shared.events import Event
from shared.messages import Deliver
from shared.queue import Bell
from shared.settings import LOOPBACK
from workers.webhook_http import WebhookSender

BURST, EVEN, MIXED = "job.completed", "job.cancelled", "job.failed"
"""The healthy endpoints want all three. Beside them the second is wanted by others that answer at once, the third by as
many that are dead or slow: both make the same number of deliveries."""
TICK_S = 0.04
PATIENCE_S = 60.0
DATA = {"status": "completed", "job_type": "bench", "metadata": {"document_id": "doc_123"}, "total_calls": 5,
        "successful_calls": 5, "failed_calls": 0, "duration_seconds": 45, "total_tokens": 1350,
        "result_url": "/api/jobs/019aa3c2-7b1e-7c44-9d0a-3f5b1c2d4e6f"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Size:
    """Teams, and how many endpoints each has of a kind."""

    teams: int = 20
    healthy: int = 4
    dead_teams: int = 10
    slow_teams: int = 10


@dataclass(frozen=True, kw_only=True)
class WebhookRun:
    """One run. latencies_ms: from the fact (before its commit) to the request's arrival, first attempts, healthy ones.

    missing: deliveries to healthy endpoints that never came. repeated: those that came more than once.
    """

    kind: str
    round: int
    latencies_ms: list[float]
    seconds: float
    missing: int
    repeated: int
    cpu: Cpu
    wall_s: float

    @property
    def per_s(self) -> float:
        """Deliveries to healthy endpoints by the time to the last."""
        return len(self.latencies_ms) / self.seconds

    def ms(self, percent: float) -> float:
        """A percentile of the latencies."""
        return percentile(self.latencies_ms, percent)


@dataclass(kw_only=True)
class WebhookResults:
    """Everything that was measured."""

    runs: list[WebhookRun] = field(default_factory=list)
    bare: list[Timed] = field(default_factory=list)

    def of(self, kind: str) -> list[WebhookRun]:
        """The rounds of one measurement, in order."""
        return [run for run in self.runs if run.kind == kind]


class Receivers:
    """The receivers' process; it ends with its standard input."""

    def __init__(self, process: Process, port: int) -> None:
        self._process = process
        self.port = port

    @classmethod
    async def start(cls) -> Self:
        """Start it and read its port."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.webhook_receiver", stdin=PIPE, stdout=PIPE, cwd=PROJECT
        )
        if process.stdout is None:
            raise RuntimeError("the receivers have no pipe")
        return cls(process, int(await process.stdout.readline()))

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    async def take(self) -> list[list[Any]]:
        """What came since the last time: path, webhook-id, time of the fact, unix seconds."""
        async with httpx.AsyncClient() as client:
            found: list[list[Any]] = orjson.loads((await client.get(f"http://127.0.0.1:{self.port}/take")).content)
            return found

    async def stop(self) -> None:
        """End it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()


class WebhookBench:
    """Measures on a running stack; `db` and `bell` are the load's own."""

    def __init__(self, stack: Stack, receivers: Receivers, size: Size, db: Database, bell: Bell) -> None:
        self._receivers, self._size, self._db, self._bell = receivers, size, db, bell
        self._parts = {**stack.pids, "receivers": [receivers.pid]}
        self._teams = [f"bench-{n}" for n in range(size.teams)]

    async def steady(self, type_: str, per_s: float, seconds: float, round_: int) -> WebhookRun:
        """Events at an even rate, `per_s` deliveries to healthy endpoints."""
        each = max(1, round(per_s * TICK_S / self._size.healthy))
        teams, recorded = cycle(self._teams), 0
        await self._receivers.take()
        before, began = cpu(self._parts), time.perf_counter()
        while (now := time.perf_counter() - began) < seconds:
            due = int(now / TICK_S) + 1
            while recorded < due:
                await self._record(type_, list(islice(teams, each)))
                recorded += 1
            await asyncio.sleep(max(0.0, recorded * TICK_S - (time.perf_counter() - began)))
        return await self._looked(type_, round_, recorded * each, before, began)

    async def burst(self, events: int, round_: int) -> WebhookRun:
        """So many events at once: how fast they are sent."""
        await self._receivers.take()
        before, began = cpu(self._parts), time.perf_counter()
        for start in range(0, events, len(self._teams)):
            await self._record(BURST, self._teams[: events - start])
        return await self._looked("burst", round_, events, before, began)

    async def bare(self, concurrency: int, seconds: float) -> Timed:
        """The same bodies posted by the sender alone: nothing claimed, signed or recorded."""
        sender = WebhookSender(LOOPBACK, http=True)
        body = _event(self._teams[0], BURST).body().encode()

        async def post() -> None:
            url = f"http://127.0.0.1:{self._receivers.port}/ok/bare"
            await sender.post(url, {"webhook-id": "evt_bare"}, body, timeout_s=15)

        timed = await closed_loop([post] * concurrency, seconds)
        await sender.close()
        return timed

    async def _record(self, type_: str, teams: Sequence[str]) -> None:
        async with self._db.hot_transaction() as tx:
            queues = await outbox.record(tx, [_event(team, type_) for team in teams])
        self._bell.ring(Deliver(ids=tuple(queues)))

    async def _looked(self, kind: str, round_: int, events: int, before: Cpu, began: float) -> WebhookRun:
        wanted, until = events * self._size.healthy, time.perf_counter() + PATIENCE_S
        seen: list[list[Any]] = []
        while len({(path, id_) for path, id_, _, _ in seen}) < wanted and time.perf_counter() < until:
            await asyncio.sleep(0.2)
            seen += [one for one in await self._receivers.take() if one[0].startswith("/ok/")]
        first: dict[tuple[str, str], tuple[float, float]] = {}
        for path, id_, created, at in seen:
            first.setdefault((path, id_), (at, (at - datetime.fromisoformat(created).timestamp()) * 1000))
        last = max((at for at, _ in first.values()), default=time.time())
        return WebhookRun(
            kind=kind,
            round=round_,
            latencies_ms=[late_ms for _, late_ms in first.values()],
            seconds=max(0.001, last - (time.time() - (time.perf_counter() - began))),
            missing=wanted - len(first),
            repeated=len(seen) - len(first),
            cpu=cpu(self._parts).since(before),
            wall_s=time.perf_counter() - began,
        )


async def make_endpoints(stack: Stack, port: int, size: Size) -> None:
    """Teams with their endpoints, registered as a customer does."""
    connection = await Connection.open(stack.port, {"X-Admin-Key": read_json(stack.home.keys)["admin_key"]})
    for n in range(size.teams):
        team = {"organization_id": ORGANIZATION, "team_id": f"bench-{n}", "access_groups": [DEMO_GROUP]}
        await connection.post_json("/api/teams/create", {**team, "credits_allocated": PLENTY})
        paths = [(f"/ok/{n}/{k}", [BURST, EVEN, MIXED]) for k in range(size.healthy)]
        others = ["dead"] * (n < size.dead_teams) + ["slow"] * (n >= size.teams - size.slow_teams)
        for kind in others:
            paths += [(f"/{kind}/{n}", [MIXED]), (f"/okay/{kind}/{n}", [EVEN])]
        for path, events in paths:
            url = f"http://127.0.0.1:{port}{path}"
            await connection.post_json(
                "/api/webhooks/register", {"team_id": f"bench-{n}", "webhook_url": url, "events": events}
            )
    await connection.close()


def _event(team_id: str, type_: str) -> Event:
    job = ids.new()
    return Event(
        id=ids.new(), type=type_, team_id=team_id, job_id=job, subject_id=None, sequence=1, at=clock.now(),
        data={"id": str(job), **DATA},
    )  # fmt: skip
