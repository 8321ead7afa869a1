"""Errors in OpenAI's envelope: `{"error": {"message", "type", "param", "code", "provider"}}`.

Money is 402 and never 429, so that no client pays for three more tries; what must not be repeated says so in
`x-should-retry`. A failed call has the words of shared/failures.py.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from api.gateway.headers import of_limits
from shared import clock
from shared.errors import (
    BudgetExceeded,
    CallFailed,
    CallGoesOn,
    Conflict,
    IdempotencyMismatch,
    InsufficientCredits,
    Invalid,
    KeyBlocked,
    KeyExpired,
    KeyModelDenied,
    TeamModelDenied,
    UnknownModel,
    Unpriced,
    WaybillError,
)
from shared.limits import RateLimited
from shared.wire.findings import path, sentence
from shared.wire.problems import NEVER_AGAIN, Problem, failed_call, sooner

INVALID = "invalid_request_error"
IN_FLIGHT_S = 5
"""When it makes sense to come again while calls in flight hold what is left of a budget."""

TYPES = {
    401: "authentication_error",
    402: "budget_exceeded",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict",
    429: "rate_limit_error",
    500: "internal_server_error",
    503: "service_unavailable",
}
"""Of errors that are not a call's; every other status is an `invalid_request_error`."""


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """What is said of a class of errors besides its message. None: what follows from the error's status."""

    status: int | None = None
    type: str | None = None
    has_word: bool = True
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


RULINGS: Mapping[type[WaybillError], Ruling] = {
    InsufficientCredits: Ruling(status=402, headers=NEVER_AGAIN),
    BudgetExceeded: Ruling(status=402, headers=NEVER_AGAIN),
    TeamModelDenied: Ruling(param="model"),
    KeyModelDenied: Ruling(param="model"),
    UnknownModel: Ruling(status=404, type=INVALID, param="model"),
    KeyExpired: Ruling(),
    KeyBlocked: Ruling(),
    Unpriced: Ruling(status=400),
    IdempotencyMismatch: Ruling(),
    Invalid: Ruling(status=400, has_word=False),
    Conflict: Ruling(has_word=False, headers=NEVER_AGAIN),
    CallGoesOn: Ruling(has_word=False, headers=NEVER_AGAIN),
    WaybillError: Ruling(has_word=False),
}
"""The first class that an error is of rules."""


def problem(error: WaybillError) -> Problem:
    """How an error of ours is said here."""
    if isinstance(error, CallFailed):
        return failed_call(error.failure, str(error.detail), provider=error.provider, headers=error.headers)
    if isinstance(error, RateLimited):
        return _rate_limited(error)
    ruling = next(ruling for kind, ruling in RULINGS.items() if isinstance(error, kind))
    status = ruling.status or error.status
    message, param = (str(error.detail), None) if isinstance(error.detail, str) else _finding(error.detail)
    said = Problem(
        status=status,
        message=message,
        type=ruling.type or TYPES.get(status, INVALID),
        code=error.code if ruling.has_word else status,
        param=error.param or ruling.param or param,
        headers={**sooner(error.headers), **of_limits(error.windows), **ruling.headers},
    )
    if isinstance(error, BudgetExceeded) and error.in_flight:
        return replace(said, code="budget_in_flight", headers={**said.headers, "Retry-After": str(IN_FLIGHT_S)})
    return said


def _rate_limited(error: RateLimited) -> Problem:
    """A limit of ours, told in the words that clients of the LiteLLM proxy know."""
    window, kind = error.window, error.headers["rate_limit_type"]
    whose = "team" if window.is_of_team else "an API key of team"
    # Never a moment too early; of requests the very second that X-RateLimit-Reset tells.
    later_s = math.ceil(clock.now().timestamp() + error.retry_after_s)
    reset_at_s = later_s if window.is_of_tokens else window.reset_at_s
    reset_at = datetime.fromtimestamp(reset_at_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return Problem(
        status=error.status,
        message=(
            f"Rate limit exceeded for {whose}: {error.team_id}. Limit type: {kind}. Current limit: {window.limit}, "
            f"Remaining: {window.remaining}. Limit resets at: {reset_at}"
        ),
        type=TYPES[error.status],
        code=error.status,
        headers={**error.headers, **of_limits(error.windows), "reset_at": reset_at},
    )


def _finding(findings: Sequence[Mapping[str, Any]]) -> tuple[str, str | None]:
    """The first finding speaks for all; its place in the body or the query is the parameter."""
    said, (kind, *place_parts) = findings[0]["msg"], findings[0]["loc"]
    if (kind, place_parts, said) == ("body", [], "field required"):
        return "A JSON body is required", None
    if findings[0]["type"] == "json_invalid" and place_parts:
        return f"{said} at character {place_parts[0]}", None
    if kind == "header":
        return said, None
    place = path(place_parts)
    return sentence(place, said, findings[0]["type"]), place
