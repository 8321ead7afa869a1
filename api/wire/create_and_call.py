"""A job and its one call in one request, and their answer in one object."""

from typing import Annotated, Any

from pydantic import Field

from api.wire.answers import Time
from api.wire.call_answers import CallResultOut
from api.wire.calls import CallIn
from api.wire.job_answers import CostsOut


class CreateAndCallIn(CallIn):
    """The job's fields and the call's."""

    team_id: Annotated[str, Field(max_length=255)]
    job_type: Annotated[str, Field(min_length=1, max_length=255)]
    user_id: Annotated[str, Field(max_length=255)] | None = None
    job_metadata: dict[str, Any] | None = None


class CreatedCostsOut(CostsOut):
    """With what is left after the job was charged."""

    credits_remaining: int | None


class CreatedAndCalledOut(CallResultOut):
    """The answer to the call, and what its job came to."""

    costs: CreatedCostsOut
    completed_at: Time | None
