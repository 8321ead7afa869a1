"""What all benchmarks of a whole Waybill are: options, a stack that is removed whatever happens, and a report."""

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, Protocol, TypeVar

from bench import goals, machine
from bench.goals import Judged
from bench.stack import Stack
from bench.usage import Measured, others_percent


class Rounds(Protocol):
    """What every plan says."""

    @property
    def rounds(self) -> int:
        """How often everything is measured."""


Plan = TypeVar("Plan", bound=Rounds)
Results = TypeVar("Results")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line says: at most one of the two."""

    quick: bool
    check: bool

    @classmethod
    def parsed(cls, argv: Sequence[str] | None, *, module: str, about: str) -> "Options":
        """Ends the program with a message when it cannot be read."""
        parser = argparse.ArgumentParser(prog=module, description=about)
        one = parser.add_mutually_exclusive_group()
        one.add_argument("--quick", action="store_true", help="short runs: a look, not a measurement")
        one.add_argument("--check", action="store_true", help="end with 1 when the median misses a goal")
        return cls(**vars(parser.parse_args(argv)))


def with_one_unit(plan: Rounds) -> str:
    """The plan of most benchmarks in words."""
    return f"{plan.rounds} rounds, one api, one worker unit"


def with_batch_unit(plan: Rounds) -> str:
    """The plan of those that have batches."""
    return f"{with_one_unit(plan)}, one batch unit"


@dataclass(frozen=True, kw_only=True)
class Program(Generic[Plan, Results]):
    """One benchmark; its fields are what it measures.

    plan, quick: how much of it, and how much with --quick. told: the same in words. measured: all of it, on a stack
    that it starts. sections: the report's, by title. judged: its goals. runs: what was measured while other programs
    were looked at; without it the report does not speak of them.
    """

    module: str
    about: str
    title: str
    plan: Plan
    quick: Plan
    told: Callable[[Plan], str] = with_one_unit
    measured: Callable[[Stack, Plan], Awaitable[Results]]
    sections: Callable[[Results, Plan], Mapping[str, str]]
    judged: Callable[[Results, Plan], Sequence[Judged]]
    runs: Callable[[Results], Sequence[Measured]] | None = None

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Measure and print; returns the exit code, which says nothing of the goals without --check."""
        options = Options.parsed(argv, module=self.module, about=self.about)
        if sys.platform != "linux":
            print("bench: CPU and memory of processes are read from /proc; this needs Linux", file=sys.stderr)
            return 1
        plan, started, loaded = self.quick if options.quick else self.plan, time.monotonic(), machine.load_average()
        stack = Stack()
        try:
            with asyncio.Runner() as runner:
                results, facts = runner.run(self._measured(stack, plan))
        finally:
            stack.remove()
        facts["load before"] = f"{loaded} runnable on average in the last minute and five minutes"
        facts["plan"] = f"{self.told(plan)}, {time.monotonic() - started:.0f} s in all"
        return self.report(results, plan, facts, options)

    def report(self, results: Results, plan: Plan, facts: dict[str, str], options: Options) -> int:
        """Print what was measured under these facts; returns the exit code."""
        if self.runs is not None:
            used = others_percent(self.runs(results))
            facts["others"] = f"programs outside the benchmark used {used:.0f} % of the machine while it was measured"
        judged = self.judged(results, plan)
        print(self._text(facts, {**self.sections(results, plan), **goals.section(judged)}, quick=options.quick))
        return goals.exit_code(judged) if options.check else 0

    async def _measured(self, stack: Stack, plan: Plan) -> tuple[Results, dict[str, str]]:
        progress("starting Waybill")
        results = await self.measured(stack, plan)
        return results, machine.facts(stack.home.path, stack.facts["database_url"], stack.facts["redis_url"])

    def _text(self, facts: Mapping[str, str], sections: Mapping[str, str], *, quick: bool) -> str:
        look = ", --quick: a look, not a measurement" if quick else ""
        head = [f"{self.title}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC{look}", ""]
        head += [f"  {name:<12}{fact}" for name, fact in facts.items()]
        return "\n".join([*head, *(f"\n{title}\n{body}" for title, body in sections.items())])


def progress(what: str) -> None:
    """Tell whoever waits what is measured now."""
    print(f"{datetime.now(UTC):%H:%M:%S} {what}", file=sys.stderr, flush=True)
