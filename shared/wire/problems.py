"""What went wrong as OpenAI's clients read it: `{"error": {"message", "type", "param", "code", "provider"}}`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.failures import FAILURES

NEVER_AGAIN = {"x-should-retry": "false"}
MOST_RETRY_AFTER_S = 120
"""Stock clients take no longer pause than this."""

OURS = frozenset({"cancelled", "internal_error", "attempts_exhausted", "worker_crashed"})
"""What ends a call without its provider's doing; of a deadline it is told who was waited for."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """An error as clients of the gateway see it. code: the status, or a word for the known conditions."""

    status: int
    message: str
    type: str
    code: int | str
    param: str | None = None
    provider: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, Any]:
        """The envelope."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
                "provider": self.provider,
            }
        }


def failed_call(code: str, message: str, *, provider: str | None, headers: Mapping[str, str] | None = None) -> Problem:
    """A call that was accepted and failed or was cancelled; only a provider's rate limit shows its status as code."""
    failure = FAILURES[code]
    more = NEVER_AGAIN if failure.http_status == 409 else {}
    return Problem(
        status=failure.http_status,
        message=message,
        type=failure.type,
        code=429 if code == "provider_rate_limit" else code,
        provider=None if code in OURS else provider,
        headers={**sooner(headers or {}), **more},
    )


def sooner(headers: Mapping[str, str]) -> dict[str, str]:
    """The same headers; no client is told to wait longer than stock clients do."""
    later = headers.get("Retry-After")
    return {**headers, **({} if later is None else {"Retry-After": str(min(int(later), MOST_RETRY_AFTER_S))})}
