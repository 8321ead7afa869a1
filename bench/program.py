"""What all benchmarks of a whole Waybill are: options, a stack that is removed whatever happens, and a report."""

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

from bench import machine
from bench.stack import Stack
from bench.usage import Measured, others_percent

Plan = TypeVar("Plan")
Results = TypeVar("Results")


@dataclass(frozen=True, kw_only=True)
class Program(Generic[Plan, Results]):
    """One benchmark; its fields are what it measures.

    plan, look: how much of it, and how much with --quick. told: the same in words. measured: all of it, on a stack
    that it starts. sections: the report's, by title. runs: what was measured while other programs were looked at;
    without it the report does not speak of them.
    """

    module: str
    about: str
    title: str
    plan: Plan
    look: Plan
    told: Callable[[Plan], str]
    measured: Callable[[Stack, Plan], Awaitable[Results]]
    sections: Callable[[Results, Plan], Mapping[str, str]]
    runs: Callable[[Results], Sequence[Measured]] | None = None

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Measure and print; returns the exit code."""
        parser = argparse.ArgumentParser(prog=self.module, description=self.about)
        parser.add_argument("--quick", action="store_true", help="short runs: a look, not a measurement")
        quick = parser.parse_args(argv).quick
        if sys.platform != "linux":
            print("bench: CPU and memory of processes are read from /proc; this needs Linux", file=sys.stderr)
            return 1
        plan, started, loaded = self.look if quick else self.plan, time.monotonic(), machine.load_average()
        stack = Stack()
        try:
            with asyncio.Runner() as runner:
                results, facts = runner.run(self._measured(stack, plan))
        finally:
            stack.remove()
        facts["load before"] = f"{loaded} runnable on average in the last minute and five minutes"
        facts["plan"] = f"{self.told(plan)}, {time.monotonic() - started:.0f} s in all"
        if self.runs is not None:
            used = others_percent(self.runs(results))
            facts["others"] = f"programs outside the benchmark used {used:.0f} % of the machine while it was measured"
        print(self._text(facts, self.sections(results, plan), quick=quick))
        return 0

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
