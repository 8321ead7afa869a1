"""The providers an alias may name, and the environment variables that hold their keys."""

from collections.abc import Mapping

PROVIDERS = (
    "openai", "anthropic", "azure", "azure_ai", "gemini", "vertex_ai", "bedrock", "mistral", "groq", "cohere",
    "deepseek", "together_ai", "openrouter", "fireworks_ai", "xai", "perplexity", "ollama", "hosted_vllm", "cerebras",
    "deepinfra", "databricks", "huggingface", "nvidia_nim", "replicate", "sambanova", "moonshot", "voyage", "watsonx",
)  # fmt: skip
"""First segment of a `litellm_model`, and the words `provider` may be."""

KEY_VARIABLES: dict[str, tuple[str, ...]] = {provider: (f"{provider.upper()}_API_KEY",) for provider in PROVIDERS} | {
    "azure": ("AZURE_OPENAI_API_KEY", "AZURE_API_KEY"),
    "bedrock": ("AWS_BEARER_TOKEN_BEDROCK",),
    "cohere": ("COHERE_API_KEY", "CO_API_KEY"),
    "fireworks_ai": ("FIREWORKS_API_KEY", "FIREWORKS_AI_API_KEY", "FIREWORKSAI_API_KEY", "FIREWORKS_AI_TOKEN"),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "huggingface": ("HF_TOKEN", "HUGGINGFACE_API_KEY"),
    "openrouter": ("OPENROUTER_API_KEY", "OR_API_KEY"),
    "perplexity": ("PERPLEXITYAI_API_KEY", "PERPLEXITY_API_KEY"),
    "replicate": ("REPLICATE_API_KEY", "REPLICATE_API_TOKEN"),
    "together_ai": ("TOGETHER_API_KEY", "TOGETHER_AI_API_KEY", "TOGETHERAI_API_KEY", "TOGETHER_AI_TOKEN"),
    "voyage": ("VOYAGE_API_KEY", "VOYAGE_AI_API_KEY"),
    "watsonx": ("WATSONX_APIKEY", "WATSONX_API_KEY", "WX_API_KEY"),
}
"""Where litellm itself would look for each provider's key, first found first."""


def first_key(provider: str, environ: Mapping[str, str]) -> str | None:
    """The provider's key in the environment, None when there is none."""
    found = (environ.get(variable, "").strip() for variable in KEY_VARIABLES[provider])
    return next((key for key in found if key), None)


def with_key(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The providers whose key stands in the environment."""
    return tuple(provider for provider in KEY_VARIABLES if first_key(provider, environ) is not None)
