"""What numbers have to be: each goal is declared once, printed as met or missed, and asked for by --check."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.report import table

BUDGET = "budget"
"""Set for each stage of the main path before there was any code: two cores with everything on them."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A bound for one number, which the median of the rounds has to keep.

    what: names the number. bound: the worst that is met, in `unit`: the least with at_least, else the most.
    source: BUDGET, or the feature that it was set for.
    """

    what: str
    unit: str
    bound: float
    source: str
    at_least: bool = False

    def of(self, *values: float) -> "Judged":
        """What was measured: one value of each round, or one of all rounds together."""
        return Judged(goal=self, values=values)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A goal and its values, of which there is at least one."""

    goal: Goal
    values: Sequence[float]

    @property
    def median(self) -> float:
        """The value that counts."""
        return median(self.values)

    @property
    def worst(self) -> float:
        """That of the worst round."""
        return min(self.values) if self.goal.at_least else max(self.values)

    @property
    def is_met(self) -> bool:
        """Whether the median keeps the bound; what is not a number does not."""
        return self.median >= self.goal.bound if self.goal.at_least else self.median <= self.goal.bound

    @property
    def beyond(self) -> float:
        """How far the worst round is beyond the bound, in its unit; below 0: how much was left."""
        return self.goal.bound - self.worst if self.goal.at_least else self.worst - self.goal.bound


def section(judged: Sequence[Judged]) -> dict[str, str]:
    """Of the report, by its title."""
    met = sum(each.is_met for each in judged)
    rows = [
        [
            each.goal.what,
            each.goal.source,
            _bound(each.goal),
            each.goal.unit,
            _figure(each.median),
            "met" if each.is_met else "MISSED",
            _figure(each.worst),
            _distance(each),
        ]
        for each in judged
    ]
    head = ["goal", "set for", "bound", "unit", "median", "", "worst round", "from the bound"]
    return {f"Goals: the median meets {met} of {len(judged)}": table(head, rows, left=2)}


def missed(judged: Sequence[Judged]) -> list[str]:
    """A sentence for each goal that the median misses."""
    return [
        f"missed: {each.goal.what}: median {_figure(each.median)} {each.goal.unit}, goal {_bound(each.goal)};"
        f" the worst round, {_figure(each.worst)} {each.goal.unit}, is {_distance(each)}"
        for each in judged
        if not each.is_met
    ]


def exit_code(judged: Sequence[Judged]) -> int:
    """1 when a median misses its goal, and which on stderr."""
    found = missed(judged)
    for sentence in found:
        print(sentence, file=sys.stderr)
    return 1 if found else 0


def _bound(goal: Goal) -> str:
    return f"{'>=' if goal.at_least else '<='} {goal.bound:g}"


def _distance(judged: Judged) -> str:
    """In percent of the bound where that can be said, else in its unit."""
    side = "within" if judged.beyond <= 0 else "beyond"
    if judged.goal.bound == 0:
        return f"{_figure(abs(judged.beyond))} {judged.goal.unit} {side}"
    return f"{100 * abs(judged.beyond) / judged.goal.bound:.0f} % {side}"


def _figure(value: float) -> str:
    """Three digits, or all that stand before the point; a count without any behind it."""
    if float(value).is_integer():
        return f"{value:.0f}"
    return f"{value:.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f}"
