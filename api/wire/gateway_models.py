"""What the gateway says of models and of its health, in OpenAI's and LiteLLM's shapes."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.wire.answers import Answer, Count


class ModelsQuery(BaseModel):
    """The query string of the list of models."""

    include_metadata: bool = False


class ModelRow(Answer):
    """A name that may be asked for. created: unix seconds; owned_by: the provider, `waybill` for a group of models.

    The three that may be missing are there when asked for, null where they are not known.
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra={"required": ["id", "object", "created", "owned_by"]})

    id: str
    object: Literal["model"]
    created: Count
    owned_by: str
    mode: str | None = None
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None


class ModelList(Answer):
    """All names that may be asked for, by name."""

    object: Literal["list"]
    data: list[ModelRow]


class ModelHealthQuery(BaseModel):
    """The query string of the gateway's health."""

    model: Annotated[str, Field(min_length=1, max_length=255)] | None = None


class HealthyEndpoint(Answer):
    """A model that can be asked."""

    model: str
    provider: str


class UnhealthyEndpoint(HealthyEndpoint):
    """A model that cannot be asked, or whose provider fails, and why."""

    error: str


class _ModelHealth(Answer):
    models: Count
    providers: list[str]
    healthy_count: Count
    unhealthy_count: Count
    healthy_endpoints: list[HealthyEndpoint]
    unhealthy_endpoints: list[UnhealthyEndpoint]


class ModelHealthOut(_ModelHealth):
    """Which models can be asked; `degraded` when some cannot, or their provider fails.

    The two lists are filled for admins only.
    """

    status: Literal["healthy", "degraded"]


class NoModelOut(_ModelHealth):
    """No model can be asked, or not the one that was named, or Postgres does not answer."""

    status: Literal["unhealthy"]
