"""What a worker asks of a provider and what it gets back; `litellm_provider` is the one implementation."""

from dataclasses import dataclass
from typing import Literal, Protocol

from shared.calls import Claimed
from shared.closing import Usage
from shared.states import Outcome

Again = Literal["same", "next", "never"]
"""After a failure: the same candidate later, the next candidate at once, or no further try."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A complete answer. response: JSON text of `{"choices": […]}` as clients get it."""

    response: str
    finish_reason: str | None
    usage: Usage
    provider_request_id: str | None = None


class ProviderError(Exception):
    """The provider gave no answer. `message` is scrubbed of secrets; `code` is a word of shared/failures.py."""

    def __init__(
        self,
        code: str,
        *,
        outcome: Outcome,
        again: Again,
        message: str | None = None,
        http_status: int | None = None,
        retry_after_s: float | None = None,
        provider_request_id: str | None = None,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.outcome = outcome
        self.again = again
        self.message = message
        self.http_status = http_status
        self.retry_after_s = retry_after_s
        self.provider_request_id = provider_request_id


class Provider(Protocol):
    """Asks a provider once: no retries of its own, no prices, no writes."""

    async def complete(self, call: Claimed, *, timeout_s: float) -> Answer:
        """The answer to a call. timeout_s bounds every read; the caller bounds the whole. Raises ProviderError."""
