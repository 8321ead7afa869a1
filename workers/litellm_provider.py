"""Asking a provider through litellm, once per attempt; the only module that imports it.

chat            acompletion; a stream on OpenAI's wire is read past the library, any other as it translates it
completion      a model that has them: OpenAI's client as litellm makes it; one that only chats: as a chat
embedding       aembedding, always floats

Import it after `workers.environment.prepare_environment`. Retries, fallbacks, prices and costs are ours, not its.
"""

import asyncio
import logging
import re
import warnings
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx
import litellm
from litellm._internal_context import internal_sub_call
from litellm.constants import openai_text_completion_compatible_providers

from shared import estimate
from shared.calls import Claimed
from shared.request_fields import PARAMETERS
from shared.sealed_columns import ALIAS_KEY, CREDENTIAL_KEY
from shared.sealer import CannotOpen, Sealer
from shared.settings import Settings
from shared.states import Endpoint, Outcome
from workers import embeddings
from workers.answers import Assembly, ChatAssembly, TextAssembly, Unreadable
from workers.classify import classify, in_band
from workers.library_answers import as_openai
from workers.openai_text import TextRequest
from workers.provider import Answer, Provider, ProviderError, Sink
from workers.provider_http import Exchange, current, open_session
from workers.sse import Garbled, InBandError
from workers.stream_reading import Interrupted, LibrarySource, OpenAISource, SinkFailed, Source, Stalled, read_stream
from workers.text_conversion import ConvertedAssembly, Unsupported, as_chat

LITELLM_VERSION = "1.109.1"
QUIET = ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy", "httpx", "httpcore", "openai", "aiohttp")
NO_KEY = "none"
"""Sent to an `api_base` of our own that asks for no key: never the key of somebody else's server."""
WRITE_TIMEOUT_S = 30
POOL_TIMEOUT_S = 5

OPENAI_WIRE = ("openai", "azure", "hosted_vllm", "openrouter")
"""They get every parameter as the client sent it: what a model takes is theirs to say, not a table's of the library."""
CHATS_ONLY = re.compile(r"(?:ft:)?(?:gpt-|chatgpt-|o\d)(?!.*instruct)")
"""OpenAI's own chat models, also those newer than the library."""

