"""Asking a provider through litellm, once per attempt; the only module that imports it.

Import it after `workers.environment.prepare_environment`. Retries, fallbacks, prices and costs are ours, not its.
"""

import asyncio
import logging
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import aiohttp
import httpx
import litellm
from litellm._internal_context import internal_sub_call

from shared.calls import Claimed
from shared.credentials import CannotOpen, Sealer
from shared.request_fields import PARAMETERS
from shared.sealed import ALIAS_KEY, CREDENTIAL_KEY
from shared.settings import Settings
from shared.states import Endpoint, Outcome
from workers import answers
from workers.answers import Unreadable
from workers.classify import classify
from workers.provider import Answer, Provider, ProviderError, Sink
from workers.provider_http import Exchange, current, open_session

LITELLM_VERSION = "1.109.1"
QUIET = ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy", "httpx", "httpcore", "openai", "aiohttp")
NO_KEY = "none"
"""Sent to an `api_base` of our own that asks for no key: never the key of somebody else's server."""
WRITE_TIMEOUT_S = 30
POOL_TIMEOUT_S = 5

# Each of these would act on every call of the process, whatever the call says.
MUST_BE_UNSET = (
    "num_retries", "api_key", "api_base", "openai_key", "anthropic_key", "azure_key", "organization", "fallbacks",
    "default_fallbacks", "context_window_fallbacks", "content_policy_fallbacks", "cache", "headers", "callbacks",
    "input_callback", "success_callback", "failure_callback", "service_callback", "drop_params", "modify_params",
    "model_alias_map", "max_budget", "aclient_session", "client_session", "set_verbose",
    "disable_aiohttp_transport", "custom_provider_map",
)  # fmt: skip


class LitellmProvider(Provider):
    """Every provider that litellm speaks to. One event loop per process: its HTTP session belongs to the first."""

    def __init__(self, settings: Settings, sealer: Sealer, provider_keys: Mapping[str, str]) -> None:
        check_library()
        self._settings = settings
        self._sealer = sealer
        self._provider_keys = dict(provider_keys)
        self._session: aiohttp.ClientSession | None = None

    async def complete(self, call: Claimed, *, timeout_s: float, sink: Sink | None = None) -> Answer:  # noqa: ARG002
        """The answer to a call. Raises ProviderError, and nothing else but CancelledError."""
        # Raised here, not where it was caught: its context would hold frames with the key and the prompt.
        result = await self._ask(call, timeout_s)
        if isinstance(result, ProviderError):
            raise result
        return result

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        if self._session is not None:
            await self._session.close()

    async def _ask(self, call: Claimed, timeout_s: float) -> Answer | ProviderError:
        key = self._key(call)
        if isinstance(key, ProviderError):
            return key
        exchange, raw = Exchange(), [""]
        token = current.set(exchange)
        try:
            # Spares its success and failure logging, which nobody reads: a third of a call's CPU.
            with internal_sub_call():
                result = await litellm.acompletion(**self._arguments(call, key, timeout_s, raw))
            return answers.read(result, raw[0], call, exchange.headers)
        except Unreadable:
            return ProviderError("provider_error", outcome=Outcome.UNKNOWN, again="same", http_status=exchange.status)
        except Exception as error:  # noqa: BLE001 - the library raises plain exceptions too, and no call may be lost
            return classify(error, exchange, (key, *self._provider_keys.values()))
        finally:
            current.reset(token)

    def _key(self, call: Claimed) -> str | ProviderError:
        if call.litellm_model is None:
            return not_sent("provider_error", f"model alias '{call.alias}' no longer exists")
        if call.api_key_sealed is not None:
            owner = f"model alias '{call.alias}'"
            return self._opened(call.api_key_sealed, purpose=ALIAS_KEY.purpose(call.alias), owner=owner)
        if call.credential_key_sealed is not None:
            owner = f"provider credential {call.credential_id}"
            purpose = CREDENTIAL_KEY.purpose(call.credential_id)
            return self._opened(call.credential_key_sealed, purpose=purpose, owner=owner)
        if call.api_base is not None:
            return NO_KEY
        known = self._provider_keys.get(call.provider or "") if self._settings.provider_env_fallback else None
        return known or not_sent("provider_auth", f"no key for provider '{call.provider}'")

    def _opened(self, sealed: bytes, *, purpose: str, owner: str) -> str | ProviderError:
        try:
            return self._sealer.open(sealed, purpose=purpose)
        except CannotOpen:
            return not_sent("provider_auth", f"the key of {owner} cannot be opened")

    def _arguments(self, call: Claimed, key: str, timeout_s: float, raw: list[str]) -> dict[str, Any]:
        """All that litellm is told; `raw` gets the provider's body. Of the request only whitelisted fields pass."""
        parameters = {
            name: call.request[name]
            for name in PARAMETERS[Endpoint(call.endpoint)]
            if call.request.get(name) is not None
        }

        def keep_body(details: Mapping[str, Any]) -> None:
            raw[0] = str(details.get("original_response") or "")

        return parameters | {
            "model": call.litellm_model,
            "messages": call.request["messages"],
            "api_key": key,
            "api_base": call.api_base,
            "timeout": self._timeout(timeout_s),
            "max_retries": 0,
            "stream": False,
            "extra_headers": {"X-Client-Request-Id": f"{call.id}.{call.number}"},
            "shared_session": self._session_here(),
            "logger_fn": keep_body,
        }

    def _timeout(self, timeout_s: float) -> httpx.Timeout:
        # litellm keeps a client, with its connections, per timeout: powers of two, or each call would get its own.
        read_s = 1.0
        while read_s < timeout_s:
            read_s *= 2
        connect_s = self._settings.provider_connect_timeout_s
        return httpx.Timeout(
            connect=connect_s,
            read=min(read_s, max(timeout_s, self._settings.provider_timeout_s)),
            write=WRITE_TIMEOUT_S,
            pool=max(POOL_TIMEOUT_S, connect_s),
        )

    def _session_here(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = open_session()
        return self._session


def warm_up() -> None:
    """Make one call that no provider sees: litellm imports a hundred modules at its first, half a second of CPU.

    Run in the parent, so that no unit pays for it; leaves no thread and no loop behind.
    """
    message = {"role": "user", "content": "warm-up"}
    with internal_sub_call():
        asyncio.run(litellm.acompletion(model="openai/gpt-4", messages=[message], mock_response="ok", api_key=NO_KEY))


def not_sent(code: str, message: str) -> ProviderError:
    """Nothing was asked, because it cannot be asked this way; another candidate may do."""
    return ProviderError(code, outcome=Outcome.FAILED, again="next", message=message)


def check_library() -> None:
    """Refuse to work with another litellm than the tested one, or one that somebody configured for the process."""
    found = version("litellm")
    if found != LITELLM_VERSION:
        raise RuntimeError(f"litellm {LITELLM_VERSION} is needed, {found} is installed")
    changed = [name for name in MUST_BE_UNSET if getattr(litellm, name, None)]
    if changed:
        raise RuntimeError(f"litellm is configured for the whole process: {', '.join(changed)}")
    litellm.suppress_debug_info = True
    litellm.turn_off_message_logging = True
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
