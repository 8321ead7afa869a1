"""The jobs a client creates, completes and lists."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.lists import Page
from api.wire.calls import CallbackIn, CallIn, Deadline
from shared.wire.messages import Wire

MAX_CALLS = 1000
Name = Annotated[str, Field(max_length=255)]


class JobIn(CallbackIn):
    """A new job; with `calls` the whole work in one request."""

    team_id: Name
    job_type: Annotated[str, Field(min_length=1, max_length=255)]
    user_id: Name | None = None
    metadata: dict[str, Any] | None = None
    external_task_id: Name | None = None
    calls: Annotated[list[CallIn], Field(min_length=1, max_length=MAX_CALLS)] | None = None
    auto_complete: bool | None = None
    deadline_s: Deadline | None = None
    priority: Annotated[int, Field(ge=-100, le=100)] = 0


class CompleteIn(Wire):
    """How the client says a job ended. `result` and other fields are ignored."""

    status: Literal["completed", "failed"]
    metadata: dict[str, Any] | None = None
    error_message: Annotated[str, Field(max_length=2000)] | None = None


class CancelIn(Wire):
    """Why a job is cancelled."""

    reason: Annotated[str, Field(max_length=2000)] | None = None


class MetadataIn(Wire):
    """What to merge into a job's metadata."""

    metadata: dict[str, Any]


class WaitQuery(BaseModel):
    """`?wait=N`: how long a read may be held, in seconds."""

    model_config = ConfigDict(extra="ignore")

    wait: float | None = None


class CostsQuery(Page):
    """Which of the job's calls, oldest first."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 1000


class CallsQuery(Page):
    """A page of a job's calls."""

    status: str | None = None
    purpose: str | None = None
    sort_by: Literal["created_at", "completed_at"] = "created_at"
    order: Literal["asc", "desc"] = "asc"
