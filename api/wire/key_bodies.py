"""What admins send about virtual keys."""

from decimal import Decimal
from typing import Annotated, Any

import orjson
from pydantic import AfterValidator, BaseModel, Field, StringConstraints, model_validator

from api.fields import Absent, AliasName, Limit, Positive, Title
from shared import budgets

MAX_GRACE_S = 604_800
MAX_METADATA_BYTES = 10_240


def _checked_duration(text: str) -> str:
    budgets.parse_duration(text)
    return text


def _checked_metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    if len(orjson.dumps(metadata)) > MAX_METADATA_BYTES:
        raise ValueError(f"metadata exceeds {MAX_METADATA_BYTES} bytes")
    return metadata


Dollars = Annotated[Decimal, Field(ge=0, le=10**8, allow_inf_nan=False)]
"""An amount of USD."""
DurationText = Annotated[str, AfterValidator(_checked_duration)]
"""`30s`, `5m`, `2h`, `30d`, `1mo`."""
OwnKey = Annotated[str, StringConstraints(pattern=r"^sk-[\x21-\x7e]{1,252}$")]
KeyMetadata = Annotated[dict[str, Any], AfterValidator(_checked_metadata)]
Route = Annotated[str, StringConstraints(pattern=r"^/[\x21-\x7e]{0,254}$")]
"""The beginning of a path that a key may use, e.g. `/api/jobs`."""

CLEARABLE = frozenset({
    "key_alias", "user_id", "models", "rpm_limit", "tpm_limit", "max_parallel_requests", "allowed_routes",
    "max_budget", "soft_budget", "budget_duration", "duration",
})  # fmt: skip


class KeyFields(BaseModel):
    """What a key may do less than its team; null means no limit of its own."""

    key_alias: Title | None = None
    user_id: Title | None = None
    models: Annotated[list[AliasName], Field(max_length=1000)] | None = None
    rpm_limit: Limit | None = None
    tpm_limit: Limit | None = None
    max_parallel_requests: Positive | None = None
    allowed_routes: Annotated[list[Route], Field(max_length=100)] | None = None
    max_budget: Dollars | None = None
    soft_budget: Dollars | None = None
    budget_duration: DurationText | None = None
    duration: DurationText | None = None
    metadata: KeyMetadata = {}
    blocked: bool = False

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: item for name, item in value.items() if item is not None or name in CLEARABLE}


class CreateKey(KeyFields):
    """The body of POST /teams/{team_id}/keys."""

    virtual_key: OwnKey | None = None


class ChangeKey(KeyFields):
    """The body of PATCH /teams/{team_id}/keys/{key_id}: what is left out stays; null clears."""


class RotateKey(Absent):
    """The body of a rotation: how long the replaced secret goes on working."""

    grace_s: Annotated[int, Field(ge=0, le=MAX_GRACE_S)] = 0
