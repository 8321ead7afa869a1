"""What clients say reaches the provider as they said it, what it says comes back so; nothing steers the library."""

import json
from dataclasses import replace
from typing import Any

import pytest

from shared.request_fields import CHAT
from tests.workers.litellm_rig import (
    CANARY,
    LIMIT_S,
    Demo,
    a_call,
    a_completion,
    an_embedding,
    choices,
    raw_server,
    status,
    streamed,
)
from tests.workers.test_litellm_provider import simple_globals
from workers.provider import Provider

pytest_plugins = ("tests.workers.litellm_fixtures",)
pytestmark = pytest.mark.anyio

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
FUNCTION = {"name": "f", "description": "d", "parameters": SCHEMA}
EVERY: dict[str, Any] = {
    "temperature": 0.5, "max_tokens": 50, "max_completion_tokens": 60, "top_p": 0.5, "frequency_penalty": 0.1,
    "presence_penalty": 0.2, "stop": ["END"], "parallel_tool_calls": False, "seed": 7, "n": 2, "logprobs": True,
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}},
    "tools": [{"type": "function", "function": {**FUNCTION, "strict": True}}], "tool_choice": "auto",
    "top_logprobs": 2, "logit_bias": {"1": 2}, "user": "u1", "reasoning_effort": "low", "modalities": ["text"],
    "prediction": {"type": "content", "content": "x"}, "service_tier": "flex", "verbosity": "low",
    "audio": {"voice": "alloy", "format": "wav"}, "function_call": "auto", "functions": [FUNCTION],
    "moderation": {"model": "m"}, "prompt_cache_key": "k", "prompt_cache_options": {"mode": "x"},
    "prompt_cache_retention": "24h", "safety_identifier": "s", "store": True,
    "web_search_options": {"search_context_size": "low", "user_location": {"type": "approximate"}},
}  # fmt: skip


def test_every_parameter_that_is_passed_on_is_tried_below() -> None:
    assert set(EVERY) == set(CHAT)


@pytest.mark.parametrize("model", ["openai/gpt-4", "openai/on-our-own-server"])
@pytest.mark.parametrize("is_streamed", [False, True])
async def test_every_parameter_reaches_openais_wire_unchanged(
    provider: Provider, demo: Demo, model: str, is_streamed: bool
) -> None:
    call = replace(a_call(demo.base, **EVERY), litellm_model=model)
    await (streamed(provider, call) if is_streamed else provider.complete(call, timeout_s=LIMIT_S))

    [request] = await demo.requests()
    sent = request["body"]
    told = {"stream": True, "stream_options": {"include_usage": True}} if is_streamed else {}
    assert sent == {"model": model.removeprefix("openai/"), "messages": call.request["messages"], **EVERY, **told}


MESSAGE = {
    "role": "assistant",
    "content": "Hm",
    "refusal": "no",
    "reasoning_content": "think",
    "annotations": [{"type": "url_citation", "url_citation": {"start_index": 0, "end_index": 1, "url": "u"}}],
    "audio": {"id": "a1", "data": "zz", "transcript": "t", "expires_at": 1},
    "function_call": {"name": "f", "arguments": "{}"},
    "tool_calls": [
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": '{"z":  1}'}},
        {"id": "a", "type": "function", "function": {"name": "g", "arguments": ""}},
        {"id": "c", "type": "custom", "custom": {"name": "own", "input": "x"}},
    ],
}  # fmt: skip
LOGPROBS = {"content": [{"token": "H", "logprob": -0.5, "bytes": None, "top_logprobs": []}], "refusal": None}


async def test_every_field_of_an_answer_comes_back_in_order(provider: Provider, demo: Demo) -> None:
    odd = {"provider_specific_fields": {"x": 1}, "citations": ["u"], "reasoning_items": None}
    first = {"index": 0, "message": MESSAGE | odd, "finish_reason": "stop", "logprobs": LOGPROBS, "x": 1}
    second = {"index": 1, "message": {"role": "assistant", "content": "second"}, "finish_reason": "length"}
    third = {"index": 2, "message": {"role": "assistant", "content": None}, "finish_reason": "content_filter"}
    body = {"id": "c1", "object": "chat.completion", "created": 1, "model": "m", "choices": [third, second, first],
            "service_tier": "flex", "system_fingerprint": "fp_1", "citations": ["u"]}  # fmt: skip
    await demo.script(status(200, body=body))
    answer = await provider.complete(a_call(demo.base, n=3), timeout_s=LIMIT_S)

    assert json.loads(answer.response) == {
        "choices": [
            {"index": 0, "message": MESSAGE, "finish_reason": "stop", "logprobs": LOGPROBS},
            second,
            {"index": 2, "message": {"role": "assistant", "content": ""}, "finish_reason": "content_filter"},
        ],
        "service_tier": "flex",
        "system_fingerprint": "fp_1",
    }
    assert answer.finish_reason == "stop"


