"""The events that webhooks and callbacks carry: one object, and one schema of `data` per type."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, create_model

from api.wire.answers import Answer, Count, Metadata, Time, Usd

CALL_ENDS = ("completed", "failed", "cancelled")
JOB_ENDS = CALL_ENDS
BATCH_ENDS = ("completed", "failed", "expired", "cancelled")


class JobCreated(Answer):
    """A job row was made."""

    id: str
    job_type: str
    status: str
    user_id: str | None
    external_task_id: str | None
    metadata: Metadata
    total_calls: Count


class JobStarted(JobCreated):
    """The job's first call was accepted."""

    started_at: Time


class JobEnded(JobCreated):
    """The job is final; its result is readable at `result_url`."""

    successful_calls: Count
    failed_calls: Count
    duration_seconds: Count
    total_tokens: Count
    total_cost_usd: Usd
    credits_charged: Count
    credits_remaining: int | None
    failure_reason: str | None
    error_message: str | None
    completed_at: Time
    result_url: str


class EventCallError(Answer):
    """Why a call failed or was cancelled."""

    code: str
    message: str | None
    retryable: bool
    maybe_billed: bool


class CallEnded(Answer):
    """The call is final; its result is readable at `result_url`. No prompt and no answer text."""

    id: str
    call_id: str
    status: Literal[CALL_ENDS]  # type: ignore[valid-type]
    purpose: str | None
    model: str
    model_group: str
    finish_reason: str | None
    prompt_tokens: Count | None
    completion_tokens: Count | None
    total_tokens: Count | None
    cost_usd: Usd
    latency_ms: Count | None
    attempt_count: Count
    metadata: Metadata | None
    custom_id: str | None
    error: EventCallError | None
    result_url: str


class BatchCounts(Answer):
    """Lines of a batch by outcome."""

    total: Count
    completed: Count
    failed: Count
    cancelled: Count
    expired: Count


class BatchError(Answer):
    """How many lines failed with one code."""

    code: str
    count: Count


class BatchEnded(Answer):
    """The batch is final; its files are readable."""

    id: str
    status: Literal[BATCH_ENDS]  # type: ignore[valid-type]
    endpoint: str
    request_counts: BatchCounts
    output_file_id: str | None
    error_file_id: str | None
    error_summary: list[BatchError]
    total_cost_usd: Usd
    credits_charged: Count
    metadata: Metadata
    result_url: str


class CreditsLow(Answer):
    """Used and held credits crossed a threshold of the team."""

    id: str
    threshold_percent: Annotated[float, Field(ge=0)]
    credits_allocated: Count
    credits_used: Count
    credits_held: Count
    credits_available: int
    percentage_used: Annotated[float, Field(ge=0)]


class EndpointDisabled(Answer):
    """A webhook endpoint gets no more deliveries until it is enabled again."""

    id: str
    endpoint_id: str
    url: str
    reason: str
    disabled_at: Time
    first_failure_at: Time | None
    failed_attempts: Count
    last_status: int | None
    undelivered_events: Count


class EventOut(Answer):
    """A fact, with the same id and the same bytes at every door."""

    id: Annotated[str, Field(pattern="^evt_[0-9a-f]{32}$")]
    object: Literal["event"]
    type: str
    event: str
    timestamp: Time
    created_at: int
    sequence: Annotated[int, Field(ge=1)] | None
    job_id: str | None
    team_id: str
    data: dict[str, Any]


DATA: dict[str, type[BaseModel]] = {
    "job.created": JobCreated,
    "job.started": JobStarted,
    **{f"job.{end}": JobEnded for end in JOB_ENDS},
    **{f"call.{end}": CallEnded for end in CALL_ENDS},
    **{f"batch.{end}": BatchEnded for end in BATCH_ENDS},
    "credits.low": CreditsLow,
    "webhook.endpoint.disabled": EndpointDisabled,
}
"""The `data` of each type that a subscription may name."""


def _event(type_: str, data: type[BaseModel]) -> type[BaseModel]:
    name = "".join(part.capitalize() for part in type_.split(".")) + "Event"
    word = Literal[type_]  # type: ignore[valid-type]
    return create_model(name, __base__=EventOut, __doc__=data.__doc__, type=word, event=word, data=data)


EVENTS: dict[str, type[BaseModel]] = {type_: _event(type_, data) for type_, data in DATA.items()}
"""The whole event object of each type."""
