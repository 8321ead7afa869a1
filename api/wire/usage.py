"""Usage, costs and statistics as they are read."""

from typing import Annotated

from pydantic import Field

from api.lists import Dated, DatedPage
from api.wire.answers import Answer, Count, Usd
from api.wire.job_lists import UsageJob
from shared.usage import MOST_USERS

DEAREST = f"The end users whose jobs cost most, at most {MOST_USERS:,}."

Day = Annotated[str, Field(json_schema_extra={"format": "date"})]
Period = Annotated[str, Field(description="YYYY-MM or YYYY-MM-DD; without it and without dates the current month")]


class UsageQuery(DatedPage):
    """Of which time, and which page of the jobs. `period` goes before dates."""

    period: Period | None = None


class PeriodQuery(Dated):
    """Of which time. `period` goes before dates."""

    period: Period | None = None


class DatesQuery(Dated):
    """Of which time; without dates of all time."""


class Summary(Answer):
    """What jobs came to; `successful_jobs` equals `completed_jobs`."""

    total_jobs: Count
    completed_jobs: Count
    successful_jobs: Count
    failed_jobs: Count
    total_cost_usd: Usd
    total_tokens: Count
    credits_used: Count


class TeamSummary(Summary):
    """With what a team reads besides."""

    cancelled_jobs: Count
    total_calls: Count
    avg_cost_per_job: Usd


class CountAndCost(Answer):
    """How many jobs, and what they cost."""

    count: Count
    cost_usd: Usd


class TeamUsageOut(Answer):
    """What a team used, by type of job and by end user, with a page of its jobs."""

    team_id: str
    period: str
    summary: TeamSummary
    job_types: dict[str, CountAndCost]
    by_job_type: dict[str, Count]
    by_user: Annotated[dict[str, CountAndCost], Field(max_length=MOST_USERS, description=DEAREST)]
    jobs: list[UsageJob]
    total: Count
    limit: Count
    offset: Count


class OfTeam(Answer):
    """A team's part of its organization's usage."""

    jobs: Count
    credits_used: Count
    cost_usd: Usd


class OrganizationUsageOut(Answer):
    """What the teams of an organization used; `by_team` is `teams` under its other name."""

    organization_id: str
    period: str
    summary: Summary
    teams: dict[str, OfTeam]
    by_team: dict[str, OfTeam]
    by_job_type: dict[str, Count]


class DayCost(Answer):
    """What jobs made on a day cost."""

    date: Day
    cost_usd: Usd


class CostsOut(Answer):
    """What an organization's jobs cost it, and what they cost us."""

    organization_id: str
    start_date: str | None
    end_date: str | None
    total_cost_usd: Usd
    provider_cost_usd: Usd
    by_team: dict[str, Usd]
    by_model: dict[str, Usd]
    daily: list[DayCost]


class TopTeam(Answer):
    """One of the ten teams with the most jobs."""

    team_id: str
    job_count: Count
    credits_used: Count


class StatsOut(Answer):
    """An organization's jobs and calls in numbers."""

    organization_id: str
    organization_name: str
    total_jobs: Count
    completed_jobs: Count
    failed_jobs: Count
    in_progress_jobs: Count
    total_teams: Count
    total_llm_calls: Count
    successful_calls: Count
    failed_calls: Count
    total_tokens: Count
    total_cost_usd: Usd
    total_credits_used: Count
    top_teams: list[TopTeam]


class DaySpend(Answer):
    """What we paid providers for jobs made on a day."""

    date: Day
    spend: Usd


class TeamSpend(Answer):
    """What we paid providers for a team."""

    team_id: str
    spend: Usd
    successful: Count
    failed: Count
    tokens: Count


class ModelSpend(Answer):
    """What we paid providers for a model, by the name that clients ask for."""

    model: str
    spend: Usd
    count: Count


class ProviderSpend(Answer):
    """What we paid a provider."""

    provider: str
    spend: Usd
    successful: Count
    failed: Count
    tokens: Count


class AnalyticsOut(Answer):
    """Where an organization's money goes; every `spend` is what providers were paid."""

    total_spend: Usd
    total_requests: Count
    successful_requests: Count
    failed_requests: Count
    total_tokens: Count
    daily_spend: list[DaySpend]
    spend_per_team: list[TeamSpend]
    top_models: list[ModelSpend]
    provider_usage: list[ProviderSpend]


class DashboardOut(Answer):
    """The numbers of the first page; `jobsToday` counts from midnight UTC."""

    organizations: Count
    teams: Count
    modelGroups: Count  # noqa: N815 - the wire's word, like the next
    totalCredits: int  # noqa: N815
    creditsRemaining: int  # noqa: N815
    creditsUsed: int  # noqa: N815
    jobsToday: Count  # noqa: N815
    callsInFlight: Count  # noqa: N815
    queueDepth: Count  # noqa: N815
    webhooksFailing: Count  # noqa: N815
    webhooksDisabled: Count  # noqa: N815
    circuitsOpen: Count  # noqa: N815
