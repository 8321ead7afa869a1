"""Types of request fields that several bodies share: names, counts that fit their columns, times, null as left out."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, StringConstraints, model_validator

from shared import ids, names
from shared.errors import BadRequest, Invalid

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


DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
REST_OF_DAY = timedelta(days=1, milliseconds=-1)
"""Times are shown in milliseconds."""


def moment(field: str, text: str) -> datetime:
    """The first moment of a day or a time in ISO 8601, from a query; without an offset UTC. Raises BadRequest."""
    try:
        return _time(text)
    except (ValueError, OverflowError):
        raise BadRequest(f"Invalid {field} format: {text}. Use ISO format (YYYY-MM-DD)") from None


def last_moment(field: str, text: str) -> datetime:
    """The same as an end that is included: of a day its last millisecond. Raises BadRequest."""
    found = moment(field, text)
    return found + REST_OF_DAY if DAY.fullmatch(text) else found


def _time(text: str) -> datetime:
    # A plus sign that was not percent-encoded in a query arrives as a space.
    found = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _in_body(value: object) -> datetime:
    try:
        return _time(value if isinstance(value, str) else "")
    except (ValueError, OverflowError):
        raise ValueError("must be a day or a time in ISO 8601, as in 2026-01-15T12:00:00Z") from None


def _last_in_body(value: object) -> datetime:
    found = _in_body(value)
    return found + REST_OF_DAY if DAY.fullmatch(str(value)) else found


Moment = Annotated[datetime, BeforeValidator(_in_body)]
"""In a body: a day's first moment or a time, in ISO 8601; without an offset it is UTC."""
LastMoment = Annotated[datetime, BeforeValidator(_last_in_body)]
"""In a body: an end that is included; of a day its last millisecond."""


def job_id_at(place: str, text: str | None) -> UUID | None:
    """The id of a job in a query or a body, where there is one. Raises Invalid."""
    if text is None:
        return None
    found = ids.parse(text)
    if found is None:
        raise Invalid.at([place, "job_id"], "Input should be a valid UUID", "uuid_parsing")
    return found


def event_id_at(loc: Sequence[str | int], text: str) -> UUID:
    """The id of an event in a query or a body. Raises Invalid."""
    found = ids.parse_prefixed("evt", text)
    if found is None:
        raise Invalid.at(loc, "Input should be an event's id, evt_ and 32 hex digits", "value_error.event_id")
    return found


class Absent(BaseModel):
    """A body in which null means the same as leaving the field out."""

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        return {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else value


class WithReason(Absent):
    """The body of a change of status; it may be left out."""

    reason: Description | None = None


def each_once(names_: list[str]) -> list[str]:
    """Each name once, in the order given."""
    return list(dict.fromkeys(names_))
