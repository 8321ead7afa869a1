"""The estimate of a request's tokens follows the contract's formula and is at or above the truth."""

from typing import Any

import pytest

from shared import estimate


def request(*contents: Any, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content} for content in contents], **fields}


@pytest.mark.parametrize(
    ("wanted", "tokens"),
    [
        (request(""), -(-4 // 3) + 8),
        (request("Hello"), 3 + 8),
        (request("Hello", "Hello"), 6 + 16),
        (request("é" * 3), -(-10 // 3) + 8),
        (request([{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9000}}]), 2 + 8 + 1500),
    ],
)
def test_prompt_tokens(wanted: dict[str, Any], tokens: int):
    assert estimate.prompt_tokens(wanted) == tokens


def test_tools_and_schemas_count_as_text():
    plain = estimate.prompt_tokens(request("Hello"))
    assert (
        estimate.prompt_tokens(request("Hello", tools=[{"type": "function", "function": {"name": "x" * 300}}]))
        > plain + 100
    )
    assert estimate.prompt_tokens(request("Hello", response_format={"type": "json_object"})) > plain


@pytest.mark.parametrize(
    ("fields", "most", "tokens"),
    [
        ({}, None, 4096),
        ({}, 100_000, 4096),
        ({}, 500, 500),
        ({"max_tokens": 20}, 500, 20),
        ({"max_tokens": 20, "max_completion_tokens": 30}, 500, 30),
        ({"max_tokens": 20, "n": 3}, 500, 60),
        ({"n": 2}, None, 8192),
        ({"max_tokens": 10**15, "n": 16}, None, 2**31 - 1),
    ],
)
def test_output_tokens(fields: dict[str, Any], most: int | None, tokens: int):
    assert estimate.output_tokens(request("Hello", **fields), most) == tokens
