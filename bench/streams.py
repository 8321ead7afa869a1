"""Streams through Waybill beside bare litellm streams, on this machine, in one run.

python -m bench.streams [--quick | --check]
"""

import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from bench import stream_report
from bench.program import Program, progress
from bench.stack import BareLoop, Stack
from bench.stream_measure import StreamBench, StreamResults
from bench.stream_provider import Provider, make_alias
from bench.stream_question import PACED, QUICK, SHORT
from bench.stream_report import Case


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long each run of a round lasts, and how many streams are open at the end."""

    rounds: int = 3
    short_s: float = 6.0
    paced_s: float = 8.0
    quick_s: float = 4.0
    warm_s: float = 1.5
    idle_s: float = 5.0
    open_streams: int = 500

    def runs(self) -> Sequence[tuple[Case, float]]:
        """What is run in each round, in this order, bare and whole in turn."""
        return (
            ((SHORT, 1), self.short_s),
            ((PACED, 1), self.paced_s),
            ((PACED, 16), self.paced_s),
            ((QUICK, 1), self.quick_s),
            ((QUICK, 16), self.quick_s),
        )


QUICK_PLAN = Plan(rounds=1, short_s=2.0, paced_s=2.0, quick_s=1.0, warm_s=0.5, open_streams=100)
FIRST: Sequence[Case] = ((SHORT, 1), (PACED, 1), (PACED, 16), (QUICK, 1), (QUICK, 16))
AGES: Sequence[Case] = ((SHORT, 1), (PACED, 1), (PACED, 16))
SPEEDS: Sequence[Case] = ((QUICK, 1), (QUICK, 16))
CPU: Sequence[Case] = ((PACED, 1), (PACED, 16), (QUICK, 1), (QUICK, 16))


async def measured(stack: Stack, plan: Plan) -> StreamResults:
    """All measurements, on one api process and one worker unit."""
    _raise_file_limit()
    results = StreamResults()
    await stack.start(workers=1)
    await stack.make_team()
    provider = Provider(stack)
    try:
        await provider.teach()
        await make_alias(stack, provider.url)
        bare = await BareLoop.start(provider.url)
        bench = StreamBench(stack, bare, provider)
        await _rounds(bench, plan, results)
        results.idle_ms = await bench.idle_ms(plan.idle_s)
        progress(f"{plan.open_streams} streams at once")
        results.open = await bench.open(plan.open_streams)
        await bare.stop()
    finally:
        provider.stop()
    return results


async def _rounds(bench: StreamBench, plan: Plan, results: StreamResults) -> None:
    progress("warming up")
    await bench.bare(QUICK, 16, plan.warm_s)
    await bench.whole(QUICK, 16, plan.warm_s)
    for round_ in range(plan.rounds):
        progress(f"round {round_ + 1} of {plan.rounds}")
        for (kind, concurrency), seconds in plan.runs():
            results.runs.append(await bench.bare(kind, concurrency, seconds, round_))
            results.runs.append(await bench.whole(kind, concurrency, seconds, round_))


def sections(results: StreamResults, _: Plan) -> dict[str, str]:
    """Of the report."""
    told = {
        "1. From the request to the first word: POST /v1/chat/completions beside litellm, straight to the provider": (
            stream_report.first_words(results, FIRST)
        ),
        "2. Age of a chunk when it is read, since the provider sent it": stream_report.ages(results, AGES),
        "3. Chunks per second, beside the bare loop of the same round": stream_report.speeds(results, SPEEDS),
        "4. CPU per stream of 100 chunks": stream_report.cpu_by_part(results, CPU),
    }
    if results.open is not None:
        told["5. Many streams open on one api process"] = stream_report.open_streams(results.open)
    return told


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


PROGRAM = Program(
    module="bench.streams",
    about="Streams beside bare litellm streams.",
    title="Waybill's streams",
    plan=Plan(),
    quick=QUICK_PLAN,
    measured=measured,
    sections=sections,
    judged=lambda results, _: stream_report.judged(results, AGES, CPU),
    runs=lambda results: results.runs,
)


if __name__ == "__main__":
    sys.exit(PROGRAM.main())
