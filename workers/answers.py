"""From a library's answer object to ours: the choices as clients get them, and the tokens the provider reported."""

from typing import Any

import httpx
import orjson

from shared.calls import Claimed
from shared.closing import Usage
from shared.estimate import BYTES_PER_TOKEN
from workers.classify import request_id
from workers.provider import Answer

USAGE_NAMES = ("usage", "usageMetadata", "meta")
"""Where providers put their token counts."""


MAX_ID = 200
MAX_TOKENS = 2**30
"""Prompt and completion together still fit the column; nobody has such a context."""


class Unreadable(Exception):
    """The provider said yes, but there is no answer in what it sent."""


def read(result: Any, raw: str, call: Claimed, headers: Any) -> Answer:
    """result: litellm's ModelResponse. raw: the provider's body as litellm got it. Raises Unreadable."""
    choices = [_choice(index, choice) for index, choice in enumerate(getattr(result, "choices", None) or ())]
    if not choices:
        raise Unreadable
    response: dict[str, Any] = {"choices": choices}
    service_tier = getattr(result, "service_tier", None)
    if service_tier is not None:
        response["service_tier"] = service_tier
    return Answer(
        response=orjson.dumps(response).decode(),
        finish_reason=_word(choices[0]["finish_reason"]),
        usage=_usage(getattr(result, "usage", None), raw, call, choices),
        provider_request_id=request_id(httpx.Headers(headers), ()) or _word(getattr(result, "id", None)),
    )


def _word(value: Any) -> str | None:
    """A provider's short word as it can be stored."""
    return str(value).replace("\x00", "")[:MAX_ID] if value else None


def _choice(index: int, choice: Any) -> dict[str, Any]:
    shown = {"index": index, "message": _message(choice.message), "finish_reason": choice.finish_reason}
    if getattr(choice, "logprobs", None) is not None:
        shown["logprobs"] = _plain(choice.logprobs)
    return shown


def _message(message: Any) -> dict[str, Any]:
    tool_calls = getattr(message, "tool_calls", None)
    content = message.content if message.content is not None or tool_calls else ""
    shown = {"role": "assistant", "content": content}
    for name in ("tool_calls", "refusal", "annotations", "audio"):
        value = getattr(message, name, None)
        if value:
            shown[name] = _plain(value)
    return shown


def _plain(value: Any) -> Any:
    """As the provider sent it: fields the library only declares are unset and stay out."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.model_dump(mode="json", exclude_unset=True) if hasattr(value, "model_dump") else value


def _usage(usage: Any, raw: str, call: Claimed, choices: list[dict[str, Any]]) -> Usage:
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    # litellm makes (0, 0) of a missing usage; only the provider's own body tells that from a reported 0.
    if not prompt and not completion and not _reported(raw):
        estimate = sum(_text_bytes(choice["message"]) for choice in choices)
        completion = -(-estimate // BYTES_PER_TOKEN)
        return Usage(prompt_tokens=call.estimated_prompt_tokens, completion_tokens=completion, source="estimated")
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=_count(getattr(usage, "prompt_tokens_details", None), "cached_tokens"),
        reasoning_tokens=_count(getattr(usage, "completion_tokens_details", None), "reasoning_tokens"),
        source="provider",
    )


def _count(holder: Any, name: str) -> int:
    value = getattr(holder, name, None)
    return min(max(int(value), 0), MAX_TOKENS) if isinstance(value, int | float) else 0


def _reported(raw: str) -> bool:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return False
    return isinstance(body, dict) and any(isinstance(body.get(name), dict) for name in USAGE_NAMES)


def _text_bytes(message: dict[str, Any]) -> int:
    content, calls = message["content"], message.get("tool_calls")
    texts = [content] if isinstance(content, str) else []
    texts += [orjson.dumps(value).decode() for value in (calls, None if isinstance(content, str) else content) if value]
    return sum(len(text.encode()) for text in texts)
