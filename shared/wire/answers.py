"""The answers of the gateway, from a call's row: OpenAI's fields in OpenAI's order, and nothing of a library's."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import orjson

from shared import money

OPTIONAL = ("annotations", "audio", "function_call", "tool_calls", "reasoning_content")
"""Of a message: there only when the model gave it."""


class Completed(Protocol):
    """A completed call as an answer shows it. response: the stored answer's JSON text; None once it is erased."""

    @property
    def id(self) -> UUID: ...
    @property
    def model(self) -> str: ...
    @property
    def created_at(self) -> datetime: ...
    @property
    def response(self) -> str | None: ...
    @property
    def finish_reason(self) -> str | None: ...
    @property
    def prompt_tokens(self) -> int | None: ...
    @property
    def completion_tokens(self) -> int | None: ...
    @property
    def total_tokens(self) -> int | None: ...
    @property
    def cached_tokens(self) -> int | None: ...
    @property
    def reasoning_tokens(self) -> int | None: ...
    @property
    def client_cost_nanousd(self) -> int: ...


def chat_completion(call: Completed) -> dict[str, Any]:
    """A completed chat. Where its texts are erased, one choice without content."""
    stored = _stored(call)
    choices = stored.get("choices") or [{"index": 0, "message": {}, "finish_reason": call.finish_reason}]
    return {
        "id": f"chatcmpl-{call.id.hex}",
        "object": "chat.completion",
        **_named(call),
        "choices": [_chat_choice(choice) for choice in choices],
        "usage": usage(call),
        "system_fingerprint": stored.get("system_fingerprint"),
        "service_tier": stored.get("service_tier"),
    }


def text_completion(call: Completed) -> dict[str, Any]:
    """A completed text completion. Where its texts are erased, one empty choice."""
    stored = _stored(call)
    choices = stored.get("choices") or [{"index": 0, "text": "", "finish_reason": call.finish_reason}]
    return {
        "id": f"cmpl-{call.id.hex}",
        "object": "text_completion",
        **_named(call),
        "choices": [_text_choice(choice) for choice in choices],
        "usage": usage(call),
        "system_fingerprint": stored.get("system_fingerprint"),
    }


def usage(call: Completed) -> dict[str, Any]:
    """What a completed call used, by class of token, and what it costs the client in USD."""
    return {
        "prompt_tokens": call.prompt_tokens or 0,
        "completion_tokens": call.completion_tokens or 0,
        "total_tokens": call.total_tokens or 0,
        "prompt_tokens_details": {"cached_tokens": call.cached_tokens or 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": call.reasoning_tokens or 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
        "cost": money.usd(call.client_cost_nanousd),
    }


def _stored(call: Completed) -> dict[str, Any]:
    """The stored answer; empty once it is erased."""
    found: dict[str, Any] = {} if call.response is None else orjson.loads(call.response)
    return found


def _named(call: Completed) -> dict[str, Any]:
    return {"created": int(call.created_at.timestamp()), "model": call.model}


def _chat_choice(choice: Mapping[str, Any]) -> dict[str, Any]:
    message = choice["message"]
    given = {name: message[name] for name in OPTIONAL if message.get(name) is not None}
    return {
        "index": choice["index"],
        "message": {
            "role": "assistant",
            "content": message.get("content"),
            "refusal": message.get("refusal"),
            **given,
        },
        "logprobs": choice.get("logprobs"),
        "finish_reason": choice["finish_reason"],
    }


def _text_choice(choice: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "text": choice["text"],
        "index": choice["index"],
        "logprobs": choice.get("logprobs"),
        "finish_reason": choice["finish_reason"],
    }
