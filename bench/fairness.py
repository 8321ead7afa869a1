"""Fairness on this machine: a team's live calls beside another team's batch of 50,000, and shares by weight.

python -m bench.fairness [--quick | --check]
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple
from uuid import UUID

import psycopg

from bench.batch_measure import BatchBench, client, lines
from bench.goals import Goal, Judged
from bench.loop import Timed, closed_loop
from bench.measure import live_clients
from bench.program import Program, progress, with_batch_unit
from bench.report import table
from bench.stack import Stack

SOURCE = "batches"
P50 = Goal(what="p50 of live calls beside a batch by that alone", unit="x", bound=1.5, source=SOURCE)
P99 = Goal(what="p99 of live calls beside a batch by that alone", unit="x", bound=3, source=SOURCE)
SECOND = Goal(what="first line of a second batch, from its POST", unit="s", bound=10, source=SOURCE)
SHARE = Goal(what="tokens of weight 3 by those of weight 1, away from 3", unit="%", bound=5, source=SOURCE)
CLIENTS = 2
"""Connections of the live team, each asking again once it has its answer."""
SECOND_LINES = 20
SETTLE_S = 2.0

RESPOND_ASYNC = {"Prefer": "respond-async"}

STARTED = """
select extract(epoch from min(c.started_at))::float8 - %(posted)s,
       (select count(*) from batches o where o.id = any(%(others)s) and o.in_progress_at < b.in_progress_at)
  from calls c join batches b on b.id = c.job_id where b.id = %(id)s group by b.id
"""
SHARES = """
select team_id, sum(estimated_prompt_tokens + estimated_output_tokens)::float8 from calls
 where batched and started_at >= now() - make_interval(secs => %s) group by team_id
"""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """lines: of each large batch. unchecked: how many more of them stand before the second batch.

    run_s: of each live loop, and of the count of shares.
    """

    rounds: int = 3
    lines: int = 50_000
    unchecked: int = 5
    run_s: float = 8.0


QUICK_PLAN = Plan(rounds=1, lines=10_000, run_s=4.0)


class Second(NamedTuple):
    """A small batch of another team. seconds: from its POST to its first line's start.

    checked_before: how many of the large ones that were there before it were accepted before it.
    """

    seconds: float
    checked_before: int


@dataclass(frozen=True, kw_only=True)
class Round:
    """lines_per_s: of the batch, beside the live calls."""

    alone: Timed
    beside: Timed
    lines_per_s: float
    second: Second


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
        """The live team alone, then beside the large batch; then a batch of its own, behind more large ones."""
        alone = await self._asked(plan.run_s)
        file_id, _ = await self._big.upload(data)
        batch_id, _ = await self._big.accept(file_id)
        await asyncio.sleep(SETTLE_S)
        before, began = await self._done(batch_id), time.perf_counter()
        beside = await self._asked(plan.run_s)
        lines_per_s = (await self._done(batch_id) - before) / (time.perf_counter() - began)
        small_id, _ = await self._live.upload(lines(SECOND_LINES))
        others = [await self._big.ask(file_id, RESPOND_ASYNC) for _ in range(plan.unchecked)]
        second = await self._second(small_id, others)
        for each in (*reversed(others), batch_id):
            await self._big.cancel(each)
            await self._big.finish(each)
        return Round(alone=alone, beside=beside, lines_per_s=lines_per_s, second=second)

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

    async def _second(self, file_id: str, others: Sequence[str]) -> Second:
        posted = time.time()
        batch_id = await self._live.ask(file_id, RESPOND_ASYNC)
        await self._live.finish(batch_id)
        asked = {"posted": posted, "id": _uuid(batch_id), "others": [_uuid(each) for each in others]}
        with psycopg.connect(self._stack.facts["database_url"], connect_timeout=10) as database:
            [(seconds, checked_before)] = database.execute(STARTED.encode(), asked).fetchall()
        return Second(seconds, checked_before)


def _uuid(batch_id: str) -> UUID:
    return UUID(batch_id.removeprefix("batch_"))


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
        f"1. Live calls of one team, {CLIENTS} clients, {plan.run_s:g} s alone and beside another team's batch of"
        f" {plan.lines} lines; provider at 0 ms": _beside(results),
        f"2. A second batch, of {SECOND_LINES} lines of the live team, while the large one runs and {plan.unchecked}"
        " like it are not checked yet": _second(results),
        "3. Tokens of a team of weight 3 for one token of a team of weight 1": f"  {_many(results.shares, 3)}",
    }


def judged(results: Results, _: Plan) -> list[Judged]:
    """What one team's batches may do to another, and what weights are to give."""
    return [
        P50.of(*_ratios(results, 50)),
        P99.of(*_ratios(results, 99)),
        SECOND.of(*(round_.second.seconds for round_ in results.rounds)),
        SHARE.of(*(abs(share / 3 - 1) * 100 for share in results.shares)),
    ]


def _beside(results: Results) -> str:
    rows = []
    for percent in (50, 99):
        alone = median(round_.alone.percentile_ms(percent) for round_ in results.rounds)
        beside = median(round_.beside.percentile_ms(percent) for round_ in results.rounds)
        rows.append([f"p{percent} ms", f"{alone:.1f}", f"{beside:.1f}", _many(_ratios(results, percent), 2)])
    alone_s = median(round_.alone.calls_per_s for round_ in results.rounds)
    beside_s = median(round_.beside.calls_per_s for round_ in results.rounds)
    lines_s = median(round_.lines_per_s for round_ in results.rounds)
    rows.append(["calls/s", f"{alone_s:.0f}", f"{beside_s:.0f}", ""])
    rows.append(["lines/s", "0", f"{lines_s:.0f}", ""])
    return table(["", "alone", "beside", "ratio of each round"], rows, left=1)


def _ratios(results: Results, percent: float) -> list[float]:
    """A percentile beside the batch by that alone, of each round."""
    return [round_.beside.percentile_ms(percent) / round_.alone.percentile_ms(percent) for round_ in results.rounds]


def _second(results: Results) -> str:
    seconds = _many([round_.second.seconds for round_ in results.rounds], 2)
    before = _many([round_.second.checked_before for round_ in results.rounds], 0)
    return f"  first line started after {seconds} s from the POST; accepted before it: {before} of the large ones"


def _many(values: Sequence[float], digits: int) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)


PROGRAM = Program(
    module="bench.fairness",
    about="Live calls beside a batch; shares by weight.",
    title="Fairness of Waybill",
    plan=Plan(),
    quick=QUICK_PLAN,
    told=with_batch_unit,
    measured=measured,
    sections=sections,
    judged=judged,
)


if __name__ == "__main__":
    sys.exit(PROGRAM.main())
