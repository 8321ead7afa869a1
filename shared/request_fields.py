"""The OpenAI fields of a request that clients may set; nothing else of a request ever reaches a provider."""

from collections.abc import Mapping

from shared.states import Endpoint

CHAT = (
    "temperature", "max_tokens", "max_completion_tokens", "top_p", "frequency_penalty", "presence_penalty", "stop",
    "response_format", "tools", "tool_choice", "parallel_tool_calls", "seed", "n", "logprobs", "top_logprobs",
    "logit_bias", "user", "reasoning_effort", "modalities", "prediction", "service_tier", "verbosity", "audio",
    "function_call", "functions", "moderation", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention",
    "safety_identifier", "store", "web_search_options",
)  # fmt: skip
COMPLETION = (
    "best_of", "echo", "frequency_penalty", "logit_bias", "logprobs", "max_tokens", "n", "presence_penalty", "seed",
    "stop", "suffix", "temperature", "top_p", "user",
)  # fmt: skip
EMBEDDING = ("dimensions", "user")

PARAMETERS: Mapping[Endpoint, tuple[str, ...]] = {
    Endpoint.CHAT: CHAT,
    Endpoint.COMPLETION: COMPLETION,
    Endpoint.EMBEDDING: EMBEDDING,
}
SUBJECT: Mapping[Endpoint, str] = {
    Endpoint.CHAT: "messages",
    Endpoint.COMPLETION: "prompt",
    Endpoint.EMBEDDING: "input",
}
"""What is asked, beside how."""


def request_fields(endpoint: Endpoint) -> tuple[str, ...]:
    """All that is stored of a request of this kind."""
    return (SUBJECT[endpoint], *PARAMETERS[endpoint])
