"""The events that webhooks and callbacks carry: one object, and one schema of `data` per type."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, create_model

from api.wire.answers import Answer, Count, Metadata, Time, Usd

CALL_ENDS = ("completed", "failed", "cancelled")
JOB_ENDS = CALL_ENDS
BATCH_ENDS = ("completed", "failed", "expired", "cancelled")


CUT = (
    "An event is at most 20,000 bytes. What did not fit was left out: the answer, then `metadata` (it is `{}`), then "
    "the ends of long texts. `result_url` leads to the whole."
)
ANSWER = "With payload `full` only: the answer as reading the call shows it; null when it is not kept, or is vectors."


class Data(Answer):
    """The `data` of an event."""

    truncated: Annotated[bool, Field(description=CUT)] = False


class JobCreated(Data):
    """A job as it was when its row was made."""

    id: str
    job_type: str
    status: str
    user_id: str | None
    external_task_id: str | None
    metadata: Metadata
    total_calls: Count


class JobStarted(JobCreated):
    """A job as it was when its first call was accepted."""

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


class ProgressCounts(Answer):
    """Calls of a job by state."""

    total: Count
    pending: Count
    in_progress: Count
    completed: Count
    failed: Count
    cancelled: Count


class JobProgress(Data):
    """How far a job is."""

    id: str
    status: str
    counts: ProgressCounts


class EventCallError(Answer):
    """Why a call failed or was cancelled."""

    code: str
    message: str | None
    retryable: bool
    maybe_billed: bool


class CallEnded(Data):
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


class CallCompleted(CallEnded):
    """The call completed; its answer is readable at `result_url`, and here for endpoints with payload `full`."""

    response: Annotated[dict[str, Any] | None, Field(description=ANSWER)] = None


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


class BatchEnded(Data):
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


class CreditsLow(Data):
    """Used and held credits crossed a threshold of the team."""

    id: str
    threshold_percent: Annotated[float, Field(ge=0)]
    credits_allocated: Count
    credits_used: Count
    credits_held: Count
    credits_available: int
    percentage_used: Annotated[float, Field(ge=0)]


class EndpointRun(Data):
    """An endpoint and its run of failures. undelivered_events: they stay in the log and can be replayed."""

    id: str
    endpoint_id: str
    url: str
    first_failure_at: Time | None
    failed_attempts: Count
    last_status: int | None
    undelivered_events: Count


class EndpointDisabled(EndpointRun):
    """A webhook endpoint gets no more deliveries until it is enabled again."""

    reason: Literal["manual", "gone", "failing", "url_refused"]
    disabled_at: Time


class EndpointFailing(EndpointRun):
    """Every attempt failed for `percent` of the time after which the endpoint is disabled."""

    percent: Literal[50, 70, 90]
    disables_at: Time


class DeliveryNews(Data):
    """A delivery that was given up, or taken after it had failed. webhook_id: null for a callback."""

    id: str
    delivery_id: str
    event_id: str
    event_type: str
    webhook_id: str | None
    url: str
    attempt_count: Count
    last_status: int | None
    last_error: str | None


class WebhookTest(Data):
    """Says that an endpoint is reached and its signatures are checked; nothing happened."""

    id: str
    webhook_id: str
    message: str


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
    "job.progress": JobProgress,
    "call.completed": CallCompleted,
    "call.failed": CallEnded,
    "call.cancelled": CallEnded,
    **{f"batch.{end}": BatchEnded for end in BATCH_ENDS},
    "credits.low": CreditsLow,
    "webhook.endpoint.disabled": EndpointDisabled,
    "webhook.endpoint.failing": EndpointFailing,
    "webhook.delivery.exhausted": DeliveryNews,
    "webhook.delivery.recovered": DeliveryNews,
    "webhook.test": WebhookTest,
}
"""The `data` of each type."""

WHEN: dict[str, str] = {
    "job.created": "A job was created.",
    "job.started": "The first call of a job was accepted.",
    "job.completed": "A job completed; its result is readable at `data.result_url`.",
    "job.failed": "A job failed, also by its deadline or because it was idle; `data.failure_reason` says why.",
    "job.cancelled": "A job was cancelled.",
    "job.progress": "Calls of an unfinished job moved on. At most one per job in 500 ms, the newest wins.",
    "call.completed": "A call completed; its answer is readable at `data.result_url`.",
    "call.failed": "A call failed for good, after its retries and fallbacks; `data.error` says why.",
    "call.cancelled": "A call was cancelled.",
    "batch.completed": "Every line of a batch ended; its files are readable.",
    "batch.failed": "A batch could not be run.",
    "batch.expired": "A batch ran out of time; what was done until then is readable.",
    "batch.cancelled": "A batch was cancelled; what was done until then is readable.",
    "credits.low": "What a team uses and holds crossed one of its thresholds.",
    "webhook.endpoint.disabled": "An endpoint was disabled and gets nothing until it is enabled again.",
    "webhook.endpoint.failing": "Every attempt at an endpoint fails, for 50, 70, 90 % of the time to its end.",
    "webhook.delivery.exhausted": "A delivery had its last try; it is kept and can be retried or replayed.",
    "webhook.delivery.recovered": "A delivery that had failed was taken.",
    "webhook.test": "Somebody tests an endpoint; sent to that endpoint alone, nobody subscribes to it.",
}
"""When an event of each type is made."""


def _event(type_: str, data: type[BaseModel]) -> type[BaseModel]:
    name = "".join(part.capitalize() for part in type_.split(".")) + "Event"
    word = Literal[type_]  # type: ignore[valid-type]
    return create_model(name, __base__=EventOut, __doc__=WHEN[type_], type=word, event=word, data=data)


EVENTS: dict[str, type[BaseModel]] = {type_: _event(type_, data) for type_, data in DATA.items()}
"""The whole event object of each type."""
