"""Fairness on this machine: a team's live calls beside another team's batch of 50,000, and shares by weight.

python -m bench.fairness [--quick]
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import median

import psycopg

from bench.batch_measure import BatchBench, client, lines
from bench.loop import Timed, closed_loop
from bench.measure import live_clients
from bench.program import Program, progress
from bench.report import table
from bench.stack import Stack

GOAL_P50, GOAL_P99, GOAL_SHARE = 1.5, 3.0, 0.05
CLIENTS = 2
"""Connections of the live team, each asking again once it has its answer."""
SETTLE_S = 2.0

STARTED = """
select extract(epoch from min(c.started_at) - min(b.in_progress_at))::float8
  from calls c join batches b on b.id = c.job_id where b.id = %s
"""
SHARES = """
select team_id, sum(estimated_prompt_tokens + estimated_output_tokens)::float8 from calls
 where batched and started_at >= now() - make_interval(secs => %s) group by team_id
"""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """lines: of the large batch. run_s: of each live loop, and of the count of shares."""

    rounds: int = 3
    lines: int = 50_000
    run_s: float = 8.0


LOOK = Plan(rounds=1, lines=10_000, run_s=4.0)


@dataclass(frozen=True, kw_only=True)
class Round:
    """lines_per_s: of the batch, beside the live calls. second_s: from a second batch's start to its first line's."""

    alone: Timed
    beside: Timed
    lines_per_s: float
    second_s: float


@dataclass(kw_only=True)
class Results:
    """Everything that was measured. shares: tokens of the team of weight 3 for one of the other's, a round each."""

    rounds: list[Round] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)


class Fairness:
    """Measures on a running stack: `big` has batches, `live` asks one question after the other."""

    def __init__(self, stack: Stack, big: BatchBench, live: BatchBench, light: BatchBench) -> None:
        self._stack, self._big, self._live, self._light = stack, big, live, light

    async def round(self, plan: Plan, data: bytes) -> Round:
        """The live team alone, then beside the large batch; then a second batch, of the live team."""
        alone = await self._asked(plan.run_s)
        file_id, _ = await self._big.upload(data)
        batch_id, _ = await self._big.accept(file_id)
        await asyncio.sleep(SETTLE_S)
        before, began = await self._done(batch_id), time.perf_counter()
        beside = await self._asked(plan.run_s)
        lines_per_s = (await self._done(batch_id) - before) / (time.perf_counter() - began)
        second_s = await self._second()
        await self._big.cancel(batch_id)
        await self._big.finish(batch_id)
        return Round(alone=alone, beside=beside, lines_per_s=lines_per_s, second_s=second_s)

    async def share(self, plan: Plan, data: bytes) -> float:
        """Tokens of a team of weight 3 for one of a team of weight 1, each with more lines than it can run."""
        batches = []
        for team in (self._big, self._light):
            file_id, _ = await team.upload(data)
            batches.append((team, (await team.accept(file_id))[0]))
        await asyncio.sleep(SETTLE_S)
        await asyncio.sleep(plan.run_s)
        with psycopg.connect(self._stack.facts["database_url"], connect_timeout=10) as database:
            tokens: dict[str, float] = dict(database.execute(SHARES.encode(), (plan.run_s,)).fetchall())
        for team, batch_id in batches:
            await team.cancel(batch_id)
            await team.finish(batch_id)
        return tokens["heavy"] / tokens["light"]

    async def _asked(self, seconds: float) -> Timed:
        async with live_clients(self._stack, CLIENTS) as clients:
            return await closed_loop(clients, seconds)

    async def _done(self, batch_id: str) -> int:
        counts = (await self._big.reached(batch_id, bool))["request_counts"]
        done: int = counts["completed"] + counts["failed"]
        return done

    async def _second(self) -> float:
        file_id, _ = await self._live.upload(lines(20))
        batch_id, _ = await self._live.accept(file_id)
        await self._live.finish(batch_id)
        with psycopg.connect(self._stack.facts["database_url"], connect_timeout=10) as database:
            [(seconds,)] = database.execute(STARTED.encode(), (batch_id.removeprefix("batch_"),)).fetchall()
        return float(seconds)


async def measured(stack: Stack, plan: Plan) -> Results:
    """All rounds, on one worker unit and one batch unit."""
    await stack.start(workers=1, batch_workers=1)
    keys = [await stack.make_team(), await stack.make_team("heavy", weight=3), await stack.make_team("light")]
    results, data = Results(), lines(plan.lines)
    async with AsyncExitStack() as opened:
        teams = [BatchBench(stack, await opened.enter_async_context(client(stack, key))) for key in keys]
        live, heavy, light = teams
        fairness = Fairness(stack, heavy, live, light)
        progress("warming up")
        await live.run(lines(100))
        for number in range(plan.rounds):
            progress(f"round {number + 1} of {plan.rounds}")
            results.rounds.append(await fairness.round(plan, data))
            results.shares.append(await fairness.share(plan, data))
    return results


def sections(results: Results, plan: Plan) -> dict[str, str]:
    """Of the report."""
    return {
        f"1. Live calls of one team, {CLIENTS} clients, alone and beside another team's batch of {plan.lines} lines;"
        f" provider at 0 ms (goals: p50 {GOAL_P50}x, p99 {GOAL_P99}x)": _beside(results),
        "2. A second batch, of the live team, while the large one runs": (
            f"first line started after {_many([round_.second_s for round_ in results.rounds], 2)} s"
        ),
        f"3. Tokens of a team of weight 3 for one token of a team of weight 1 (goal: 3 within {GOAL_SHARE:.0%})": (
            f"{_many(results.shares, 3)}"
        ),
    }


def _beside(results: Results) -> str:
    rows = []
    for percent in (50, 99):
        alone = [round_.alone.percentile_ms(percent) for round_ in results.rounds]
        beside = [round_.beside.percentile_ms(percent) for round_ in results.rounds]
        ratios = [one / other for one, other in zip(beside, alone, strict=True)]
        rows.append([f"p{percent} ms", f"{median(alone):.1f}", f"{median(beside):.1f}", _many(ratios, 2)])
    alone_s = [round_.alone.calls_per_s for round_ in results.rounds]
    beside_s = [round_.beside.calls_per_s for round_ in results.rounds]
    lines_s = [round_.lines_per_s for round_ in results.rounds]
    rows.append(["calls/s", f"{median(alone_s):.0f}", f"{median(beside_s):.0f}", ""])
    rows.append(["lines/s", "0", f"{median(lines_s):.0f}", ""])
    return table(["", "alone", "beside", "ratio of each round"], rows, left=1)


def _many(values: Sequence[float], digits: int) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)


PROGRAM = Program(
    module="bench.fairness",
    about="Live calls beside a batch; shares by weight.",
    title="Fairness of Waybill",
    plan=Plan(),
    look=LOOK,
    told=lambda plan: f"{plan.rounds} rounds of {plan.run_s:g} s, one api, one worker unit, one batch unit",
    measured=measured,
    sections=sections,
)


if __name__ == "__main__":
    sys.exit(PROGRAM.main())
