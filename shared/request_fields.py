"""The OpenAI fields of a chat request that clients may set; nothing else of a request ever reaches a provider."""

PARAMETERS = (
    "temperature", "max_tokens", "max_completion_tokens", "top_p", "frequency_penalty", "presence_penalty", "stop",
    "response_format", "tools", "tool_choice", "parallel_tool_calls", "seed", "n", "logprobs", "top_logprobs",
    "logit_bias", "user", "reasoning_effort", "modalities", "prediction", "service_tier", "verbosity",
)  # fmt: skip
REQUEST_FIELDS = ("messages", *PARAMETERS)
