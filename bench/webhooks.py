"""Webhooks of a whole Waybill to local receivers, on this machine: deliveries per second, lateness, bad neighbours.

python -m bench.webhooks [--quick]
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median

from bench import machine
from bench.loop import percentile
from bench.report import table
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

GOAL_PER_S = 500
GOAL_P95_MS = 1000
GOAL_RISE = 1.10
PARTS = {
    "worker": "worker unit",
    "timer": "timer",
    "postgres": "Postgres",
    "valkey": "Valkey",
    "receivers": "receivers",
    "load": "load generator",
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """per_s: deliveries to healthy endpoints in the even runs."""

    rounds: int = 5
    burst_events: int = 2500
    per_s: float = 250.0
    steady_s: float = 20.0
    bare_s: float = 3.0


LOOK = Plan(rounds=1, burst_events=750, steady_s=8.0, bare_s=1.0)
BARE_CLIENTS = 32


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench.webhooks", description="Webhooks to local receivers.")
    parser.add_argument("--quick", action="store_true", help="short runs: a look, not a measurement")
    asked = parser.parse_args(argv)
    if sys.platform != "linux":
        print("bench: CPU by process is read from /proc; this needs Linux", file=sys.stderr)
        return 1
    plan, started, loaded = LOOK if asked.quick else Plan(), time.monotonic(), machine.load_average()
    stack = Stack()
    try:
        with asyncio.Runner() as runner:
            results, facts = runner.run(measured(stack, plan))
    finally:
        stack.remove()
    facts["load before"] = f"{loaded} runnable on average in the last minute and five minutes"
    facts["plan"] = f"{plan.rounds} rounds, one api, one worker unit, {time.monotonic() - started:.0f} s in all"
    print(text(results, facts, plan, quick=asked.quick))
    return 0


async def measured(stack: Stack, plan: Plan) -> tuple[WebhookResults, dict[str, str]]:
    """All measurements, on one worker unit."""
    _progress("starting Waybill and the receivers")
    await stack.start(workers=1)
    urls, size, results = stack.facts, Size(), WebhookResults()
    facts = machine.facts(stack.home.path, urls["database_url"], urls["redis_url"])
    receivers = await Receivers.start()
    await make_endpoints(stack, receivers.port, size)
    db, bell = Database(urls["database_url"], pool=2, name="waybill-bench"), Bell(urls["redis_url"])
    await bell.open()
    bench = WebhookBench(stack, receivers, size, db, bell)
    _progress("warming up")
    await bench.burst(200, 0)
    for round_ in range(plan.rounds):
        _progress(f"round {round_ + 1} of {plan.rounds}")
        results.bare.append(await bench.bare(BARE_CLIENTS, plan.bare_s))
        results.runs.append(await bench.burst(plan.burst_events, round_))
        results.runs.append(await bench.steady(EVEN, plan.per_s, plan.steady_s, round_))
        results.runs.append(await bench.steady(MIXED, plan.per_s, plan.steady_s, round_))
    await bell.close()
    await db.close()
    await receivers.stop()
    return results, facts


def text(results: WebhookResults, facts: dict[str, str], plan: Plan, *, quick: bool) -> str:
    """The whole report."""
    available_ms = sum(run.wall_s for run in results.runs) * 1000 * (os.cpu_count() or 1)
    others = 100 * sum(run.cpu.others for run in results.runs) / available_ms
    facts["others"] = f"programs outside the benchmark used {others:.0f} % of the machine while it was measured"
    look = ", --quick: a look, not a measurement" if quick else ""
    head = [f"Waybill's webhooks, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC{look}", ""]
    head += [f"  {name:<12}{fact}" for name, fact in facts.items()]
    sections = {
        f"1. {plan.burst_events * Size().healthy} deliveries at once (goal {GOAL_PER_S}/s)": _speed(results),
        f"2. First attempts at {plan.per_s:.0f} deliveries a second, since the fact (goal: p95 < {GOAL_P95_MS} ms),"
        f" and beside 10 dead and 10 slow endpoints (goal: p95 x < {GOAL_RISE})": _lateness(results),
        "3. CPU ms per delivery": _cpu(results),
    }
    return "\n".join([*head, *(f"\n{title}\n{body}" for title, body in sections.items())])


def _speed(results: WebhookResults) -> str:
    runs = results.of("burst")
    ratios = [run.per_s / bare.calls_per_s for run, bare in zip(runs, results.bare, strict=True)]
    row = [f"{median(run.per_s for run in runs):.0f}", _spread([run.per_s for run in runs], 0), *_lost(runs)]
    bare = f"{median(bare.calls_per_s for bare in results.bare):.0f}"
    head = ["deliveries/s", "(rounds)", "missing", "twice", "bare posts/s", "ratio", "(rounds)"]
    return table(head, [[*row, bare, f"{median(ratios):.2f}", _spread(ratios, 2)]])


def _lateness(results: WebhookResults) -> str:
    quiet, mixed = results.of(EVEN), results.of(MIXED)
    rows = []
    for name, runs in (("all answer at once", quiet), ("ten dead, ten slow", mixed)):
        all_ms = [late for run in runs for late in run.latencies_ms]
        shown = [f"{percentile(all_ms, percent):.1f}" for percent in (50, 95, 99, 100)]
        rises = [run.ms(95) / floor.ms(95) for run, floor in zip(runs, quiet, strict=True)]
        rows.append([name, f"{len(all_ms)}", *shown, *_lost(runs), f"{median(rises):.2f}", _spread(rises, 2)])
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


def _spread(values: Sequence[float], digits: int) -> str:
    return f"{min(values):.{digits}f}-{max(values):.{digits}f}"


def _progress(what: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
