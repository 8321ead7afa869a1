"""The requests of the gateway, field by field as OpenAI takes them, with what LiteLLM's clients add.

Of what is named here the fields of shared/request_fields.py reach the provider; nothing else of a body has any effect.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from shared.request_fields import request_fields
from shared.states import Endpoint
from shared.wire.chat import (
    MAX_MESSAGES,
    Bias,
    ChatFields,
    Labelled,
    Penalty,
    Seed,
    Stop,
    Temperature,
    Tokens,
    TopP,
    checked_metadata,
)
from shared.wire.messages import MessageIn, Wire

MOST_ITEMS = 2048
"""Of inputs, or of prompts, in one request."""
MOST_NUMBERS = 2048 * 1536
"""In one answer of embeddings: as many inputs as there may be, of the usual size."""
MOST_ANSWERS = 128
MOST_USER = 1000

FAIL_FAST = Field(fail_fast=True)

Name = Annotated[str, Field(min_length=1, max_length=255)]
Token = Annotated[int, Field(ge=0)]
Role = Literal["developer", "system", "user", "assistant", "tool", "function"]


def _one_of_four(value: Any, parse: ValidatorFunctionWrapHandler) -> Any:
    """One sentence in place of what each of the four forms has against the value."""
    try:
        return parse(value)
    except ValidationError:
        raise ValueError("must be a string, a list of strings, a list of tokens or a list of token lists") from None


Texts = Annotated[
    str
    | Annotated[list[str], FAIL_FAST]
    | Annotated[list[Token], FAIL_FAST]
    | Annotated[list[Annotated[list[Token], FAIL_FAST]], FAIL_FAST],
    WrapValidator(_one_of_four),
]
"""What completions and embeddings are asked about: one or many, as text or as tokens."""


class GatewayFields(Labelled):
    """What every request may say to us: the model, labels, and how long and how often to try.

    fallbacks: names to try after the model's own. num_retries: tries after the first, per candidate. timeout: seconds.
    """

    model: Name
    user: Annotated[str, Field(max_length=MOST_USER)] | None = None
    tags: Annotated[list[Annotated[str, Field(max_length=255)]], Field(max_length=64)] | None = None
    fallbacks: Annotated[list[Name], Field(max_length=16)] | None = None
    num_retries: Annotated[int, Field(ge=0, le=5)] | None = None
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @property
    def labels(self) -> dict[str, Any] | None:
        """What is kept on the call: the metadata, with the tags of both places under `tags`."""
        if not self.tags:
            return self.metadata
        kept = self.metadata or {}
        own = kept.get("tags")
        known = own if isinstance(own, list) else []
        return {**kept, "tags": [*known, *(tag for tag in dict.fromkeys(self.tags) if tag not in known)]}

    @model_validator(mode="after")
    def _small_labels(self) -> Self:
        checked_metadata(self.labels)
        return self


class StreamOptionsIn(Wire):
    """include_usage: the stream tells at its end what was used."""

    include_usage: bool | None = None


class Streamed(Wire):
    """A request whose answer may come in pieces."""

    stream: bool | None = None
    stream_options: StreamOptionsIn | None = None

    @property
    def shows_usage(self) -> bool:
        """Whether the stream is to tell what was used."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class ChatMessageIn(MessageIn):
    """A message with one of OpenAI's roles."""

    role: Role


class ChatIn(Streamed, GatewayFields, ChatFields):
    """`POST /v1/chat/completions`."""

    # Narrower than what the job API takes; a list is read only, whatever mypy fears.
    messages: Annotated[list[ChatMessageIn], Field(min_length=1, max_length=MAX_MESSAGES)]  # type: ignore[assignment]
    n: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] | None = None


class CompletionIn(Streamed, GatewayFields):
    """`POST /v1/completions`."""

    endpoint: ClassVar[Endpoint] = Endpoint.COMPLETION

    prompt: Texts
    n: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] | None = None
    best_of: Annotated[int, Field(ge=1, le=20)] | None = None
    echo: bool | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Bias | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    presence_penalty: Penalty | None = None
    seed: Seed | None = None
    stop: Stop | None = None
    suffix: str | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None

    @field_validator("prompt")
    @classmethod
    def _some_prompt(cls, prompt: Any) -> Any:
        if not isinstance(prompt, str):
            _check_items(prompt, of_what="prompts")
        return prompt

    @field_validator("best_of")
    @classmethod
    def _chooses_from_enough(cls, best_of: int | None, known: ValidationInfo) -> int | None:
        if best_of is not None and best_of < (known.data.get("n") or 1):
            raise ValueError("must not be less than n")
        return best_of

    def provider_request(self) -> dict[str, Any]:
        """What goes to the provider: the whitelisted fields that were sent, nulls left out."""
        return self.model_dump(include=set(request_fields(Endpoint.COMPLETION)), exclude_none=True)


class EmbeddingIn(GatewayFields):
    """`POST /v1/embeddings`. encoding_format: of the answer; the provider is always asked for numbers."""

    endpoint: ClassVar[Endpoint] = Endpoint.EMBEDDING

    input: Texts
    dimensions: Tokens | None = None
    encoding_format: Literal["float", "base64"] | None = None

    @field_validator("input")
    @classmethod
    def _nothing_empty(cls, given: Any) -> Any:
        if not isinstance(given, str):
            _check_items(given, of_what="inputs")
        if not given or (not isinstance(given[0], int) and not all(given)):
            raise ValueError("must not be empty")
        return given

    @field_validator("dimensions")
    @classmethod
    def _bounded(cls, dimensions: int | None, info: ValidationInfo) -> int | None:
        """One answer stays within what one row holds."""
        given = info.data.get("input")
        items = 1 if isinstance(given, str) or (given and isinstance(given[0], int)) else len(given or ())
        if dimensions is not None and items * dimensions > MOST_NUMBERS:
            raise ValueError(f"{items} inputs may have at most {MOST_NUMBERS // items} dimensions")
        return dimensions

    def provider_request(self) -> dict[str, Any]:
        """What goes to the provider: the whitelisted fields that were sent, nulls left out."""
        return self.model_dump(include=set(request_fields(Endpoint.EMBEDDING)), exclude_none=True)


def _check_items(items: list[Any], *, of_what: str) -> None:
    """Raises ValueError where nothing is asked, or too much; a list of tokens is one item, however long."""
    if not items:
        raise ValueError("must not be empty")
    if not isinstance(items[0], int) and len(items) > MOST_ITEMS:
        raise ValueError(f"holds more than {MOST_ITEMS} {of_what}")
