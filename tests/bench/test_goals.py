"""A benchmark says no when the median of its rounds is beyond a goal, and names the goal and its worst round."""

import math
from dataclasses import dataclass
from statistics import StatisticsError

import pytest

from bench import goals
from bench.goals import Goal
from bench.program import Options, Program

SPEED = Goal(what="accepted", unit="/s", bound=1500, source="budget", at_least=True)
TIME = Goal(what="cancelled", unit="s", bound=5, source="batches")
LOST = Goal(what="lost", unit="deliveries", bound=0, source="webhooks")


@pytest.mark.parametrize(
    ("goal", "values", "is_met"),
    [
        (TIME, (1, 5, 9), True),
        (TIME, (1, 5.001, 9), False),
        (SPEED, (900, 1500, 1600), True),
        (SPEED, (900, 1499, 1600), False),
        (LOST, (0,), True),
        (LOST, (1,), False),
        (TIME, (math.nan,), False),
        (SPEED, (math.nan,), False),
    ],
)
def test_median_decides(goal: Goal, values: tuple[float, ...], is_met: bool):
    assert goal.of(*values).is_met is is_met


def test_goal_without_a_value_is_no_goal_met():
    with pytest.raises(StatisticsError):
        goals.missed([TIME.of()])


def test_worst_round_is_the_one_furthest_beyond_the_bound():
    assert (TIME.of(4, 4.5, 6).worst, TIME.of(4, 4.5, 6).beyond) == (6, 1)
    assert (SPEED.of(1600, 900, 1700).worst, SPEED.of(1600, 900, 1700).beyond) == (900, 600)
    assert TIME.of(1, 2).beyond == -3


def test_report_shows_every_goal_with_its_verdict():
    [(title, text)] = goals.section([SPEED.of(381, 428, 448), TIME.of(4.51, 4.59, 4.99), LOST.of(3)]).items()

    _, speed, time, lost = (" ".join(line.split()) for line in text.splitlines())
    assert title.endswith("meets 1 of 3")
    assert speed == "accepted budget >= 1500 /s 428 MISSED 381 75 % beyond"
    assert time == "cancelled batches <= 5 s 4.59 met 4.99 0 % within"
    assert lost == "lost webhooks <= 0 deliveries 3 MISSED 3 3 deliveries beyond"


def test_exit_code_is_1_for_a_goal_missed_and_stderr_names_it(capsys: pytest.CaptureFixture[str]):
    assert goals.exit_code([TIME.of(4), SPEED.of(1600)]) == 0
    assert goals.exit_code([TIME.of(4), SPEED.of(381, 428, 448)]) == 1
    assert capsys.readouterr().err == (
        "missed: accepted: median 428 /s, goal >= 1500; the worst round, 381 /s, is 75 % beyond\n"
    )


@dataclass(frozen=True)
class Rounds:
    rounds: int = 1


async def nothing(_: object, __: Rounds) -> float:
    return 0.0


PROGRAM = Program(
    module="bench.none",
    about="",
    title="",
    plan=Rounds(),
    quick=Rounds(),
    measured=nothing,
    sections=lambda _, __: {},
    judged=lambda seconds, _: [TIME.of(seconds)],
)


def test_report_fails_the_program_with_check_only(capsys: pytest.CaptureFixture[str]):
    check, look = Options(quick=False, check=True), Options(quick=False, check=False)

    assert [PROGRAM.report(seconds, Rounds(), {}, check) for seconds in (5.0, 6.0)] == [0, 1]
    assert PROGRAM.report(6.0, Rounds(), {}, look) == 0
    assert capsys.readouterr().out.count("MISSED") == 2


def test_look_cannot_be_checked(capsys: pytest.CaptureFixture[str]):
    assert Options.parsed(["--check"], module="bench", about="").check
    with pytest.raises(SystemExit):
        Options.parsed(["--quick", "--check"], module="bench", about="")
    assert "not allowed with" in capsys.readouterr().err
