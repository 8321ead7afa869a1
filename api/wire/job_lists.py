"""Lists of jobs: what may be asked for, and the rows that teams and admins read."""

from typing import Annotated

from pydantic import BeforeValidator, Field, JsonValue

from api.lists import Dated, DatedPage, Page
from api.wire.answers import Answer, Count, Metadata, Time, Usd
from api.wire.call_answers import CallError, State
from api.wire.job_answers import JobOut, Status
from shared.job_lists import Order, SortBy

Statuses = Annotated[list[str], BeforeValidator(lambda given: [given] if isinstance(given, str) else given)]


class JobsQuery(DatedPage):
    """Which jobs, in which order. `status` may be given several times, in any case."""

    status: Statuses | None = None
    sort_by: SortBy = "created_at"
    order: Order = "desc"
    job_type: str | None = None
    user_id: str | None = None
    external_task_id: str | None = None


class AllJobsQuery(JobsQuery):
    """Which jobs of which teams."""

    team_id: str | None = None
    organization_id: str | None = None


class SummariesQuery(Dated):
    """A numbered page of a team's jobs; `job_id_filter` is a part of the id."""

    page: Annotated[int, Field(ge=1, le=10**7)] = 1
    page_size: Annotated[int, Field(ge=1, le=100)] = 20
    status: Statuses | None = None
    job_type: str | None = None
    job_id_filter: str | None = None


class DetailQuery(Page):
    """Which of the job's calls."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 1000


class JobsOut(Answer):
    """A page of jobs."""

    jobs: list[JobOut]
    total: Count
    limit: Count
    offset: Count


class TeamJobsOut(JobsOut):
    """A page of a team's jobs."""

    team_id: str


class JobSummary(Answer):
    """A job in an admin's list. retry_count: calls beyond the first of each purpose."""

    job_id: str
    team_id: str
    user_id: str | None
    job_type: str
    status: Status
    created_at: Time
    completed_at: Time | None
    total_calls: Count
    successful_calls: Count
    failed_calls: Count
    retry_count: Count
    total_tokens: Count
    total_cost_usd: Usd
    provider_cost_usd: Usd
    avg_latency_ms: Count | None
    credit_applied: bool
    job_metadata: Metadata


class JobSummariesOut(Answer):
    """A numbered page of a team's jobs."""

    jobs: list[JobSummary]
    total: Count
    page: Annotated[int, Field(ge=1)]
    page_size: Annotated[int, Field(ge=1, le=100)]
    total_pages: Count


class CallDetail(Answer):
    """A call as an admin looks into it; `input_cost_usd` and `output_cost_usd` add up to `cost_usd`.

    custom_id: of a batch's line.
    """

    call_id: str
    status: State
    model_used: str
    model_group_used: str
    resolved_model: str | None
    provider: str | None
    purpose: str | None
    custom_id: str | None
    prompt_tokens: Count | None
    completion_tokens: Count | None
    total_tokens: Count | None
    cost_usd: Usd
    input_cost_usd: Usd
    output_cost_usd: Usd
    provider_cost_usd: Usd
    client_cost_usd: Usd
    model_pricing_input: Usd | None
    model_pricing_output: Usd | None
    latency_ms: Count | None
    created_at: Time
    error: CallError | None
    request_data: dict[str, JsonValue] | None
    response_data: dict[str, JsonValue] | None


class JobDetailOut(Answer):
    """A job with a page of its calls, oldest first."""

    job: JobSummary
    calls: list[CallDetail]


class UsageJob(Answer):
    """A job in a team's usage."""

    job_id: str
    job_type: str
    status: Status
    cost_usd: Usd
    tokens: Count
    credits_charged: Count
    created_at: Time
