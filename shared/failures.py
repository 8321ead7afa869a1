"""The one table of a failed call's codes: what a client sees for each, on every door."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Failure:
    """How a failed call is shown. `text` is ours; a provider's message replaces it where `shows_provider` says so."""

    http_status: int
    type: str
    text: str
    shows_provider: bool = False
    retryable: bool = False


INVALID, API, TIMEOUT = "invalid_request_error", "api_connection_error", "timeout_error"

FAILURES = {
    "provider_bad_request": Failure(
        http_status=400, type=INVALID, text="provider refused the request", shows_provider=True
    ),
    "context_length_exceeded": Failure(http_status=400, type=INVALID, text="context too long", shows_provider=True),
    "content_policy_violation": Failure(http_status=400, type=INVALID, text="content policy", shows_provider=True),
    "cancelled": Failure(http_status=409, type="conflict", text="Call was cancelled"),
    "provider_rate_limit": Failure(
        http_status=429, type="rate_limit_error", text="provider rate limit", retryable=True
    ),
    "internal_error": Failure(http_status=500, type="internal_server_error", text="internal error"),
    "provider_error": Failure(http_status=502, type=API, text="provider error", retryable=True),
    "provider_auth": Failure(http_status=502, type=API, text="provider error"),
    "stream_interrupted": Failure(http_status=502, type=API, text="stream interrupted", retryable=True),
    "attempts_exhausted": Failure(http_status=502, type=API, text="attempts exhausted", retryable=True),
    "worker_crashed": Failure(http_status=502, type=API, text="worker crashed"),
    "provider_timeout": Failure(http_status=504, type=TIMEOUT, text="provider timeout", retryable=True),
    "deadline_exceeded": Failure(http_status=504, type=TIMEOUT, text="deadline exceeded", retryable=True),
}

MAX_MESSAGE = 1000


def message(code: str, provider_message: str | None = None) -> str:
    """What clients read. provider_message: scrubbed; shown only where the provider refused the request itself."""
    failure = FAILURES[code]
    if code == "cancelled":
        return failure.text
    text = provider_message if failure.shows_provider and provider_message else failure.text
    return f"LLM call failed: {text[:MAX_MESSAGE]}"