ELSEWHERE = "http://127.0.0.1:9/v1"
HOSTILE: dict[str, Any] = {
    "api_base": ELSEWHERE, "base_url": ELSEWHERE, "api_key": "sk-theirs", "custom_llm_provider": "anthropic",
    "extra_headers": {"x-evil": "1"}, "headers": {"x-evil": "1"}, "extra_body": {"model": "gpt-9"},
    "extra_query": {"evil": "1"}, "mock_response": "mocked", "mock_tool_calls": [], "num_retries": 3, "max_retries": 3,
    "fallbacks": ["gpt-9"], "context_window_fallback_dict": {"gpt-4": "gpt-9"}, "input_cost_per_token": 0,
    "output_cost_per_token": 0, "model_list": [{"model_name": "x"}], "client": "x", "organization": "theirs",
    "proxy": ELSEWHERE, "ssl_verify": False, "allowed_openai_params": ["api_base"], "drop_params": True,
    "logger_fn": "x", "cache": {"type": "redis"}, "metadata": {"api_base": ELSEWHERE}, "timeout": 0.001,
    "litellm_credential_name": "x", "azure_ad_token": "x", "model": "gpt-9", "stream": True, "stream_options": {},
}  # fmt: skip


def with_hostile_keys(value: Any) -> Any:
    """The same with the hostile keys in every object inside."""
    if isinstance(value, dict):
        return {name: with_hostile_keys(inner) for name, inner in value.items()} | {
            name: hostile for name, hostile in HOSTILE.items() if name not in value
        }
    return [with_hostile_keys(item) for item in value] if isinstance(value, list) else value


MESSAGE_OF = {"index": 0, "message": {"role": "assistant", "content": "Paris"}, "finish_reason": "stop"}
ANSWERS: dict[str, Any] = {
    "chat": {"choices": [MESSAGE_OF]},
    "completion": {"choices": [{"index": 0, "text": "Paris", "finish_reason": "stop", "logprobs": None}]},
    "embedding": {"data": [{"index": 0, "embedding": [0.5]}]},
}


@pytest.mark.parametrize("kind", ["chat", "completion", "embedding"])
async def test_no_key_of_a_request_steers_where_how_or_as_whom_is_asked(
    library: Any, provider: Provider, kind: str
) -> None:
    deep = {name: with_hostile_keys(EVERY[name]) for name in ("tools", "response_format", "prediction", "functions")}
    messages = [with_hostile_keys({"role": "user", "content": "Capital of France?"})]
    body = json.dumps({"id": "c1", "model": "m", "object": "chat.completion", **ANSWERS[kind]}).encode()
    before = simple_globals(library)
    async with raw_server(body, content_type="application/json") as (url, seen):
        makers = {"chat": a_call, "completion": a_completion, "embedding": an_embedding}
        call = makers[kind](url) if kind == "chat" else makers[kind](url, "Capital of France?")  # type: ignore[operator]
        subject = {**deep, "messages": messages} if kind == "chat" else call.request
        answer = await provider.complete(replace(call, request=HOSTILE | subject), timeout_s=LIMIT_S)

    [request] = seen
    head, _, sent = request.partition(b"\r\n\r\n")
    assert f"bearer {CANARY}".encode() in head.lower()
    assert b"evil" not in head.lower()
    assert b"organization" not in head.lower()
    asked = json.loads(sent)
    assert asked["model"] == str(call.litellm_model).partition("/")[2]
    assert set(asked) <= {"model", "messages", "prompt", "input", "encoding_format", "stream", *deep}
    assert asked.get("stream") in (None, False)
    assert json.loads(answer.response).keys() <= ANSWERS[kind].keys()
    assert "mocked" not in answer.response
    assert simple_globals(library) == before


async def test_word_of_a_dialect_becomes_openais_finish_reason(provider: Provider, demo: Demo) -> None:
    words = {"eos_token": "stop", "max_tokens": "length", "SAFETY": "content_filter", "tool_use": "tool_calls"}
    for word, meant in words.items():
        await demo.script({"say": {"text": "Hi", "finish_reason": word}})
        answer = await provider.complete(a_call(demo.base), timeout_s=LIMIT_S)
        assert choices(answer)[0]["finish_reason"] == answer.finish_reason == meant
