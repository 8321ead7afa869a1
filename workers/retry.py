"""What becomes of a call whose attempt failed: the same candidate later, the next one, or the end."""

import random
from dataclasses import dataclass
from typing import Literal

from shared.settings import Settings
from shared.states import CallState, Outcome
from workers.provider import ProviderError

JITTER = 0.2
RATE_LIMITED = "provider_rate_limit"
MOST_REFUSED = 50
"""A line that was tried so often waits no longer for its provider to take it."""
LONGEST_WAIT_S = 300
"""The longest that a line's own backoff keeps it from asking again; a provider's Retry-After may be longer."""


@dataclass(frozen=True, kw_only=True)
class SoFar:
    """How far a call has come: which candidate, how many failures there and in all, and how long it may still take.

    per_candidate: how many attempts each candidate may have.
    """

    candidates: int
    candidate: int
    candidate_attempts: int
    per_candidate: int
    failures: int
    deadline_in_s: float
    on_unknown: Literal["retry", "fail"]


@dataclass(frozen=True, kw_only=True)
class Next:
    """The call's next state; when pending, after how long and at which candidate. is_failure: it has lost a try."""

    state: CallState
    candidate: int
    candidate_attempts: int
    retry_in_s: float | None = None
    is_failure: bool = True


def after_failure(at: SoFar, error: ProviderError, settings: Settings) -> Next:
    """Decide after an attempt failed at its candidate. No attempt starts after the call's deadline.

    Of the attempts that a call may have, one is kept for each candidate still to come.
    """
    tried = at.candidate_attempts + 1
    left, others = settings.max_attempts_per_call - at.failures - 1, at.candidates - at.candidate - 1
    end = Next(state=CallState.FAILED, candidate=at.candidate, candidate_attempts=tried)
    if error.again == "never" or left <= 0:
        return end
    if error.outcome == Outcome.UNKNOWN and at.on_unknown == "fail":
        return end
    delay_s = backoff_s(tried, error.retry_after_s, settings.retry_backoff_s)
    may_repeat = error.again == "same" and tried < at.per_candidate and left > others
    if may_repeat and delay_s < at.deadline_in_s:
        return Next(state=CallState.PENDING, candidate=at.candidate, candidate_attempts=tried, retry_in_s=delay_s)
    if others and at.deadline_in_s > 0:
        return Next(state=CallState.PENDING, candidate=at.candidate + 1, candidate_attempts=0, retry_in_s=0)
    return end


def waits_out(at: SoFar, error: ProviderError, settings: Settings, *, tries: int) -> Next | None:
    """A line that its last candidate's rate limit refused waits, and has lost no try; None: it is a failure like any.

    tries: attempts so far. Each wait is longer than the one before: other lines of the batch try in between.
    """
    if error.code != RATE_LIMITED or error.again != "same" or at.candidate < at.candidates - 1 or tries >= MOST_REFUSED:
        return None
    if error.outcome == Outcome.UNKNOWN and at.on_unknown == "fail":
        return None
    own_s = min(LONGEST_WAIT_S, backoff_s(min(tries, MOST_REFUSED), None, settings.retry_backoff_s))
    delay_s = max(own_s, error.retry_after_s or 0)
    if delay_s >= at.deadline_in_s:
        return None
    return Next(
        state=CallState.PENDING,
        candidate=at.candidate,
        candidate_attempts=at.candidate_attempts,
        retry_in_s=delay_s,
        is_failure=False,
    )


def backoff_s(tried: int, retry_after_s: float | None, base_s: float) -> float:
    """base x 2ⁿ ± 20 %, but never before the provider's Retry-After."""
    own = base_s * 2.0 ** (tried - 1) * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - jitter, not a secret
    return own if retry_after_s is None else max(own, retry_after_s)
