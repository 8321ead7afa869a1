"""What becomes of a call whose attempt failed."""

from typing import Any

import pytest

from shared.settings import Settings
from shared.states import Outcome
from workers.provider import ProviderError
from workers.retry import LONGEST_WAIT_S, MOST_REFUSED, SoFar, after_failure, backoff_s, waits_out

SETTINGS = Settings(retry_backoff_s=1)


def after(error: dict[str, Any] | None = None, **at: Any):
    so_far = {
        "candidates": 2, "candidate": 0, "candidate_attempts": 0, "per_candidate": 3, "failures": 0,
        "deadline_in_s": 60, "on_unknown": "retry",
    }  # fmt: skip
    failed = ProviderError("provider_error", **{"outcome": Outcome.FAILED, "again": "same", **(error or {})})
    found = after_failure(SoFar(**{**so_far, **at}), failed, SETTINGS)
    return found.state, found.candidate, found.candidate_attempts


@pytest.mark.parametrize(
    ("at", "error", "expected"),
    [
        ({}, {}, ("pending", 0, 1)),
        ({"candidate_attempts": 1, "failures": 1}, {}, ("pending", 0, 2)),
        ({"candidate_attempts": 2, "failures": 2}, {}, ("pending", 1, 0)),
        ({"candidate": 1, "candidate_attempts": 2, "failures": 4}, {}, ("failed", 1, 3)),
        ({"candidate": 1, "candidate_attempts": 0, "failures": 5}, {}, ("failed", 1, 1)),
        ({}, {"again": "next"}, ("pending", 1, 0)),
        ({"candidate": 1}, {"again": "next"}, ("failed", 1, 1)),
        ({}, {"again": "never"}, ("failed", 0, 1)),
        ({"candidates": 1, "candidate_attempts": 2, "failures": 2}, {}, ("failed", 0, 3)),
        ({"deadline_in_s": 0.1}, {}, ("pending", 1, 0)),
        ({"deadline_in_s": 0.1, "candidates": 1}, {}, ("failed", 0, 1)),
        ({"deadline_in_s": 0}, {}, ("failed", 0, 1)),
        ({}, {"retry_after_s": 30}, ("pending", 0, 1)),
        ({}, {"retry_after_s": 90}, ("pending", 1, 0)),
        ({"candidates": 1}, {"retry_after_s": 90}, ("failed", 0, 1)),
        ({"on_unknown": "fail"}, {"outcome": Outcome.UNKNOWN}, ("failed", 0, 1)),
        ({"on_unknown": "fail"}, {}, ("pending", 0, 1)),
        ({}, {"outcome": Outcome.UNKNOWN}, ("pending", 0, 1)),
    ],
)
def test_the_next_step(at: dict[str, Any], error: dict[str, Any], expected: tuple[str, int, int]):
    assert after(error, **at) == expected


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [(1, [6]), (2, [5, 1]), (3, [4, 1, 1]), (6, [1] * 6), (9, [1] * 6 + [0] * 3)],
)
def test_however_often_one_candidate_is_tried_the_others_have_their_turn(candidates: int, expected: list[int]):
    attempts, candidate, tried = [0] * candidates, 0, 0
    for failures in range(10):
        attempts[candidate] += 1
        state, candidate, tried = after(
            candidates=candidates, candidate=candidate, candidate_attempts=tried, per_candidate=6, failures=failures
        )
        if state == "failed":
            break
    assert attempts == expected


@pytest.mark.parametrize(("tried", "middle"), [(1, 1), (2, 2), (3, 4)])
def test_the_pause_doubles_and_is_spread_by_a_fifth(tried: int, middle: float):
    pauses = {backoff_s(tried, None, 1) for _ in range(200)}
    assert middle * 0.8 <= min(pauses) < max(pauses) <= middle * 1.2
    assert max(pauses) - min(pauses) > middle * 0.1


def test_a_providers_retry_after_is_a_lower_bound():
    assert backoff_s(1, 30, 1) == 30
    assert backoff_s(3, 0.5, 1) >= 3.2


def waited(error: dict[str, Any] | None = None, *, tries: int = 1, **at: Any):
    """What a line does whose only candidate's rate limit refused it: its next try, None where that is a failure."""
    so_far = {
        "candidates": 1, "candidate": 0, "candidate_attempts": 2, "per_candidate": 3, "failures": 2,
        "deadline_in_s": 86_400, "on_unknown": "retry",
    }  # fmt: skip
    refused = ProviderError("provider_rate_limit", **{"outcome": Outcome.FAILED, "again": "same", **(error or {})})
    return waits_out(SoFar(**{**so_far, **at}), refused, SETTINGS, tries=tries)


def test_a_line_waits_a_rate_limit_out_without_losing_a_try():
    found = waited({"retry_after_s": 20})
    assert (found.state, found.candidate_attempts, found.is_failure) == ("pending", 2, False)
    assert found.retry_in_s == 20


def test_each_wait_is_longer_and_bounded():
    waits = [waited(tries=tries).retry_in_s for tries in (1, 3, 6, 49)]
    assert waits == sorted(waits)
    assert waits[1] > 2 * waits[0]
    assert waits[-1] == LONGEST_WAIT_S


@pytest.mark.parametrize(
    ("error", "at"),
    [
        ({}, {"tries": MOST_REFUSED}),
        ({}, {"candidates": 2}),
        ({"retry_after_s": 90}, {"deadline_in_s": 60}),
        ({"outcome": Outcome.UNKNOWN}, {"on_unknown": "fail"}),
        ({"again": "never"}, {}),
    ],
)
def test_a_line_does_not_wait_for_ever_nor_where_another_candidate_may_have_room(
    error: dict[str, Any], at: dict[str, Any]
):
    assert waited(error, **at) is None
