"""Batches as clients ask for them and read them, in OpenAI's form with Waybill's fields beside it."""

import re
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, field_validator

from api.fields import Absent
from api.wire.answers import Answer, Count, Usd
from api.wire.batch_examples import BATCH_EXAMPLE, DRY_RUN_EXAMPLE
from api.wire.call_answers import CallbackOut
from api.wire.calls import CallbackIn
from api.wire.files import ExpiresAfter, Seconds
from shared.states import PATHS, BatchStatus, Endpoint

WINDOW = re.compile(r"([1-9][0-9]{0,5})([mhd])")
UNIT_S = {"m": 60, "h": 3600, "d": 86_400}
MOST_PAIRS, MOST_KEY, MOST_VALUE = 16, 64, 512
"""Of metadata."""
SHORTEST_WINDOW_S, LONGEST_WINDOW_S = 900, 7 * 86_400
OUTPUT_ANCHOR, OUTPUT_SECONDS = "output_expires_after[anchor]", "output_expires_after[seconds]"
OUTPUT_KEPT = "How long the files of results are kept, from the end of the batch on; 30 days otherwise."
DRY_RUN = "Only check, and say what it would cost."
ENDPOINTS = {path: endpoint for endpoint, path in PATHS.items()}

UnixTime = Annotated[int, Field(ge=0)]
"""Unix seconds."""
BatchId = Annotated[str, Field(pattern="^batch_[0-9a-f]{32}$")]
FileId = Annotated[str, Field(pattern="^file-[0-9a-f]{32}$")]


def _known_endpoint(value: object) -> object:
    if value not in ENDPOINTS:
        raise ValueError(f"must be one of: {', '.join(ENDPOINTS)}")
    return value


def _known_window(value: object) -> object:
    found = WINDOW.fullmatch(value) if isinstance(value, str) else None
    if found is None or not SHORTEST_WINDOW_S <= int(found[1]) * UNIT_S[found[2]] <= LONGEST_WINDOW_S:
        raise ValueError("must be 15m to 7d, as in 24h, 90m or 2d")
    return value


def checked_metadata(value: object) -> object:
    """A batch's metadata as it was given. Raises ValueError.

    One sentence for all that can be wrong with it: names that only the client knows are not said again.
    """
    pairs = value.items() if isinstance(value, dict) else [(value, value)]
    is_short = all(isinstance(v, str) and len(str(k)) <= MOST_KEY and len(v) <= MOST_VALUE for k, v in pairs)
    if not isinstance(value, dict) or len(value) > MOST_PAIRS or not is_short:
        raise ValueError(
            f"must be an object of at most {MOST_PAIRS} strings of up to {MOST_VALUE} characters, "
            f"under names of up to {MOST_KEY}"
        )
    return value


def _from_json(value: object) -> object:
    """An object written as JSON in a query string."""
    try:
        return orjson.loads(value) if isinstance(value, str) else value
    except orjson.JSONDecodeError:
        raise ValueError("must be a JSON object") from None


def _with_commas(value: object) -> object:
    return value.split(",") if isinstance(value, str) else value


Metadata = Annotated[
    dict[Annotated[str, Field(max_length=MOST_KEY)], Annotated[str, Field(max_length=MOST_VALUE)]],
    Field(max_length=MOST_PAIRS),
    BeforeValidator(checked_metadata),
]
Retried = Literal["failed", "expired", "cancelled"]
UNLESS_TOLD: tuple[Retried, ...] = ("failed", "expired")
EndpointPath = Annotated[str, BeforeValidator(_known_endpoint, json_schema_input_type=Literal[tuple(ENDPOINTS)])]
Window = Annotated[str, Field(examples=["24h"], pattern="^[1-9][0-9]{0,5}[mhd]$"), BeforeValidator(_known_window)]


def endpoint_at(path: str) -> Endpoint:
    """The endpoint of a path that `EndpointPath` takes."""
    return ENDPOINTS[path]


def window_s(window: str) -> int:
    """The seconds of a window that `Window` takes."""
    return int(window[:-1]) * UNIT_S[window[-1]]


class BatchIn(CallbackIn):
    """A new batch: `input_file_id`, or the lines themselves in `requests`."""

    endpoint: EndpointPath
    completion_window: Window
    input_file_id: Annotated[str, Field(description="An uploaded file of purpose `batch`.")] | None = None
    requests: Annotated[
        list[Any],
        Field(min_length=1, description="Instead of a file: objects with `custom_id` and `body`, one per line."),
    ] | None = None  # fmt: skip
    metadata: Metadata | None = None
    output_expires_after: Annotated[ExpiresAfter, Field(description=OUTPUT_KEPT)] | None = None
    dry_run: Annotated[bool, Field(description=DRY_RUN)] | None = None


