"""Teams as clients read them."""

from typing import Annotated, Literal

from pydantic import Field

from api.wire.answers import Answer, Count, Metadata, Time, Usd
from api.wire.credits import BalanceOut, BudgetMode, LimitMode, Positive, Rate

TeamStatus = Literal["active", "suspended", "paused"]
Limit = Count | None


class UsageSummary(Answer):
    """Sums over all jobs."""

    total_jobs: Count
    total_cost_usd: Usd


class TeamOut(Answer):
    """A team: its settings, its credits and what it used; the secret of its own key is masked."""

    team_id: str
    organization_id: str
    team_alias: str | None
    status: TeamStatus
    paused_until: Time | None
    access_groups: list[str]
    model_groups: list[str]
    allowed_model_aliases: list[str]
    allowed_models: list[str]
    default_model: str | None
    budget_mode: BudgetMode
    limit_mode: LimitMode
    credit_limit: Count | None
    alert_at_percentage: list[float]
    credits_per_dollar: Rate
    tokens_per_credit: Positive
    cost_markup_percentage: float | None = Field(default=None, description="for admins only")
    charge_failed_calls: bool
    rpm_limit: Limit
    tpm_limit: Limit
    max_parallel_calls: Positive | None
    max_queued_calls: Limit
    weight: Annotated[int, Field(ge=1, le=100)]
    store_payloads: bool
    max_budget_usd: Usd | None
    budget_duration: str | None
    budget_spent_usd: Usd | None
    credits_allocated: int
    credits_used: int
    credits_remaining: int
    credits_held: Count
    credits_available: int
    credits: BalanceOut
    usage_summary: UsageSummary
    virtual_key: str | None
    metadata: Metadata
    created_at: Time
    updated_at: Time


class NewTeamOut(TeamOut):
    """A new team: `virtual_key` in clear and `callback_secret` are in this answer only."""

    virtual_key: str
    callback_secret: str
    message: str


class ChangedTeamOut(TeamOut):
    """A team after a change."""

    message: str


class TeamStatusOut(Answer):
    """A team whose status was set."""

    team_id: str
    status: TeamStatus
    message: str


class DeletedTeamOut(Answer):
    """A team that is gone."""

    team_id: str
    message: str


class AccessGroupsOut(Answer):
    """The access groups a team holds now, and the aliases they bring."""

    team_id: str
    access_groups: list[str]
    allowed_model_aliases: list[str]
    message: str


class ModelGroupsOut(Answer):
    """The groups a team holds now, under their other name."""

    team_id: str
    model_groups: list[str]
    message: str


class MarkupOut(Answer):
    """How a team's costs and credits are reckoned."""

    team_id: str
    cost_markup_percentage: float
    budget_mode: BudgetMode
    credits_per_dollar: Rate
    message: str


class VerifiedOut(Answer):
    """Whose key this is."""

    team_id: str
    organization_id: str
    status: Literal["active"]
    key_name: str
