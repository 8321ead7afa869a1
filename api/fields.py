"""Types of request fields that several bodies share: names, counts that fit their columns, times, null as left out."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, StringConstraints, model_validator

from shared import names

MAX_INT4 = 2**31 - 1
MAX_CREDITS = 10**15
"""Far above any account, far below what a bigint and a JSON number hold exactly."""

Id = Annotated[str, AfterValidator(names.checked_name)]
AliasName = Annotated[str, AfterValidator(names.checked_alias)]
Title = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Description = Annotated[str, StringConstraints(max_length=2000)]
Credits = Annotated[int, Field(ge=0, le=MAX_CREDITS)]
Limit = Annotated[int, Field(ge=0, le=MAX_INT4)]
Positive = Annotated[int, Field(ge=1, le=MAX_INT4)]
Price = Annotated[Decimal, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
"""USD per one million tokens."""


def _utc(value: datetime) -> datetime:
    try:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a time of this era") from None


Moment = Annotated[datetime, AfterValidator(_utc)]
"""A time in ISO 8601; without an offset it is UTC."""


class Absent(BaseModel):
    """A body in which null means the same as leaving the field out."""

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        return {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else value


class WithReason(Absent):
    """The body of a change of status; it may be left out."""

    reason: Description | None = None


def once(names_: list[str]) -> list[str]:
    """Each name once, in the order given."""
    return list(dict.fromkeys(names_))