class BatchQuery(Absent):
    """What a body of lines cannot say: `application/x-ndjson` has no place for it. JSON bodies say it themselves.

    A callback's secret is never part of a URL: with one, the lines come in a JSON body or a file.
    """

    dry_run: Annotated[bool, Field(description=f"{DRY_RUN} JSON bodies may say it too.")] = False
    endpoint: Annotated[EndpointPath, Field(description="Of NDJSON bodies, which need it.")] | None = None
    completion_window: Annotated[Window, Field(description="Of NDJSON bodies, which need it.")] | None = None
    metadata: Annotated[
        Metadata,
        BeforeValidator(_from_json, json_schema_input_type=str),
        Field(description="Of NDJSON bodies: a JSON object."),
    ] | None = None  # fmt: skip
    callback_url: Annotated[str, Field(description="Of NDJSON bodies.")] | None = None
    callback_events: Annotated[
        list[str],
        BeforeValidator(_with_commas, json_schema_input_type=str),
        Field(description="Of NDJSON bodies: event types with commas between them."),
    ] | None = None  # fmt: skip
    output_anchor: Annotated[
        Literal["created_at"] | None, Field(alias=OUTPUT_ANCHOR, description="Of NDJSON bodies: goes with the seconds.")
    ] = None
    output_seconds: Annotated[
        Seconds | None, Field(alias=OUTPUT_SECONDS, description=f"Of NDJSON bodies. {OUTPUT_KEPT}")
    ] = None


LINES_ONLY = frozenset(field.alias or name for name, field in BatchQuery.model_fields.items()) - {"dry_run"}
"""What is said in the query when the body is lines, and in the body when it is JSON."""
BODY_ONLY = frozenset(BatchIn.model_fields) - frozenset(BatchQuery.model_fields)
"""What is said in a JSON body only."""


class BatchesQuery(Absent):
    """A page of batches, newest first."""

    after: Annotated[str, Field(description="The last id of the page before.")] | None = None
    limit: Annotated[int, Field(ge=1, le=100, description="How many a page has at most.")] = 20


class RetryIn(Absent):
    """Which lines of a final batch are to be run again: all that failed or expired, unless it says otherwise."""

    model_config = ConfigDict(extra="ignore")

    statuses: Annotated[list[Retried], Field(min_length=1, max_length=3)] = Field(
        default_factory=lambda: list(UNLESS_TOLD)
    )
    error_codes: Annotated[
        list[Annotated[str, StringConstraints(min_length=1, max_length=255)]],
        Field(min_length=1, max_length=64, description="Only lines that ended with one of these."),
    ] | None = None  # fmt: skip

    @field_validator("statuses", "error_codes")
    @classmethod
    def _each_once(cls, words: list[str] | None) -> list[str] | None:
        return None if words is None else list(dict.fromkeys(words))


class BatchFault(Answer):
    """Why a batch was refused. line: from 1; null where it is not about one line."""

    code: str
    message: str
    param: str | None
    line: Annotated[int, Field(ge=1)] | None


class BatchFaults(Answer):
    """The first fault of each line that is not in order, at most 1,000: lines behind the last of those are not read."""

    object: Literal["list"]
    data: list[BatchFault]


class RequestCounts(Answer):
    """Lines by state; all but `total` add up to it. There are none before the batch was accepted."""

    total: Count
    completed: Count
    failed: Count
    pending: Count
    in_progress: Count
    cancelled: Count
    expired: Count


class InputDetails(Answer):
    """Classes of input tokens."""

    cached_tokens: Count


class OutputDetails(Answer):
    """Classes of output tokens."""

    reasoning_tokens: Count


class BatchUsage(Answer):
    """What the lines used so far."""

    input_tokens: Count
    input_tokens_details: InputDetails
    output_tokens: Count
    output_tokens_details: OutputDetails
    total_tokens: Count


class ErrorCount(Answer):
    """How many lines failed with one code."""

    code: str
    count: Count


class BatchOut(Answer):
    """A batch; times in unix seconds. model: the one that all lines ask for, null when there are several.

    estimated_completion_at: at the pace so far; it may lie after `expires_at`. The ETag leaves it out.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [BATCH_EXAMPLE]})

    id: BatchId
    object: Literal["batch"]
    endpoint: Literal[tuple(ENDPOINTS)]  # type: ignore[valid-type]
    model: str | None
    errors: BatchFaults | None
    input_file_id: FileId
    completion_window: str
    status: Literal[tuple(status.value for status in BatchStatus)]  # type: ignore[valid-type]
    output_file_id: FileId | None
    error_file_id: FileId | None
    created_at: UnixTime
    in_progress_at: UnixTime | None
    expires_at: UnixTime
    estimated_completion_at: UnixTime | None
    finalizing_at: UnixTime | None
    completed_at: UnixTime | None
    failed_at: UnixTime | None
    expired_at: UnixTime | None
    cancelling_at: UnixTime | None
    cancelled_at: UnixTime | None
    request_counts: RequestCounts
    usage: BatchUsage
    metadata: Metadata
    job_id: str
    retry_of: BatchId | None
    cost_usd: Usd
    estimated_cost_usd: Usd
    credits_charged: Count
    error_summary: list[ErrorCount]
    callback: CallbackOut | None


class DryRunOut(Answer):
    """What a batch would be told. valid: every line is in order. fits: and credits and budgets have room for it.

    lines: those that are in order; tokens, cost and credits are theirs, so that a file with faults needs more once it
    is mended. credits_available: may be below zero for teams whose limit is not a hard one.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [DRY_RUN_EXAMPLE]})

    valid: bool
    errors: BatchFaults | None
    lines: Count
    estimated_tokens: Count
    estimated_cost_usd: Usd
    credits_needed: Count
    credits_available: int
    fits: bool


class BatchList(Answer):
    """A page of batches, newest first."""

    object: Literal["list"]
    data: list[BatchOut]
    first_id: BatchId | None
    last_id: BatchId | None
    has_more: bool


class BatchWaitQuery(BaseModel):
    """`?wait=N`: how long the read may be held for the batch to end, in seconds."""

    model_config = ConfigDict(extra="ignore")

    wait: float | None = None
