"""What becomes of a call whose attempt failed."""

from typing import Any

import pytest

from shared.settings import Settings
from shared.states import Outcome
from workers.provider import ProviderError
from workers.retry import Standing, after_failure, backoff_s

SETTINGS = Settings(retry_backoff_s=1)


def after(error: dict[str, Any] | None = None, **at: Any):
    standing = {
        "candidates": 2, "candidate": 0, "candidate_attempts": 0, "per_candidate": 3, "failures": 0,
        "deadline_in_s": 60, "on_unknown": "retry",
    }  # fmt: skip
    failed = ProviderError("provider_error", **{"outcome": Outcome.FAILED, "again": "same", **(error or {})})
    found = after_failure(Standing(**{**standing, **at}), failed, SETTINGS)
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
