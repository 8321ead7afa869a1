"""Webhooks of a whole Waybill to local receivers, on this machine: deliveries per second, lateness, bad neighbours.

python -m bench.webhooks [--quick | --check]
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench import report
from bench.goals import BUDGET, Goal, Judged
from bench.loop import percentile
from bench.program import Program, progress
from bench.report import spread, table
from bench.stack import Stack
from bench.webhook_measure import (
    EVEN,
    MIXED,
    Receivers,
    Size,
    WebhookBench,
    WebhookResults,
    WebhookRun,
    make_endpoints,
)
from shared.db import Database
from shared.queue import Bell

SOURCE = "webhooks"
PER_S = Goal(what="deliveries at once", unit="/s", bound=500, source=BUDGET, at_least=True)
P95 = Goal(what="p95 of the first attempt since the fact, even", unit="ms", bound=1000, source=SOURCE)
RISE = Goal(what="p95 beside dead and slow endpoints by that of the round", unit="x", bound=1.1, source=SOURCE)
MISSING = Goal(what="deliveries that never came", unit="deliveries", bound=0, source=SOURCE)
PARTS = {"worker": "worker unit", "receivers": "receivers"} | {
    part: report.PARTS[part] for part in ("timer", "postgres", "valkey", "load")
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """per_s: deliveries to healthy endpoints in the even runs."""

    rounds: int = 5
    burst_events: int = 2500
    per_s: float = 250.0
    steady_s: float = 20.0
    bare_s: float = 3.0


QUICK_PLAN = Plan(rounds=1, burst_events=750, steady_s=8.0, bare_s=1.0)
BARE_CLIENTS = 32


async def measured(stack: Stack, plan: Plan) -> WebhookResults:
    """All measurements, on one worker unit."""
    await stack.start(workers=1)
    urls, size, results = stack.facts, Size(), WebhookResults()
    receivers = await Receivers.start()
    await make_endpoints(stack, receivers.port, size)
    db, bell = Database(urls["database_url"], pool=2, name="waybill-bench"), Bell(urls["redis_url"])
    await bell.open()
    bench = WebhookBench(stack, receivers, size, db, bell)
    progress("warming up")
    await bench.burst(200, 0)
    for round_ in range(plan.rounds):
        progress(f"round {round_ + 1} of {plan.rounds}")
        results.bare.append(await bench.bare(BARE_CLIENTS, plan.bare_s))
        results.runs.append(await bench.burst(plan.burst_events, round_))
        results.runs.append(await bench.steady(EVEN, plan.per_s, plan.steady_s, round_))
        results.runs.append(await bench.steady(MIXED, plan.per_s, plan.steady_s, round_))
    await bell.close()
    await db.close()
    await receivers.stop()
    return results


def sections(results: WebhookResults, plan: Plan) -> dict[str, str]:
    """Of the report."""
    return {
        f"1. {plan.burst_events * Size().healthy} deliveries at once": _speed(results),
        f"2. First attempts at {plan.per_s:.0f} deliveries a second, since the fact,"
        f" and beside 10 dead and 10 slow endpoints": _lateness(results),
        "3. CPU ms per delivery": _cpu(results),
    }


def judged(results: WebhookResults, _: Plan) -> list[Judged]:
    """Speed, lateness, what bad neighbours do to it; that nothing is lost, in any run."""
    quiet, mixed = results.of(EVEN), results.of(MIXED)
    return [
        PER_S.of(*(run.per_s for run in results.of("burst"))),
        P95.of(*(run.ms(95) for run in quiet)),
        RISE.of(*_rises(mixed, quiet)),
        MISSING.of(sum(run.missing for run in results.runs)),
    ]


def _speed(results: WebhookResults) -> str:
    runs = results.of("burst")
    ratios = [run.per_s / bare.calls_per_s for run, bare in zip(runs, results.bare, strict=True)]
    row = [f"{median(run.per_s for run in runs):.0f}", spread(run.per_s for run in runs), *_lost(runs)]
    bare = f"{median(bare.calls_per_s for bare in results.bare):.0f}"
    head = ["deliveries/s", "(rounds)", "missing", "twice", "bare posts/s", "ratio", "(rounds)"]
    return table(head, [[*row, bare, f"{median(ratios):.2f}", spread(ratios, 2)]])


def _lateness(results: WebhookResults) -> str:
    quiet, mixed = results.of(EVEN), results.of(MIXED)
    rows = []
    for name, runs in (("all answer at once", quiet), ("ten dead, ten slow", mixed)):
        all_ms = [late for run in runs for late in run.latencies_ms]
        shown = [f"{percentile(all_ms, percent):.1f}" for percent in (50, 95, 99, 100)]
        rises = _rises(runs, quiet)
        rows.append([name, f"{len(all_ms)}", *shown, *_lost(runs), f"{median(rises):.2f}", spread(rises, 2)])
    head = ["endpoints", "deliveries", "p50 ms", "p95 ms", "p99 ms", "max ms", "missing", "twice", "p95 x", "(rounds)"]
    return table(head, rows, left=1)


def _cpu(results: WebhookResults) -> str:
    kinds = ("burst", EVEN, MIXED)
    rows = [[name, *(f"{_ms_each(results.of(kind), part):.2f}" for kind in kinds)] for part, name in PARTS.items()]
    return table(["part", "at once", "even", "with dead and slow"], rows, left=1)


def _ms_each(runs: Sequence[WebhookRun], part: str) -> float:
    return median(run.cpu.parts[part] / max(1, len(run.latencies_ms)) for run in runs)


def _lost(runs: Sequence[WebhookRun]) -> list[str]:
    return [f"{sum(run.missing for run in runs)}", f"{sum(run.repeated for run in runs)}"]


def _rises(runs: Sequence[WebhookRun], quiet: Sequence[WebhookRun]) -> list[float]:
    """p95 by that of the quiet run of the same round."""
    return [run.ms(95) / floor.ms(95) for run, floor in zip(runs, quiet, strict=True)]


PROGRAM = Program(
    module="bench.webhooks",
    about="Webhooks to local receivers.",
    title="Waybill's webhooks",
    plan=Plan(),
    quick=QUICK_PLAN,
    measured=measured,
    sections=sections,
    judged=judged,
    runs=lambda results: results.runs,
)


if __name__ == "__main__":
    sys.exit(PROGRAM.main())
