"""The main job beside its floor, on this machine, in one run.

python -m bench.main_job [--quick | --check]
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from bench import report
from bench.goals import BUDGET, Goal, Judged
from bench.loop import percentile
from bench.measure import ACCEPT, Bench, Results
from bench.program import Program, progress
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


QUICK_PLAN = Plan(workers=(1,), run_s=0.5, warm_s=0.3, single_calls=30)

ACCEPTED = Goal(what="accepted at c=32", unit="/s", bound=1500, source=BUDGET, at_least=True)
ACCEPTED_P99 = Goal(what="p99 of an accept at c=32", unit="ms", bound=50, source=BUDGET)
START_P50 = Goal(what="p50 of the start of a single call", unit="ms", bound=5, source=BUDGET)
START_P99 = Goal(what="p99 of the start of a single call", unit="ms", bound=25, source=BUDGET)
ADDED_P50 = Goal(what="added p50 at c=1, one worker unit", unit="ms", bound=10, source=BUDGET)
ADDED_P99 = Goal(what="added p99 at c=16, one worker unit", unit="ms", bound=25, source=BUDGET)
OWN_CPU = Goal(what="Waybill's own CPU of a call at c=64, one worker unit", unit="ms", bound=1.5, source=BUDGET)
API_RSS = Goal(what="resident memory of the api", unit="MB", bound=120, source=BUDGET)
UNIT_RSS = Goal(what="resident memory of a worker unit", unit="MB", bound=350, source=BUDGET)


def beside_bare(workers: int) -> Goal:
    """Calls a second by those of bare litellm, with so many worker units and the most clients."""
    what = f"whole path by bare litellm at c=64, {workers} worker unit(s)"
    return Goal(what=what, unit="x", bound=0.75, source=BUDGET, at_least=True)


async def measured(stack: Stack, plan: Plan) -> Results:
    """All measurements; the product is started once for each number of workers."""
    results = Results()
    await stack.start(plan.workers[0])
    await stack.make_team()
    bare = await BareLoop.start(stack.provider_url)
    for workers in plan.workers:
        if workers != plan.workers[0]:
            await stack.stop()
            await stack.start(workers)
        bench = Bench(stack, bare, workers)
        await _rounds(bench, plan, results, workers)
        if workers == plan.workers[0]:
            progress("single calls on an idle system")
            results.start_ms = await bench.start_ms(plan.single_calls)
    results.rss_mb = bench.rss_mb()
    progress("accepting alone")
    await _accepts(bench, stack, plan, results)
    await bare.stop()
    return results


async def _rounds(bench: Bench, plan: Plan, results: Results, workers: int) -> None:
    progress(f"warming up, {workers} worker unit(s)")
    await bench.bare(CONCURRENCIES[1], plan.warm_s)
    await bench.whole(CONCURRENCIES[1], plan.warm_s)
    for round_ in range(plan.rounds):
        progress(f"{workers} worker unit(s), round {round_ + 1} of {plan.rounds}")
        for concurrency in CONCURRENCIES:
            results.runs.append(await bench.bare(concurrency, plan.run_s, round_))
            results.runs.append(await bench.whole(concurrency, plan.run_s, round_))


async def _accepts(bench: Bench, stack: Stack, plan: Plan, results: Results) -> None:
    """The last measurement: nobody works off what it leaves behind."""
    stack.freeze_work()
    await bench.accept(ACCEPT_CONCURRENCY, plan.warm_s)
    for round_ in range(plan.rounds):
        results.runs.append(await bench.accept(ACCEPT_CONCURRENCY, plan.run_s, round_))


def sections(results: Results, plan: Plan) -> dict[str, str]:
    """Of the report."""
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


def judged(results: Results, plan: Plan) -> list[Judged]:
    """Speed with the most clients, waiting with few."""
    one, most = plan.workers[0], CONCURRENCIES[-1]
    accepts = results.of(ACCEPT, plan.workers[-1], ACCEPT_CONCURRENCY)
    units = [megabytes for name, megabytes in results.rss_mb.items() if name != "api"]
    return [
        ACCEPTED.of(*map(report.speed, accepts)),
        ACCEPTED_P99.of(*map(report.p99, accepts)),
        START_P50.of(percentile(results.start_ms, 50)),
        START_P99.of(percentile(results.start_ms, 99)),
        *(beside_bare(count).of(*report.ratios(results, count, most)) for count in plan.workers),
        ADDED_P50.of(*report.added_ms(results, one, CONCURRENCIES[0], report.p50)),
        ADDED_P99.of(*report.added_ms(results, one, CONCURRENCIES[1], report.p99)),
        OWN_CPU.of(*report.own_cpu_ms(results, one, most)),
        API_RSS.of(results.rss_mb["api"]),
        UNIT_RSS.of(max(units)),
    ]


PROGRAM = Program(
    module="bench.main_job",
    about="The main job beside a bare litellm loop.",
    title="Waybill's main job",
    plan=Plan(),
    quick=QUICK_PLAN,
    told=lambda plan: f"{plan.rounds} rounds of {plan.run_s:g} s each after a warm-up",
    measured=measured,
    sections=sections,
    judged=judged,
    runs=lambda results: results.runs,
)


if __name__ == "__main__":
    sys.exit(PROGRAM.main())
