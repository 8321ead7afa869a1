"""What a worker asks of a provider and what it gets back; `litellm_provider` is the one implementation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from shared.attempt_reports import Usage
from shared.calls import Claimed
from shared.states import Outcome

Again = Literal["same", "next", "never"]
"""After a failure: the same candidate later, the next candidate at once, or no further try."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A complete answer. response: JSON text as clients get it, by the call's endpoint:

    chat        `{"choices": [{"index", "message", "finish_reason", "logprobs"?}]}`, where told also `service_tier`,
                `system_fingerprint`
    completion  `{"choices": [{"index", "text", "finish_reason", "logprobs"}]}`, the same
    embedding   `{"data": [{"index", "embedding": [floats]}]}`
    """

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


class Sink(Protocol):
    """Where the pieces of a streamed answer go as they come."""

    async def send(self, choices: Sequence[dict[str, Any]]) -> None:
        """Pass on what one provider chunk said, in OpenAI's shapes, without ids and without a finish.

        chat        `{"index", "delta": {…}, "logprobs"?}`: nulls left out; the first of an index has the role
        completion  `{"index", "text", "logprobs"?}`

        Returns at once but for the first piece, which waits until it is on record that the stream has begun. Raises
        asyncio.CancelledError when the call is no longer this worker's.
        """


class Provider(Protocol):
    """Asks a provider once: no retries of its own, no prices, no writes."""

    async def complete(self, call: Claimed, *, timeout_s: float, sink: Sink | None = None) -> Answer:
        """The answer to a call, told to `sink` in pieces while it comes, where there is one; the whole at the end.

        timeout_s bounds every read; the caller bounds the whole. Raises ProviderError, also when a stream ends without
        a finish_reason for every choice it began.
        """
