"""The main job beside its floor, on this machine, in one run.

python -m bench.main_job [--quick]
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from bench import report
from bench.measure import Bench, Results
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


QUICK = Plan(workers=(1,), run_s=0.5, warm_s=0.3, single_calls=30)


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


PROGRAM = Program(
    module="bench.main_job",
    about="The main job beside a bare litellm loop.",
    title="Waybill's main job",
    plan=Plan(),
    look=QUICK,
    told=lambda plan: f"{plan.rounds} rounds of {plan.run_s:g} s each after a warm-up",
    measured=measured,
    sections=sections,
    runs=lambda results: results.runs,
)


if __name__ == "__main__":
    sys.exit(PROGRAM.main())
