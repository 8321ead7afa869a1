"""What admins send about teams."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from api.fields import MAX_CREDITS, Absent, AliasName, Credits, Id, Limit, Positive, Title, WithReason
from api.wire.key_bodies import Dollars, DurationText, OwnKey

LimitMode = Literal["hard", "soft", "unlimited"]
Groups = Annotated[list[Id], Field(max_length=1000)]
Rate = Annotated[Decimal, Field(gt=0, le=10**9, allow_inf_nan=False)]
TokensPerCredit = Annotated[int, Field(ge=1, le=MAX_CREDITS)]
Markup = Annotated[Decimal, Field(ge=0, le=1000, allow_inf_nan=False)]
Weight = Annotated[int, Field(ge=1, le=100)]
GROUPS = AliasChoices("access_groups", "model_groups")
LAST_YEAR = 9998


def _is_text(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("must be a time like 2026-01-15T12:00:00Z")  # noqa: TRY004 - pydantic wants a ValueError
    return value


def _aware(value: datetime) -> datetime:
    if value.year > LAST_YEAR:
        raise ValueError("must be before the year 9999")
    return value if value.tzinfo else value.replace(tzinfo=UTC)


Until = Annotated[datetime, BeforeValidator(_is_text), AfterValidator(_aware)]


class TeamTerms(BaseModel):
    """What can be said of a team at its creation and later."""

    team_alias: Title | None = None
    access_groups: Groups = Field(default=[], validation_alias=GROUPS)
    metadata: dict[str, Any] = Field(default={})
    limit_mode: LimitMode | None = None
    credits_per_dollar: Rate = Decimal(10)
    tokens_per_credit: TokensPerCredit = 10_000
    cost_markup_percentage: Markup = Decimal(0)
    charge_failed_calls: bool = False
    default_model: AliasName | None = None
    rpm_limit: Limit | None = None
    tpm_limit: Limit | None = None
    max_parallel_calls: Positive | None = None
    max_queued_calls: Limit | None = None
    weight: Weight = 1
    store_payloads: bool = True
    credit_limit: Credits | None = None
    max_budget_usd: Dollars | None = None
    budget_duration: DurationText | None = None


class CreateTeam(Absent, TeamTerms):
    """The body of POST /teams/create."""

    organization_id: Id
    team_id: Id
    credits_allocated: Credits = 0
    budget_mode: str = "job_based"
    virtual_key: OwnKey | None = None


class ChangeTeam(TeamTerms):
    """The body of PUT and PATCH /teams/{team_id}: what is left out stays; null clears what may be empty."""

    credits_allocated: Credits | None = None
    credits_used: Credits | None = None
    budget_mode: str | None = None
    status: Literal["active", "suspended", "paused"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        return without_nulls(value, CLEARABLE) if isinstance(value, dict) else value


CLEARABLE = frozenset({
    "team_alias", "default_model", "rpm_limit", "tpm_limit", "max_parallel_calls", "max_queued_calls", "credit_limit",
    "max_budget_usd", "budget_duration",
})  # fmt: skip


def without_nulls(body: dict[str, Any], clearable: frozenset[str]) -> dict[str, Any]:
    """The body without the nulls that can only mean "left out"."""
    return {name: value for name, value in body.items() if value is not None or name in clearable}


class PauseTeam(WithReason):
    """The body of a pause; without `until` it lasts until the team is resumed."""

    until: Until | None = None


class SetGroups(BaseModel):
    """The groups a team is to hold, in order: a bare list of names, or an object with the list under either name."""

    model_config = ConfigDict(json_schema_extra={"type": ["object", "array"], "items": {"type": "string"}})

    access_groups: Groups = Field(validation_alias=GROUPS)

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        return {"access_groups": value} if isinstance(value, list) else value


class SetMarkup(Absent):
    """The body of PATCH /teams/{team_id}/markup."""

    cost_markup_percentage: Markup | None = None
    budget_mode: str | None = None
    credits_per_dollar: Rate | None = None
