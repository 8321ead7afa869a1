"""The call a client sends. What is named here reaches the provider; everything else a client sends is ignored."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from shared.intake import MAX_METADATA_BYTES
from shared.request_fields import request_fields
from shared.states import Endpoint

MAX_MESSAGES = 10_000
MAX_DEADLINE_S = 604_800

Temperature = Annotated[float, Field(ge=0, le=2)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Tokens = Annotated[int, Field(ge=1)]
Deadline = Annotated[float, Field(ge=1, le=MAX_DEADLINE_S)]


class Wire(BaseModel):
    """Strict where JSON can be; unknown fields are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")


class MessageIn(Wire):
    """One message of the conversation."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.content is None and not self.tool_calls:
            raise ValueError("content is required without tool_calls")
        return self

    @field_validator("content")
    @classmethod
    def _no_remote_images(cls, content: str | list[dict[str, Any]] | None) -> str | list[dict[str, Any]] | None:
        for part in content if isinstance(content, list) else ():
            image = part.get("image_url")
            url = image.get("url") if isinstance(image, dict) else image
            if isinstance(url, str) and not url.startswith("data:"):
                raise ValueError("image_url must be a data: URL")
        return content


class ResponseFormatIn(Wire):
    """`text`, `json_object` or `json_schema` with its schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _has_schema(self) -> Self:
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("json_schema is required with this type")
        return self


class CallbackIn(Wire):
    """Where to tell of the end, on a job or a call."""

    callback_url: str | None = None
    callback_events: list[str] | None = None
    callback_secret: str | None = None


class CallIn(CallbackIn):
    """A call: OpenAI's chat fields and what Waybill keeps beside them."""

    messages: Annotated[list[MessageIn], Field(min_length=1, max_length=MAX_MESSAGES)]
    model: str | None = None
    model_group: str | None = None
    purpose: Annotated[str, Field(max_length=200)] | None = None
    temperature: Temperature | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    response_format: ResponseFormatIn | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    seed: int | None = None
    n: Annotated[int, Field(ge=1, le=16)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    logit_bias: dict[str, float] | None = None
    user: str | None = None
    reasoning_effort: str | None = None
    modalities: list[str] | None = None
    prediction: dict[str, Any] | None = None
    service_tier: str | None = None
    verbosity: str | None = None
    call_metadata: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    deadline_s: Deadline | None = None

    @field_validator("metadata")
    @classmethod
    def _small_metadata(cls, metadata: dict[str, Any] | None) -> dict[str, Any] | None:
        if metadata is not None and len(orjson.dumps(metadata)) > MAX_METADATA_BYTES:
            raise ValueError(f"metadata exceeds {MAX_METADATA_BYTES} bytes")
        return metadata

    @property
    def asked_model(self) -> str | None:
        """The name to resolve: `model`, else `model_group`, else the team's default."""
        return self.model or self.model_group

    def provider_request(self) -> dict[str, Any]:
        """What goes to the provider: the whitelisted fields that were sent, nulls left out."""
        sent = self.model_dump(include=set(request_fields(Endpoint.CHAT)), exclude_none=True)
        sent["messages"] = [message.model_dump(exclude_unset=True) for message in self.messages]
        return sent


def request_text(request: Mapping[str, Any]) -> str:
    """The JSON text kept as the call's request."""
    return orjson.dumps(request).decode()
