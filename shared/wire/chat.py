"""A chat request, field by field: what is named here reaches the provider, everything else is ignored."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import orjson
from pydantic import BeforeValidator, Field, field_validator, model_validator

from shared.intake import MAX_METADATA_BYTES
from shared.request_fields import request_fields
from shared.states import Endpoint
from shared.wire.messages import MessageIn, Wire

MAX_MESSAGES = 10_000
MAX_BIASES = 1024


def _few(value: Any) -> Any:
    """What is wrong with each of a hundred thousand entries is told by nobody."""
    if isinstance(value, dict) and len(value) > MAX_BIASES:
        raise ValueError(f"holds more than {MAX_BIASES} tokens")
    return value


Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Tokens = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Bias = Annotated[
    dict[str, Annotated[int, Field(ge=-100, le=100)] | Annotated[float, Field(ge=-100, le=100)]], BeforeValidator(_few)
]
Objects = Annotated[list[dict[str, Any]], Field(max_length=1024, fail_fast=True)]
Stop = str | Annotated[list[str], Field(max_length=16)]


class ResponseFormatIn(Wire):
    """`text`, `json_object` or `json_schema` with its schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _has_schema(self) -> Self:
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("json_schema is required with this type")
        return self


class Labelled(Wire):
    """`metadata` is kept on the call and told in its events."""

    metadata: dict[str, Any] | None = None

    @field_validator("metadata")
    @classmethod
    def _small_metadata(cls, metadata: dict[str, Any] | None) -> dict[str, Any] | None:
        return checked_metadata(metadata)


class ChatFields(Labelled):
    """OpenAI's chat fields."""

    endpoint: ClassVar[Endpoint] = Endpoint.CHAT

    messages: Annotated[list[MessageIn], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
    temperature: Temperature | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    top_p: TopP | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    stop: Stop | None = None
    response_format: ResponseFormatIn | None = None
    tools: Objects | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    seed: Seed | None = None
    n: Annotated[int, Field(ge=1, le=16)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    logit_bias: Bias | None = None
    user: str | None = None
    reasoning_effort: str | None = None
    modalities: Annotated[list[str], Field(max_length=16, fail_fast=True)] | None = None
    prediction: dict[str, Any] | None = None
    service_tier: str | None = None
    verbosity: str | None = None
    audio: dict[str, Any] | None = None
    function_call: str | dict[str, Any] | None = None
    functions: Objects | None = None
    moderation: dict[str, Any] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    store: bool | None = None
    web_search_options: dict[str, Any] | None = None

    @field_validator("tools")
    @classmethod
    def _no_remote_tools(cls, tools: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
        if any(tool.get("type") == "mcp" for tool in tools or ()):
            raise ValueError("tools of type mcp are not supported")
        return tools

    def provider_request(self) -> dict[str, Any]:
        """What goes to the provider: the whitelisted fields that were sent, nulls left out."""
        sent = self.model_dump(include=set(request_fields(Endpoint.CHAT)), exclude={"messages"}, exclude_none=True)
        return {**sent, "messages": [message.sent() for message in self.messages]}


def checked_metadata(metadata: dict[str, Any] | None) -> dict[str, Any] | None:
    """Metadata as it is kept. Raises ValueError when it is too large."""
    if metadata is not None and len(orjson.dumps(metadata)) > MAX_METADATA_BYTES:
        raise ValueError(f"metadata exceeds {MAX_METADATA_BYTES} bytes")
    return metadata


def request_text(request: Mapping[str, Any]) -> str:
    """The JSON text kept as the call's request."""
    return orjson.dumps(request).decode()
