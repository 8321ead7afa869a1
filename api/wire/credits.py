"""Credits as clients read them: the balance, the ledger's lines, refills, rates and reports."""

from typing import Annotated, Literal

from pydantic import Field

from api.wire.answers import Answer, Count, Message, Time, Usd

BudgetMode = Literal["job_based", "consumption_usd", "consumption_tokens"]
LimitMode = Literal["hard", "soft", "unlimited"]
Period = Literal["monthly", "weekly", "daily"]
PaymentType = Literal["subscription", "one_time"]
Kind = Literal["deduction", "allocation", "refund", "adjustment", "subscription_payment", "one_time_payment"]
Health = Literal["healthy", "warning", "critical"]
Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0)]
Day = Annotated[str, Field(json_schema_extra={"format": "date"})]


class BalanceOut(Answer):
    """A team's credit account. Remaining and available fall below zero only where `limit_mode` lets them."""

    team_id: str
    organization_id: str
    credits_allocated: int
    credits_used: int
    credits_remaining: int
    credits_held: Count
    credits_available: int
    overage: Count
    percentage_used: float
    status: Literal["active", "suspended", "paused"]
    credit_limit: Count | None
    auto_refill: bool
    refill_amount: Positive | None
    refill_period: Period | None
    last_refill_at: Time | None
    next_refill_at: Time | None
    budget_mode: BudgetMode
    limit_mode: LimitMode
    credits_per_dollar: Rate
    tokens_per_credit: Positive
    cost_markup_percentage: float | None = Field(default=None, description="for admins only")
    created_at: Time
    updated_at: Time


class TransactionOut(Answer):
    """A line of the ledger: `credits_after = credits_before + credits_amount`, in terms of remaining credits."""

    transaction_id: str
    team_id: str
    organization_id: str
    job_id: str | None
    transaction_type: Kind
    type: Literal["addition", "deduction"]
    credits_amount: int
    amount: Positive
    credits_before: int
    credits_after: int
    balance_after: int
    reason: str
    description: str
    created_at: Time
    timestamp: Time


class TransactionsOut(Answer):
    """A page of the ledger, newest first."""

    team_id: str
    total: Count
    limit: Positive
    offset: Count
    transactions: list[TransactionOut]


class AddedOut(Answer):
    """Credits were added."""

    team_id: str
    credits_added: Positive
    credits_allocated: int
    credits_remaining: int
    transaction_id: str
    transaction: TransactionOut


class CheckOut(Answer):
    """Whether the gate lets so many credits through now."""

    team_id: str
    has_credits: Literal[True]
    credits_remaining: int
    credits_available: int
    credits_needed: Positive


class RefusedCheckOut(Answer):
    """The gate does not let so many credits through now."""

    team_id: str
    has_credits: Literal[False]
    error: str
    credits_needed: Positive


class ReplenishedOut(Answer):
    """Credits were paid for; before and after are remaining credits."""

    team_id: str
    credits_added: Positive
    credits_before: int
    credits_after: int
    payment_type: PaymentType
    payment_amount_usd: Usd | None
    transaction: TransactionOut


class RefundedOut(Answer):
    """Credits were given back."""

    team_id: str
    credits_refunded: Positive
    credits_remaining: int
    transaction: TransactionOut


class AutoRefillOut(Message):
    """How the account refills by itself."""

    team_id: str
    auto_refill_enabled: bool
    refill_amount: Positive | None
    refill_period: Period | None
    last_refill_at: Time | None
    next_refill_at: Time | None


class DefaultsOut(Answer):
    """Which rates are the defaults."""

    tokens_per_credit: bool
    credits_per_dollar: bool


class RatesOut(Answer):
    """What a credit is worth in the consumption modes."""

    team_id: str
    tokens_per_credit: Positive
    credits_per_dollar: Rate
    budget_mode: BudgetMode
    using_defaults: DefaultsOut


class RatesUpdatedOut(RatesOut, Message):
    """The rates after the change."""


class BudgetModeOut(Message):
    """How jobs are charged from now on."""

    team_id: str
    budget_mode: BudgetMode
    limit_mode: LimitMode
    credits_per_dollar: Rate
    tokens_per_credit: Positive


class UtilizationSummaryOut(Answer):
    """Sums over all teams; `avg_utilization` is the mean of what each has used, in percent of what it was given."""

    total_allocated: int
    total_remaining: int
    total_used: int
    avg_utilization: float


class HealthCountsOut(Answer):
    """Teams by what they have left: over 50 %, 20 to 50 %, under 20 %."""

    healthy: Count
    warning: Count
    critical: Count


class NeedyTeamOut(Answer):
    """A team with half of its credits left, or less."""

    team_id: str
    credits_remaining: int
    percentage: float
    status: Literal["warning", "critical"]


class UtilizationOut(Answer):
    """How all teams stand; of those in need the hundred with the least left."""

    total_teams: Count
    summary: UtilizationSummaryOut
    by_status: HealthCountsOut
    teams_needing_attention: list[NeedyTeamOut]


class DayOut(Answer):
    """What came of the jobs that were created on a UTC day and have ended."""

    date: Day
    credits_used: Count
    jobs: Count
    cost_usd: Usd


class TrendsOut(Answer):
    """The last days, oldest first, and the day on which the credits end if the days to come are like them."""

    team_id: str
    days: Positive
    daily: list[DayOut]
    avg_daily_credits: float
    projected_exhaustion_date: Day | None
