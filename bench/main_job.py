"""The main job beside its floor, on this machine, in one run.

python -m bench.main_job [--quick]
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from bench import machine, report
from bench.measure import Bench, Results
from bench.stack import BareLoop, Stack

CONCURRENCIES = (1, 16, 64)
ACCEPT_CONCURRENCY = 32


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long: each run of a round, the warm-up, and the single calls on an idle system."""

    workers: Sequence[int] = (1, 2)
    rounds: int = 3
    run_s: float = 2.5
    warm_s: float = 1.0
    single_calls: int = 100


QUICK = Plan(workers=(1,), run_s=0.5, warm_s=0.3, single_calls=30)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="bench.main_job", description="The main job beside a bare litellm loop.")
    parser.add_argument("--quick", action="store_true", help="short runs: a look, not a measurement")
    asked = parser.parse_args(argv)
    if sys.platform != "linux":
        print("bench: CPU by process is read from /proc; this needs Linux", file=sys.stderr)
        return 1
    plan, started, loaded = QUICK if asked.quick else Plan(), time.monotonic(), machine.load_average()
    stack = Stack()
    try:
        with asyncio.Runner() as runner:
            results, facts = runner.run(measured(stack, plan))
    finally:
        stack.remove()
    facts["load before"] = f"{loaded} runnable on average in the last minute and five minutes"
    facts["plan"] = (
        f"{plan.rounds} rounds of {plan.run_s:g} s each after a warm-up, {time.monotonic() - started:.0f} s in all"
    )
    print(text(results, facts, plan))
    return 0


async def measured(stack: Stack, plan: Plan) -> tuple[Results, dict[str, str]]:
    """All measurements; the product is started once for each number of workers."""
    results = Results()
    _progress("starting Waybill and the bare loop")
    await stack.start(plan.workers[0])
    await stack.make_team()
    urls = stack.facts
    facts = machine.facts(stack.home.path, urls["database_url"], urls["redis_url"])
    bare = await BareLoop.start(stack.provider_url)
    for workers in plan.workers:
        if workers != plan.workers[0]:
            await stack.stop()
            await stack.start(workers)
        bench = Bench(stack, bare, workers)
        await _rounds(bench, plan, results, workers)
        if workers == plan.workers[0]:
            _progress("single calls on an idle system")
            results.start_ms = await bench.start_ms(plan.single_calls)
    results.rss_mb = bench.rss_mb()
    _progress("accepting alone")
    await _accepts(bench, stack, plan, results)
    await bare.stop()
    return results, facts


async def _rounds(bench: Bench, plan: Plan, results: Results, workers: int) -> None:
    _progress(f"warming up, {workers} worker unit(s)")
    await bench.bare(CONCURRENCIES[1], plan.warm_s)
    await bench.whole(CONCURRENCIES[1], plan.warm_s)
    for round_ in range(plan.rounds):
        _progress(f"{workers} worker unit(s), round {round_ + 1} of {plan.rounds}")
        for concurrency in CONCURRENCIES:
            results.runs.append(await bench.bare(concurrency, plan.run_s, round_))
            results.runs.append(await bench.whole(concurrency, plan.run_s, round_))


async def _accepts(bench: Bench, stack: Stack, plan: Plan, results: Results) -> None:
    """The last measurement: nobody works off what it leaves behind."""
    stack.freeze_work()
    await bench.accept(ACCEPT_CONCURRENCY, plan.warm_s)
    for round_ in range(plan.rounds):
        results.runs.append(await bench.accept(ACCEPT_CONCURRENCY, plan.run_s, round_))


def text(results: Results, facts: dict[str, str], plan: Plan) -> str:
    """The whole report."""
    others = report.others_percent(results, os.cpu_count() or 1)
    facts["others"] = f"programs outside the benchmark used {others:.0f} % of the machine while it was measured"
    look = ", --quick: a look, not a measurement" if plan is QUICK else ""
    head = [f"Waybill's main job, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC{look}", ""]
    head += [f"  {name:<12}{fact}" for name, fact in facts.items()]
    return "\n".join([*head, *(f"\n{title}\n{body}" for title, body in _sections(results, plan).items())])


def _sections(results: Results, plan: Plan) -> dict[str, str]:
    every = (results, plan.workers, CONCURRENCIES)
    return {
        "1. The floor: bare litellm.acompletion, one process, provider at 0 ms": report.floor(*every),
        "2. The whole path: POST /api/jobs/{id}/llm-call until its answer, beside the bare loop of the same round": (
            report.whole(*every)
        ),
        "3. Accept only: POST /api/jobs/create with one call, respond-async; workers and timer stopped": (
            report.accepted(results, plan.workers[-1], ACCEPT_CONCURRENCY)
        ),
        "4. CPU of the whole path by process; Waybill's own: api to Valkey, less the bare loop": (
            report.cpu_by_part(*every)
        ),
        "   Resident memory after the rounds": report.memory(results),
        "5. Start on an idle system, one worker unit: from a call's arrival at the api to its claim": (
            report.start(results)
        ),
    }


def _progress(what: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
