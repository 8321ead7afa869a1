"""How many tokens a request may use at most: meant to be at or above the truth."""

from collections.abc import Mapping
from typing import Any

BYTES_PER_TOKEN = 3
TOKENS_PER_MESSAGE = 8
TOKENS_PER_IMAGE = 1500
DEFAULT_OUTPUT_TOKENS = 4096
MOST_TOKENS = 2**31 - 1
"""What a column holds; clients may ask for more."""


def prompt_tokens(request: Mapping[str, Any]) -> int:
    """ceil(UTF-8 bytes of all texts / 3) + 8 per message + 1500 per image."""
    texts, images = 0, 0
    for message in request["messages"]:
        more_texts, more_images = _weigh(message)
        texts += more_texts
        images += more_images
    texts += sum(_weigh(request[name])[0] for name in ("tools", "response_format") if request.get(name))
    return -(-texts // BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE * len(request["messages"]) + TOKENS_PER_IMAGE * images


def output_tokens(request: Mapping[str, Any], max_output_tokens: int | None) -> int:
    """The client's own limit, else the model's maximum up to 4096; times `n`."""
    asked = request.get("max_completion_tokens") or request.get("max_tokens")
    largest = asked or min(max_output_tokens or DEFAULT_OUTPUT_TOKENS, DEFAULT_OUTPUT_TOKENS)
    return min(int(largest) * int(request.get("n") or 1), MOST_TOKENS)


def _weigh(value: object) -> tuple[int, int]:
    """(bytes of text, images) inside a message; an image's data counts as an image, not as text."""
    if isinstance(value, str):
        return len(value.encode()), 0
    if isinstance(value, dict):
        if value.get("type") in ("image_url", "input_image"):
            return 0, 1
        value = list(value.values())
    if isinstance(value, list):
        found = [_weigh(item) for item in value]
        return sum(texts for texts, _ in found), sum(images for _, images in found)
    return 0, 0
