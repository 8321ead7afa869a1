"""Jobs as clients read them."""

from typing import Literal

from api.wire.answers import Answer, Count, Metadata, Time, Usd
from api.wire.call_answers import CallbackOut, CallError, State
from shared.states import JobStatus

Status = Literal[JobStatus.PENDING, JobStatus.IN_PROGRESS, JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED]
FailureReason = Literal["client", "all_calls_failed", "deadline_exceeded", "idle_timeout"]


class CountsOut(Answer):
    """Calls by state; they add up to `total` in every read."""

    total: Count
    pending: Count
    in_progress: Count
    completed: Count
    failed: Count
    cancelled: Count


class CostsOut(Answer):
    """What the calls of a job came to."""

    total_calls: Count
    successful_calls: Count
    failed_calls: Count
    total_tokens: Count
    total_cost_usd: Usd
    avg_latency_ms: Count | None
    credit_applied: bool


class JobCostsOut(CostsOut):
    """With what admins see: what we paid, and credits that were used but could not be charged."""

    provider_cost_usd: Usd | None = None
    credits_lost: Count | None = None


class JobOut(Answer):
    """A job as it stands. batch_id: of the batch that it is, if it is one."""

    job_id: str
    team_id: str
    organization_id: str
    user_id: str | None
    job_type: str
    batch_id: str | None
    status: Status
    created_at: Time
    started_at: Time | None
    completed_at: Time | None
    updated_at: Time
    deadline_at: Time | None
    priority: int
    auto_complete: bool
    metadata: Metadata
    error_message: str | None
    failure_reason: FailureReason | None
    external_task_id: str | None
    credit_applied: bool
    credits_charged: Count
    credits_held: Count
    model_groups_used: list[str]
    counts: CountsOut
    costs: JobCostsOut
    callback: CallbackOut | None


class AcceptedCall(Answer):
    """A call accepted with its job."""

    index: Count
    call_id: str
    status: Literal["pending"]


class AcceptedJobOut(JobOut):
    """A job with the calls that were accepted with it."""

    calls: list[AcceptedCall]


class ClosingCostsOut(CostsOut):
    """With what the end of the job was charged, and what is left."""

    credits_charged: Count
    credits_remaining: int | None


class ClosingCall(Answer):
    """A call in the answer to a job's end."""

    call_id: str
    purpose: str | None
    model_group: str
    status: State
    tokens: Count | None
    latency_ms: Count | None
    cost_usd: Usd
    error: CallError | None


class ClosingOut(Answer):
    """A job that ended; at most 1000 of its calls."""

    job_id: str
    team_id: str
    status: Status
    completed_at: Time | None
    costs: ClosingCostsOut
    calls: list[ClosingCall]
    credits_remaining: int | None
    total_calls: Count
    metadata: Metadata


class MetadataOut(Answer):
    """A job's metadata after a merge."""

    job_id: str
    metadata: Metadata
    updated_at: Time


class BreakdownLine(Answer):
    """What one call cost. The last two are for admins."""

    call_id: str
    model: str
    model_group: str
    purpose: str | None
    prompt_tokens: Count | None
    completion_tokens: Count | None
    cost_usd: Usd
    price_source: Literal["alias", "bundled", "unpriced"] | None
    created_at: Time
    provider_cost_usd: Usd | None = None
    resolved_model: str | None = None


class BreakdownOut(Answer):
    """What a job cost, and a page of its calls; the lines of all pages sum to the total exactly."""

    total_cost_usd: Usd
    breakdown: list[BreakdownLine]
    provider_cost_usd: Usd | None = None


class JobCostsBreakdownOut(Answer):
    """What a job cost, call by call."""

    job_id: str
    team_id: str
    job_type: str
    status: Status
    costs: BreakdownOut
