"""How many tokens a request may use at most: meant to be at or above the truth.

messages   the conversation of a chat
prompt     of a completion: a text, texts, tokens or lists of tokens
input      of an embedding: the same
"""

from collections.abc import Mapping
from typing import Any

BYTES_PER_TOKEN = 3
TOKENS_PER_MESSAGE = 8
TOKENS_PER_IMAGE = 1500
AUDIO_PER_TOKEN = 100
"""Characters of base64 for each token of sound; at the lowest bit rates there are so many in a tenth of a second."""
DEFAULT_OUTPUT_TOKENS = 4096
MOST_TOKENS = 2**31 - 1
"""What a column holds; clients may ask for more."""

IMAGES = ("image_url", "input_image")
SOUND = "input_audio"
SAID_BESIDE = ("tools", "functions", "response_format")
"""What of a chat counts as text besides its messages."""


def prompt_tokens(request: Mapping[str, Any]) -> int:
    """ceil(UTF-8 bytes of all texts / 3) + 8 per message + 1500 per image; tokens count themselves.

    Every prompt of a completion is a message. Each of several texts is rounded up for itself: a short one is a token.
    """
    if "input" in request:
        return sum(_tokens(item) for item in _items(request["input"]))
    if "prompt" in request:
        prompts = _items(request["prompt"])
        return sum(_tokens(prompt) for prompt in prompts) + TOKENS_PER_MESSAGE * len(prompts)
    messages = request["messages"]
    texts, others = _weigh([messages, *(request[name] for name in SAID_BESIDE if request.get(name))])
    return -(-texts // BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE * len(messages) + others


def output_tokens(request: Mapping[str, Any], max_output_tokens: int | None) -> int:
    """The client's own limit, else the model's maximum up to 4096; times the answers that are made.

    Those are `n`, or `best_of` where it is more, for each prompt. An embedding has no output.
    """
    if "input" in request:
        return 0
    asked = (request[name] for name in ("max_completion_tokens", "max_tokens") if request.get(name) is not None)
    largest = next(asked, min(max_output_tokens or DEFAULT_OUTPUT_TOKENS, DEFAULT_OUTPUT_TOKENS))
    answers = max(request.get("n") or 1, request.get("best_of") or 1)
    prompts = len(_items(request["prompt"])) if "prompt" in request else 1
    return min(int(largest) * answers * prompts, MOST_TOKENS)


def _items(value: Any) -> list[Any]:
    """The texts and token lists of a prompt or input that may be one of them itself."""
    is_one = isinstance(value, str) or (value and isinstance(value[0], int))
    return [value] if is_one else list(value)


def _tokens(item: str | list[int]) -> int:
    return -(-len(item.encode()) // BYTES_PER_TOKEN) if isinstance(item, str) else len(item)


def _weigh(value: object) -> tuple[int, int]:
    """(bytes of text, tokens of images and sound) inside a message; the data of those is no text."""
    if isinstance(value, str):
        return len(value.encode()), 0
    if isinstance(value, dict):
        if value.get("type") in IMAGES:
            return 0, TOKENS_PER_IMAGE
        if value.get("type") == SOUND:
            return 0, -(-sum(_weigh(list(value.values()))) // AUDIO_PER_TOKEN)
        value = list(value.values())
    if isinstance(value, list):
        found = [_weigh(item) for item in value]
        return sum(texts for texts, _ in found), sum(others for _, others in found)
    return 0, 0
