"""What this process's environment must hold, and must no longer hold, before litellm is imported."""

import os
from collections.abc import MutableMapping

from shared.providers import KEY_VARIABLES, PROVIDERS, first_key

BEFORE_IMPORT = {
    "LITELLM_MODE": "PRODUCTION",  # any other mode reads a `.env` file, which may hold provider keys
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_OFFLINE_MODE": "true",
    "LITELLM_RUST": "0",
    "LITELLM_LOG": "WARNING",
    "REPEATED_STREAMING_CHUNK_LIMIT": str(2**31 - 1),
}
SPARE_CONNECTIONS = 64

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
    keys = {provider: key for provider in KEY_VARIABLES if (key := first_key(provider, environ)) is not None}
    for name in [name for name in environ if _is_litellms(name.upper())]:
        del environ[name]
    return keys


def _is_litellms(name: str) -> bool:
    return name.startswith(OWN_PREFIXES) and not name.endswith(HARMLESS_ENDINGS)
