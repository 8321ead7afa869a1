"""The answers of the gateway to calls, in OpenAI's forms; `usage` also says what the call costs."""

from typing import Literal

from pydantic import JsonValue

from api.wire.answers import Answer, Count, Usd

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]


class PromptDetails(Answer):
    """Classes of prompt tokens."""

    cached_tokens: Count
    audio_tokens: Count


class CompletionDetails(Answer):
    """Classes of completion tokens."""

    reasoning_tokens: Count
    audio_tokens: Count
    accepted_prediction_tokens: Count
    rejected_prediction_tokens: Count


class UsageOut(Answer):
    """What a call used, and its cost to the client in USD."""

    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails
    cost: Usd


class FunctionOut(Answer):
    """What the model wants called; arguments is JSON as the model wrote it."""

    name: str
    arguments: str


class ChatMessageOut(Answer):
    """What the model said. The last fields are there only when it gave them."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    annotations: list[dict[str, JsonValue]] | None = None
    audio: dict[str, JsonValue] | None = None
    function_call: FunctionOut | None = None
    tool_calls: list[dict[str, JsonValue]] | None = None
    reasoning_content: str | None = None


class ChatChoiceOut(Answer):
    """One answer of `n`."""

    index: Count
    message: ChatMessageOut
    logprobs: dict[str, JsonValue] | None
    finish_reason: FinishReason | None


class ChatCompletionOut(Answer):
    """A chat completion."""

    id: str
    object: Literal["chat.completion"]
    created: Count
    model: str
    choices: list[ChatChoiceOut]
    usage: UsageOut
    system_fingerprint: str | None
    service_tier: str | None


class TextChoiceOut(Answer):
    """One answer; the index runs over prompts and `n`."""

    text: str
    index: Count
    logprobs: dict[str, JsonValue] | None
    finish_reason: FinishReason | None


class TextCompletionOut(Answer):
    """A text completion."""

    id: str
    object: Literal["text_completion"]
    created: Count
    model: str
    choices: list[TextChoiceOut]
    usage: UsageOut
    system_fingerprint: str | None


class EmbeddingOut(Answer):
    """One vector: numbers, or base64 of them as little-endian float32."""

    object: Literal["embedding"]
    index: Count
    embedding: list[float] | str


class EmbeddingUsageOut(Answer):
    """What an embedding used, and its cost to the client in USD."""

    prompt_tokens: Count
    total_tokens: Count
    cost: Usd


class EmbeddingsOut(Answer):
    """Vectors, in the order of the inputs."""

    object: Literal["list"]
    data: list[EmbeddingOut]
    model: str
    usage: EmbeddingUsageOut
