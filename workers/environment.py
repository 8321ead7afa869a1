"""What this process's environment must hold, and must no longer hold, before litellm is imported."""

import os
from collections.abc import MutableMapping

from shared.models import PROVIDERS

BEFORE_IMPORT = {
    "LITELLM_MODE": "PRODUCTION",  # any other mode reads a `.env` file, which may hold provider keys
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_OFFLINE_MODE": "true",
    "LITELLM_RUST": "0",
    "LITELLM_LOG": "WARNING",
    "REPEATED_STREAMING_CHUNK_LIMIT": str(2**31 - 1),
}
SPARE_CONNECTIONS = 64

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

# The rest of what litellm reads by itself: other credentials, and base URLs that would send a key elsewhere.
OWN_PREFIXES = (
    *(f"{provider.upper()}_" for provider in PROVIDERS),
    "AWS_", "CO_", "FIREWORKS", "GOOGLE_", "HF_", "LITELLM_PROXY_", "OR_", "PERPLEXITYAI_", "TOGETHER", "VERTEX",
    "WATSONX_", "WML_", "WX_",
)  # fmt: skip
HARMLESS_ENDINGS = ("_REGION", "_REGION_NAME", "_LOCATION", "_PROJECT", "_API_VERSION", "_HOME")


def prepare_environment(calls_in_flight: int) -> None:
    """Set what litellm reads while it is imported; call before that, once per process."""
    # 0 does not mean unlimited: it leaves aiohttp's own limit of 100.
    connections = str(calls_in_flight + SPARE_CONNECTIONS)
    os.environ.update(BEFORE_IMPORT, AIOHTTP_CONNECTOR_LIMIT=connections, AIOHTTP_CONNECTOR_LIMIT_PER_HOST=connections)


def take_provider_keys(environ: MutableMapping[str, str]) -> dict[str, str]:
    """Take everything out of environ by which litellm would identify us on its own; returns provider -> key."""
    keys = {}
    for provider, variables in KEY_VARIABLES.items():
        found = [environ[variable].strip() for variable in variables if environ.get(variable, "").strip()]
        if found:
            keys[provider] = found[0]
    for name in [name for name in environ if _is_litellms(name.upper())]:
        del environ[name]
    return keys


def _is_litellms(name: str) -> bool:
    return name.startswith(OWN_PREFIXES) and not name.endswith(HARMLESS_ENDINGS)
