"""Calls as clients read them: both dialects in one object, what a 202 says, what admins see besides."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from api.wire.answers import Answer, Count, Metadata, Time, Usd
from shared.states import CallState, Outcome

State = Literal[CallState.PENDING, CallState.IN_PROGRESS, CallState.COMPLETED, CallState.FAILED, CallState.CANCELLED]
UsageSource = Literal["provider", "estimated", "none"]
QueuePosition = Annotated[
    int, Field(ge=1, description="Of a pending call among its team's; null far behind, and of a batch's line.")
]


class CallUsageDetails(Answer):
    """The classes of tokens inside a sum."""

    cached_tokens: Count | None = None
    reasoning_tokens: Count | None = None


class CallUsage(Answer):
    """Tokens, in OpenAI's words; the details are there where the provider named them."""

    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count
    prompt_tokens_details: CallUsageDetails | None = None
    completion_tokens_details: CallUsageDetails | None = None


class CallMetadata(Answer):
    """The short form of what a call used; `model` is the name the client asked for."""

    tokens_used: Count | None
    latency_ms: Count | None
    model: str
    model_group: str


class CallError(Answer):
    """Why a call failed or was cancelled."""

    code: str
    message: str | None
    retryable: bool
    maybe_billed: bool
    http_status: int


Object = Literal["chat.completion", "text_completion", "list"]
"""Of the answer: a chat's, a text completion's, an embedding's."""


class VectorOut(Answer):
    """One vector of an embedding."""

    object: Literal["embedding"]
    index: Count
    embedding: list[float]


class CallResultOut(Answer):
    """The answer to a call: `response` for one dialect, OpenAI's chat completion for the other."""

    call_id: str
    job_id: str
    status: State
    response: dict[str, JsonValue] | None
    metadata: CallMetadata
    id: str | None
    object: Literal["chat.completion"]
    created: int | None
    model: str
    choices: list[dict[str, JsonValue]] | None
    usage: CallUsage | None


class CallbackOut(Answer):
    """Where the events of a job, call or batch are sent, and how far the latest delivery is."""

    url: str
    events: list[str]
    state: str
    last_status: int | None


class CallFacts(Answer):
    """What is known of a call besides its answer. custom_id: the client's own name for a line of a batch."""

    purpose: str | None
    custom_id: str | None
    stream: bool
    created_at: Time
    started_at: Time | None
    completed_at: Time | None
    deadline_at: Time
    attempt_count: Count
    queue_ms: Count | None
    queue_position: QueuePosition | None
    cost_usd: Usd
    usage_source: UsageSource | None
    call_metadata: Metadata | None
    payload_expired: bool
    error: CallError | None
    callback: CallbackOut | None


class AttemptOut(Answer):
    """One try of a call at one provider; for admins."""

    attempt: Annotated[int, Field(ge=1)]
    alias: str
    model: str | None
    credential_id: str | None
    started_at: Time
    ended_at: Time | None
    provider: str | None
    outcome: Literal[Outcome.IN_PROGRESS, Outcome.SUCCEEDED, Outcome.FAILED, Outcome.UNKNOWN, Outcome.ABANDONED]
    http_status: int | None
    error_code: str | None
    error_message: str | None
    prompt_tokens: Count | None
    completion_tokens: Count | None
    cached_tokens: Count | None
    reasoning_tokens: Count | None
    usage_source: UsageSource | None
    maybe_billed: bool
    price_source: str | None
    provider_request_id: str | None
    provider_cost_usd: Usd
    client_cost_usd: Usd
    model_pricing_input: Usd | None
    model_pricing_output: Usd | None


class CallOut(CallResultOut, CallFacts):
    """A call as it stands; `data` is an embedding's. The last fields are there for admins only."""

    object: Object  # type: ignore[assignment]
    data: list[VectorOut] | None = None
    candidates: list[str] | None = None
    resolved_model: str | None = None
    provider: str | None = None
    provider_cost_usd: Usd | None = None
    attempts: list[AttemptOut] | None = None


class ListedCall(CallFacts):
    """A call of a list: without its texts."""

    call_id: str
    job_id: str
    status: State
    metadata: CallMetadata
    id: str | None
    object: Object
    created: int | None
    model: str
    usage: CallUsage | None


class CallsOut(Answer):
    """A page of a job's calls."""

    calls: list[ListedCall]
    total: Count
    limit: Count
    offset: Count


class WaitingOut(Answer):
    """A call that goes on; read it at `status_url`."""

    call_id: str
    job_id: str
    status: State
    status_url: str
    created_at: Time
    queue_position: QueuePosition | None
    estimated_wait_s: Annotated[float, Field(description="For how long calls wait for a worker now, at least 1.")]
