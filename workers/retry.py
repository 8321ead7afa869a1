"""What becomes of a call whose attempt failed: the same candidate later, the next one, or the end."""

import random
from dataclasses import dataclass

from shared.settings import Settings
from shared.states import CallState, Outcome
from workers.provider import ProviderError

JITTER = 0.2


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far a call has come: which candidate, how many failures there and in all, and how long it may still take.

    per_candidate: how many attempts each candidate may have.
    """

    candidates: int
    candidate: int
    candidate_attempts: int
    per_candidate: int
    failures: int
    deadline_in_s: float
    on_unknown: str


@dataclass(frozen=True, kw_only=True)
class Next:
    """The call's next state; when pending, after how long and at which candidate."""

    state: CallState
    candidate: int
    candidate_attempts: int
    retry_in_s: float | None = None


def after_failure(at: Standing, error: ProviderError, settings: Settings) -> Next:
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


def backoff_s(tried: int, retry_after_s: float | None, base_s: float) -> float:
    """base x 2ⁿ ± 20 %, but never before the provider's Retry-After."""
    own = base_s * 2.0 ** (tried - 1) * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - jitter, not a secret
    return own if retry_after_s is None else max(own, retry_after_s)
