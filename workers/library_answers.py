"""A whole answer as the library returns it, in OpenAI's form; on OpenAI's wire the provider's own body instead.

The library renumbers choices, changes finish reasons and makes (0, 0) of a missing usage.
"""

from typing import Any

import orjson

from workers.tool_calls import Json

USAGE_NAMES = ("usage", "usageMetadata", "meta")
"""Where providers put their token counts."""
ANSWER_NAMES = ("choices", "data")


def as_openai(result: Any, raw: Any, *, on_openais_wire: bool) -> Json:
    """result: the library's object. raw: the provider's body as the library got it, text or parsed."""
    body = _parsed(raw)
    if on_openais_wire and any(isinstance(body.get(name), list) for name in ANSWER_NAMES):
        return body
    answer: Json = result.model_dump(mode="json", exclude_none=True)
    usage = answer.get("usage")
    if isinstance(usage, dict) and not _says_something(usage) and not _is_reported(body):
        del answer["usage"]
    return answer


def _parsed(raw: Any) -> Json:
    try:
        body = orjson.loads(raw) if isinstance(raw, str | bytes) else raw
    except orjson.JSONDecodeError:
        return {}
    return body if isinstance(body, dict) else {}


def _says_something(usage: Json) -> bool:
    return any(usage.get(name) for name in ("prompt_tokens", "completion_tokens"))


def _is_reported(body: Json) -> bool:
    return any(isinstance(body.get(name), dict) for name in USAGE_NAMES)
