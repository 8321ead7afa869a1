"""How many tokens a request may use at most: meant to be at or above the truth.

messages   the conversation of a chat
prompt     of a completion: a text, texts, tokens or lists of tokens
input      of an embedding: the same
"""

from collections.abc import Mapping
from typing import Any

import orjson

BYTES_PER_TOKEN = 3
TOKENS_PER_MESSAGE = 8
TOKENS_PER_IMAGE = 1500
AUDIO_PER_TOKEN = 100
"""Characters of base64 for each token of sound; at the lowest bit rates there are so many in a tenth of a second."""
DEFAULT_OUTPUT_TOKENS = 4096
MOST_TOKENS = 2**31 - 1
"""What a column holds; clients may ask for more."""

IMAGE, SOUND = "image_url", "input_audio"
SAID_BESIDE = ("tools", "functions", "response_format")
"""What of a chat is read besides its messages."""


def prompt_tokens(request: Mapping[str, Any]) -> int:
    """ceil(UTF-8 bytes of all texts / 3) + 8 per message + 1500 per image; tokens count themselves.

    What is neither text nor image counts as its JSON. Every prompt of a completion is a message, and is read with the
    suffix. Each of several texts is rounded up for itself: a short one is a token.
    """
    return min(_read_tokens(request), MOST_TOKENS)


def output_tokens(request: Mapping[str, Any], max_output_tokens: int | None) -> int:
    """The client's own limit, else the model's maximum up to 4096; times the answers that are made.

    Both names of the limit are sent on, and a provider may go by either: the larger one counts. What is rejected of a
    prediction is billed as output beside it. Answers are `n`, or `best_of` where it is more, for each prompt. An
    embedding has no output.
    """
    if "input" in request:
        return 0
    asked = [request[name] for name in ("max_completion_tokens", "max_tokens") if request.get(name) is not None]
    largest = max(asked, default=min(max_output_tokens or DEFAULT_OUTPUT_TOKENS, DEFAULT_OUTPUT_TOKENS))
    rejected = tokens(said_bytes(request.get("prediction")))
    answers = max(request.get("n") or 1, request.get("best_of") or 1)
    prompts = len(items(request["prompt"])) if "prompt" in request else 1
    return min((int(largest) + rejected) * answers * prompts, MOST_TOKENS)


def tokens(bytes_: int) -> int:
    """About how many tokens so many bytes of text are."""
    return -(-bytes_ // BYTES_PER_TOKEN)


def items(value: Any) -> list[Any]:
    """The texts and token lists of a prompt or input that may be one of them itself."""
    is_one = isinstance(value, str) or (value and isinstance(value[0], int))
    return [value] if is_one else list(value)


def said_bytes(value: object) -> int:
    """Of a text, else of the value's JSON: names and numbers are read as well."""
    if value is None:
        return 0
    return len(value.encode()) if isinstance(value, str) else len(orjson.dumps(value))


def _read_tokens(request: Mapping[str, Any]) -> int:
    if "input" in request:
        return sum(_of_item(item) for item in items(request["input"]))
    if "prompt" in request:
        prompts = items(request["prompt"])
        beside = TOKENS_PER_MESSAGE + _of_item(request.get("suffix") or "")
        return sum(_of_item(prompt) for prompt in prompts) + beside * len(prompts)
    messages = [_weigh(message) for message in request["messages"]]
    texts = sum(said for said, _ in messages) + sum(said_bytes(request.get(name)) for name in SAID_BESIDE)
    others = sum(beside for _, beside in messages)
    return tokens(texts) + TOKENS_PER_MESSAGE * len(messages) + others


def _of_item(item: str | list[int]) -> int:
    return tokens(len(item.encode())) if isinstance(item, str) else len(item)


def _weigh(message: Mapping[str, Any]) -> tuple[int, int]:
    """(bytes of text, tokens of images and sound) of a message."""
    content = message.get("content")
    parts = [_weigh_part(part) for part in content] if isinstance(content, list) else [(said_bytes(content), 0)]
    beside = sum(said_bytes(value) for name, value in message.items() if name != "content")
    return beside + sum(texts for texts, _ in parts), sum(others for _, others in parts)


def _weigh_part(part: Any) -> tuple[int, int]:
    """The same of one part of a content. The data of an image or a sound is no text; what lies beside it is."""
    if not isinstance(part, dict):
        return said_bytes(part), 0
    kind = part.get("type")
    if kind not in (IMAGE, SOUND):
        return sum(said_bytes(value) for value in part.values()), 0
    beside = sum(said_bytes(value) for name, value in part.items() if name not in ("type", kind))
    return beside, TOKENS_PER_IMAGE if kind == IMAGE else -(-said_bytes(part.get(SOUND)) // AUDIO_PER_TOKEN)