# Each of these would act on every call of the process, whatever the call says.
MUST_BE_UNSET = (
    "num_retries", "api_key", "api_base", "openai_key", "anthropic_key", "azure_key", "organization", "fallbacks",
    "default_fallbacks", "context_window_fallbacks", "content_policy_fallbacks", "cache", "headers", "callbacks",
    "input_callback", "success_callback", "failure_callback", "service_callback", "drop_params", "modify_params",
    "model_alias_map", "max_budget", "aclient_session", "client_session", "set_verbose",
    "disable_aiohttp_transport", "custom_provider_map",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Question:
    """One attempt: the call, the provider's key, and what is seen of its request."""

    call: Claimed
    key: str
    timeout_s: float
    sink: Sink | None
    exchange: Exchange

    @property
    def expected(self) -> int:
        """How many choices were asked for."""
        request = self.call.request
        return (request.get("n") or 1) * (len(estimate.items(request["prompt"])) if "prompt" in request else 1)


class LitellmProvider(Provider):
    """Every provider that litellm speaks to. One event loop per process: its HTTP session belongs to the first."""

    def __init__(self, settings: Settings, sealer: Sealer, provider_keys: Mapping[str, str]) -> None:
        check_library()
        self._settings = settings
        self._sealer = sealer
        self._provider_keys = dict(provider_keys)
        self._session: aiohttp.ClientSession | None = None

    async def complete(self, call: Claimed, *, timeout_s: float, sink: Sink | None = None) -> Answer:
        """The answer to a call. Raises ProviderError; SinkFailed, when it could not be told; CancelledError."""
        # Raised here, not where it was caught: its context would hold frames with the key and the prompt.
        result = await self._ask(call, timeout_s, sink)
        if isinstance(result, ProviderError):
            raise result
        return result

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        if self._session is not None:
            await self._session.close()

    async def _ask(self, call: Claimed, timeout_s: float, sink: Sink | None) -> Answer | ProviderError:
        key = self._key(call)
        if isinstance(key, ProviderError):
            return key
        exchange = Exchange(is_ours=call.provider == "openai")
        token = current.set(exchange)
        try:
            # Spares its success and failure logging, which nobody reads: a third of a call's CPU.
            with internal_sub_call():
                return await self._answer(
                    Question(call=call, key=key, timeout_s=timeout_s, sink=sink, exchange=exchange)
                )
        except SinkFailed:
            raise
        except Exception as error:  # noqa: BLE001 - the library raises plain exceptions too, and no call may be lost
            host = urlsplit(call.api_base or "").hostname or ""
            return meaning(error, exchange, (key, host, *self._provider_keys.values()))
        finally:
            current.reset(token)

    async def _answer(self, asked: Question) -> Answer:
        call = asked.call
        match Endpoint(call.endpoint):
            case Endpoint.CHAT:
                return await self._chat(asked, call.request, ChatAssembly(asked.expected))
            case Endpoint.COMPLETION if (request := self._text_request(asked)) is not None:
                return await self._complete_text(asked, request)
            case Endpoint.COMPLETION:
                chat = as_chat(call.request)
                return await self._chat(asked, chat, ConvertedAssembly(asked.expected, chat["messages"][0]["content"]))
            case Endpoint.EMBEDDING:
                return await self._embed(asked)

    async def _chat(self, asked: Question, request: Mapping[str, Any], assembly: ChatAssembly) -> Answer:
        arguments = self._arguments(asked, parameters(request, Endpoint.CHAT))
        arguments |= {"messages": request["messages"], "stream": asked.sink is not None}
        if asked.sink is not None:
            await self._read(asked, open_chat(arguments), assembly)
        else:
            raw: list[Any] = [None]
            result = await litellm.acompletion(**arguments, logger_fn=keeps_body(raw))
            assembly.take(as_openai(result, raw[0], on_openais_wire=asked.call.provider in OPENAI_WIRE))
        return assembly.answer(asked.call, asked.exchange.headers)

    async def _complete_text(self, asked: Question, request: TextRequest) -> Answer:
        assembly = TextAssembly(asked.expected)
        if asked.sink is not None:
            await self._read(asked, request.open(), assembly)
        else:
            assembly.take(await request.read())
        return assembly.answer(asked.call, asked.exchange.headers)

    async def _embed(self, asked: Question) -> Answer:
        request, raw = asked.call.request, [None]
        name, provider, base = self._resolved(asked)
        if provider == "openai":
            # The library would turn each number into objects, on the event loop: many seconds of it for a full request.
            arguments = parameters(request, Endpoint.EMBEDDING) | {"model": name, "input": request["input"]}
            arguments |= {"encoding_format": "float", "extra_headers": headers(asked.call)}
            answered = await self._client(asked, base).embeddings.with_raw_response.create(**arguments)
            return await asyncio.to_thread(embeddings.read_text, answered.content, asked.call, asked.exchange.headers)
        arguments = self._arguments(asked, parameters(request, Endpoint.EMBEDDING))
        arguments |= {"input": request["input"], "encoding_format": "float", "logger_fn": keeps_body(raw)}
        result = await litellm.aembedding(**arguments)
        body = as_openai(result, raw[0], on_openais_wire=asked.call.provider in OPENAI_WIRE)
        return embeddings.read(body, asked.call, asked.exchange.headers)

    async def _read(self, asked: Question, opened: Awaitable[Source], assembly: Assembly) -> None:
        first_s, between_s = self._settings.first_chunk_timeout_s, self._settings.chunk_timeout_s
        await read_stream(opened, assembly, asked.sink, first_s=first_s, between_s=between_s)

    def _text_request(self, asked: Question) -> TextRequest | None:
        """The request of a model that has text completions; None of one that only chats."""
        call = asked.call
        name, provider, base = self._resolved(asked)
        if not has_text_completions(name, provider):
            return None
        arguments = parameters(call.request, Endpoint.COMPLETION)
        arguments |= {"model": name, "prompt": call.request["prompt"], "timeout": self._timeout(asked.timeout_s)}
        client = self._client(asked, base)
        return TextRequest(client=client, arguments=arguments | {"extra_headers": headers(call)})

    def _resolved(self, asked: Question) -> tuple[str, str, str | None]:
        """The model's name at its provider, the provider as the library calls it, and its base."""
        name, provider, _, base = litellm.get_llm_provider(
            model=asked.call.litellm_model, api_base=asked.call.api_base, api_key=asked.key
        )
        return name, provider, asked.call.api_base or base

    def _client(self, asked: Question, base: str | None) -> Any:
        """A client of OpenAI's wire: the library's own way to one, kept per key and base, that uses our session."""
        return litellm.main.openai_chat_completions._get_openai_client(  # noqa: SLF001
            is_async=True,
            api_key=asked.key,
            api_base=base,
            timeout=self._timeout(asked.timeout_s),
            max_retries=0,
            shared_session=self._session_here(),
        )

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

    def _arguments(self, asked: Question, chosen: dict[str, Any]) -> dict[str, Any]:
        """All that litellm is told beside the question itself. chosen: whitelisted parameters of the request."""
        call = asked.call
        passed = {"allowed_openai_params": list(chosen)} if chosen and call.provider in OPENAI_WIRE else {}
        return (
            chosen
            | passed
            | {
                "model": call.litellm_model,
                "api_key": asked.key,
                "api_base": call.api_base,
                "timeout": self._timeout(asked.timeout_s),
                "max_retries": 0,
                "extra_headers": headers(call),
                "shared_session": self._session_here(),
            }
        )

    def _timeout(self, timeout_s: float) -> httpx.Timeout:
        # litellm keeps a client, with its connections, per timeout: powers of two, or each call would get its own.
        read_s, longest_s = 1.0, self._settings.provider_timeout_s
        while read_s < timeout_s:
            read_s *= 2
        connect_s = self._settings.provider_connect_timeout_s
        return httpx.Timeout(
            connect=connect_s,
            read=min(read_s, longest_s) if timeout_s <= longest_s else read_s,
            write=WRITE_TIMEOUT_S,
            pool=max(POOL_TIMEOUT_S, connect_s),
        )

    def _session_here(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = open_session()
        return self._session


async def open_chat(arguments: dict[str, Any]) -> Source:
    """Ask for a stream. On OpenAI's wire the library hands out its client's stream, whose bytes we read ourselves."""
    wrapper = await litellm.acompletion(**arguments, stream_options={"include_usage": True})
    inner = wrapper.completion_stream
    if type(inner).__name__ == "AsyncStream" and hasattr(inner, "response"):
        return OpenAISource(inner.response, wrapper.aclose)
    return LibrarySource(wrapper)


def has_text_completions(name: str, provider: str) -> bool:
    """Whether this model answers `/v1/completions`; of a server of one's own the library supposes so."""
    if provider == "openai":
        return name not in litellm.open_ai_chat_completion_models and CHATS_ONLY.match(name) is None
    return provider == "text-completion-openai" or provider in openai_text_completion_compatible_providers


def parameters(request: Mapping[str, Any], endpoint: Endpoint) -> dict[str, Any]:
    """What of a request reaches the provider beside its subject: whitelisted fields that say something."""
    return {name: request[name] for name in PARAMETERS[endpoint] if request.get(name) is not None}


def headers(call: Claimed) -> dict[str, str]:
    """By which a provider's support, and our ground truth in tests, know the attempt."""
    return {"X-Client-Request-Id": f"{call.id}.{call.number}"}


def keeps_body(raw: list[Any]) -> Callable[[Mapping[str, Any]], None]:
    """A logger for litellm that puts the provider's body into `raw`."""

    def keep(details: Mapping[str, Any]) -> None:
        raw[0] = details.get("original_response")

    return keep


def meaning(error: Exception, exchange: Exchange, secrets: tuple[str, ...]) -> ProviderError:
    """What this failure of an attempt means."""
    match error:
        case Unsupported():
            return not_sent("provider_bad_request", str(error))
        case Stalled():
            return ProviderError("provider_timeout", outcome=Outcome.UNKNOWN, again="same", http_status=exchange.status)
        case Unreadable() | Garbled() | Interrupted():
            return ProviderError("provider_error", outcome=Outcome.UNKNOWN, again="same", http_status=exchange.status)
        case InBandError():
            return in_band(error.said, exchange, secrets)
        case _:
            return classify(error, exchange, secrets)


def warm_up() -> None:
    """Make one call that no provider sees: litellm imports a hundred modules at its first, half a second of CPU.

    Run in the parent, so that no unit pays for it; leaves no thread and no loop behind.
    """
    message = {"role": "user", "content": "warm-up"}
    with internal_sub_call():
        asyncio.run(litellm.acompletion(model="openai/gpt-4", messages=[message], mock_response="ok", api_key=NO_KEY))
    # The types of streams are built when they are first used, and then warn about the library's own.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        litellm.ModelResponseStream()


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
