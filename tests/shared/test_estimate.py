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


def test_sound_counts_by_its_length_and_not_as_text():
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 95_000, "format": "wav"}}
    assert estimate.prompt_tokens(request([sound])) == -(-4 // 3) + 8 + 951


@pytest.mark.parametrize(
    ("prompt", "tokens"),
    [
        ("Hello", 2 + 8),
        (["Hello", "a", "b"], 2 + 1 + 1 + 3 * 8),
        ([1, 2, 3], 3 + 8),
        ([[1, 2, 3], [4]], 4 + 2 * 8),
        ("", 8),
    ],
)
def test_prompts_of_a_completion_are_messages_each(prompt: Any, tokens: int):
    assert estimate.prompt_tokens({"prompt": prompt}) == tokens


@pytest.mark.parametrize(("given", "tokens"), [("Hello", 2), (["a"] * 2048, 2048), ([1] * 9, 9), ([[1, 2], [3]], 3)])
def test_inputs_of_an_embedding_have_no_output(given: Any, tokens: int):
    assert estimate.prompt_tokens({"input": given}) == tokens
    assert estimate.output_tokens({"input": given}, 8192) == 0


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"prompt": "a"}, 500),
        ({"prompt": "a", "max_tokens": 0, "echo": True}, 0),
        ({"prompt": ["a", "b"], "max_tokens": 10}, 20),
        ({"prompt": ["a", "b"], "max_tokens": 10, "n": 2, "best_of": 3}, 60),
        ({"prompt": [1, 2, 3], "max_tokens": 10, "n": 2}, 20),
        ({"prompt": [[1], [2]], "max_tokens": 10, "best_of": None, "n": None}, 20),
    ],
)
def test_a_completion_is_made_as_often_as_asked_for_each_prompt(fields: dict[str, Any], tokens: int):
    assert estimate.output_tokens(fields, 500) == tokens


@pytest.mark.parametrize(("prompt", "times"), [("a", 1), (["a", "b"], 2), ([1, 2], 1)])
def test_a_suffix_is_read_with_every_prompt(prompt: Any, times: int):
    plain = estimate.prompt_tokens({"prompt": prompt})
    assert estimate.prompt_tokens({"prompt": prompt, "suffix": "x" * 300}) == plain + 100 * times
    assert estimate.prompt_tokens({"prompt": prompt, "suffix": None}) == plain


def test_no_estimate_is_larger_than_its_column():
    assert estimate.prompt_tokens({"prompt": [""] * 2048, "suffix": "x" * 3_200_000}) == 2**31 - 1


def test_what_only_calls_itself_an_image_or_a_sound_counts_as_text():
    for kind in ("image_url", "input_audio"):
        posing = {"type": kind, "description": "x" * 6000}
        for fields in ({"tools": [posing]}, {"response_format": posing}):
            assert estimate.prompt_tokens(request("", **fields)) > 2000, fields
        assert estimate.prompt_tokens(request([{**posing, kind: {}}])) > 2000
        called = {"messages": [{"role": "assistant", "tool_calls": [posing]}]}
        assert estimate.prompt_tokens(called) > 2000


def test_tools_and_schemas_count_as_text():
    plain = estimate.prompt_tokens(request("Hello"))
    assert (
        estimate.prompt_tokens(request("Hello", tools=[{"type": "function", "function": {"name": "x" * 300}}]))
        > plain + 100
    )
    assert estimate.prompt_tokens(request("Hello", response_format={"type": "json_object"})) > plain
    assert estimate.prompt_tokens(request("Hello", functions=[{"name": "x" * 300}])) > plain + 100
    names, numbers = {"x" * 300: {}}, {"enum": [10**15] * 20}
    for schema in (names, numbers):
        assert estimate.prompt_tokens(request("Hello", response_format={"json_schema": schema})) > plain + 100


@pytest.mark.parametrize(
    ("fields", "most", "tokens"),
    [
        ({}, None, 4096),
        ({}, 100_000, 4096),
        ({}, 500, 500),
        ({"max_tokens": 20}, 500, 20),
        ({"max_tokens": 20, "max_completion_tokens": 30}, 500, 30),
        ({"max_tokens": 100_000, "max_completion_tokens": 1}, 500, 100_000),
        ({"max_tokens": 20, "n": 3}, 500, 60),
        ({"max_tokens": 20, "prediction": None}, 500, 20),
        ({"n": 2}, None, 8192),
        ({"max_tokens": 10**15, "n": 16}, None, 2**31 - 1),
    ],
)
def test_output_tokens(fields: dict[str, Any], most: int | None, tokens: int):
    assert estimate.output_tokens(request("Hello", **fields), most) == tokens


def test_what_may_be_rejected_of_a_prediction_is_output():
    guessed = {"type": "content", "content": "x" * 3000}
    assert estimate.output_tokens(request("Hello", prediction=guessed, max_tokens=20), None) > 1020
