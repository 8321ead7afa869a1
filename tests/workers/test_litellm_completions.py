"""Text completions on real sockets: those of models that have them, and those that a chat model gives."""

import json
from dataclasses import replace
from typing import Any

import pytest

from shared.attempt_reports import Usage
from shared.calls import Claimed
from shared.states import Outcome
from tests.workers.litellm_rig import (
    CANARY,
    DONE,
    LIMIT_S,
    Demo,
    Heard,
    a_completion,
    choices,
    failure,
    frame,
    from_anthropic,
    raw_server,
    status,
    streamed,
)
from tests.workers.test_litellm_streams import ANTHROPIC
from workers.provider import Provider

pytest_plugins = ("tests.workers.litellm_fixtures",)
pytestmark = pytest.mark.anyio

NATIVE, CHATS = "openai/instruct-1", "openai/gpt-4"
TWO = ["capital of France", "capital of Italy"]


@pytest.mark.parametrize("model", [NATIVE, "text-completion-openai/davinci-002", "hosted_vllm/any"])
async def test_model_with_text_completions_is_asked_as_the_client_asked(
    provider: Provider, demo: Demo, model: str
) -> None:
    asked: dict[str, Any] = {
        "max_tokens": 50, "n": 2, "best_of": 2, "echo": True, "logprobs": 1, "suffix": "!", "temperature": 0.5,
        "stop": ["END"], "seed": 7, "user": "u1", "logit_bias": {"1": 2}, "top_p": 0.5, "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
    }  # fmt: skip
    smuggled = {"api_base": "http://127.0.0.1:9", "extra_body": {"x": 1}, "mock_response": "x", "stream": True}
    call = a_completion(demo.base, TWO, model=model, **asked, **smuggled)
    answer = await provider.complete(call, timeout_s=LIMIT_S)

    [request] = await demo.requests()
    assert request["path"] == "/v1/completions"
    assert request["body"] == {"model": model.partition("/")[2], "prompt": TWO, "stream": False, **asked}
    assert request["headers"]["x-client-request-id"] == f"{call.id}.1"
    assert request["headers"]["authorization"] == f"...{CANARY[-4:]}"
    assert [choice["index"] for choice in choices(answer)] == [0, 1, 2, 3]
    assert all(choice.keys() == {"index", "text", "finish_reason", "logprobs"} for choice in choices(answer))
    assert choices(answer)[2]["text"].startswith(TWO[1])


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        ("capital of France", {}),
        (TWO, {"n": 2}),
        ([1, 2, 3], {}),
        ([[1, 2], [3]], {"n": 2}),
        ("capital of France", {"logprobs": 2}),
        ("30 words", {"max_tokens": 4}),
    ],
)
async def test_streamed_completion_is_stored_like_any_other(
    provider: Provider, demo: Demo, prompt: Any, asked: dict[str, Any]
) -> None:
    await demo.script({"stream": {"choices": "mixed"}}, {"stream": {"choices": "mixed"}})
    call = a_completion(demo.base, prompt, **asked)
    whole = await provider.complete(call, timeout_s=LIMIT_S)
    answer, heard = await streamed(provider, call)

    assert json.loads(answer.response) == json.loads(whole.response)
    assert (answer.finish_reason, answer.usage) == (whole.finish_reason, whole.usage)
    assert answer.usage.source == "provider"
    for choice in choices(answer):
        assert heard.text(choice["index"], "text") == choice["text"]
    assert all("finish_reason" not in piece for piece in heard.pieces)
    assert [request["body"]["prompt"] for request in await demo.requests()] == [prompt, prompt]


async def test_failures_of_completions_mean_what_they_mean_anywhere(provider: Provider, demo: Demo) -> None:
    await demo.script(
        status(429, headers={"Retry-After": "7"}),
        {"fault": "reset"},
        {"fault": "garbage"},
        status(307, headers={"Location": f"{demo.base}/completions"}),
    )
    found = [await failure(provider, a_completion(demo.base, "x")) for _ in range(4)]
    refused = await failure(provider, a_completion("http://127.0.0.1:1/v1", "x"))

    assert [(error.code, error.outcome) for error in (*found, refused)] == [
        ("provider_rate_limit", Outcome.FAILED),
        ("provider_error", Outcome.UNKNOWN),
        ("provider_error", Outcome.UNKNOWN),
        ("provider_error", Outcome.FAILED),
        ("provider_error", Outcome.FAILED),
    ]
    assert found[0].retry_after_s == 7
    assert len(await demo.requests()) == 4


@pytest.mark.parametrize(
    ("step", "code"),
    [
        ({"fault": "cut", "chunks": 5}, "provider_error"),
        ({"fault": "no_finish"}, "provider_error"),
        ({"fault": "stream_error", "chunks": 5, "status": 429}, "provider_rate_limit"),
    ],
)
async def test_broken_stream_of_a_completion_is_unknown(
    provider: Provider, demo: Demo, step: dict[str, Any], code: str
) -> None:
    await demo.script(step)
    error = await failure(provider, a_completion(demo.base, "30 words"), sink=(heard := Heard()))

    assert (error.code, error.outcome) == (code, Outcome.UNKNOWN)
    assert heard.text(name="text")


@pytest.mark.parametrize("prompt", ["capital of France", ["capital of France"]])
async def test_chat_model_answers_one_prompt_as_a_message(provider: Provider, demo: Demo, prompt: Any) -> None:
    call = a_completion(demo.base, prompt, model=CHATS, n=2, logprobs=1, max_tokens=9, best_of=2)
    whole = await provider.complete(call, timeout_s=LIMIT_S)
    answer, heard = await streamed(provider, call)

    requests = await demo.requests()
    assert [request["path"] for request in requests] == ["/v1/chat/completions"] * 2
    assert requests[0]["body"] == {
        "model": "gpt-4", "messages": [{"role": "user", "content": "capital of France"}], "n": 2, "max_tokens": 9,
        "logprobs": True, "top_logprobs": 1,
    }  # fmt: skip
    assert json.loads(answer.response) == json.loads(whole.response)
    first = choices(answer)[0]
    assert (first["text"], first["finish_reason"]) == ("Paris", "stop")
    assert first["logprobs"] == {
        "tokens": ["Paris"],
        "token_logprobs": [first["logprobs"]["token_logprobs"][0]],
        "top_logprobs": [first["logprobs"]["top_logprobs"][0]],
        "text_offset": [len("capital of France")],
    }
    assert list(first["logprobs"]["top_logprobs"][0]) == ["Paris"]
    assert heard.text(1, "text") == choices(answer)[1]["text"] == "Paris (2)"


async def test_another_wires_model_completes_too(provider: Provider) -> None:
    async with raw_server(*ANTHROPIC) as (url, _):
        answer, heard = await streamed(provider, from_anthropic(a_completion(url, "Say hello")))

    assert choices(answer) == [{"index": 0, "text": "Bonjour", "finish_reason": "length", "logprobs": None}]
    assert heard.pieces == [{"index": 0, "text": "Bon"}, {"index": 0, "text": "jour"}]
    assert answer.usage == Usage(prompt_tokens=11, completion_tokens=6, source="provider")


@pytest.mark.parametrize(
    ("prompt", "asked", "sentence"),
    [
        (TWO, {}, "one prompt per request"),
        ([1, 2], {}, "not of tokens"),
        ([[1, 2]], {}, "not of tokens"),
        ("x", {"echo": True}, "'echo'"),
        ("x", {"suffix": "!"}, "'suffix'"),
        ("x", {"best_of": 3, "n": 2}, "'best_of'"),
    ],
)
async def test_what_a_chat_model_cannot_do_is_refused_in_a_sentence(
    provider: Provider, demo: Demo, prompt: Any, asked: dict[str, Any], sentence: str
) -> None:
    error = await failure(provider, a_completion(demo.base, prompt, model=CHATS, **asked))

    assert (error.code, error.outcome, error.again) == ("provider_bad_request", Outcome.FAILED, "next")
    assert sentence in str(error.message)
    assert await demo.requests() == []


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("openai/gpt-3.5-turbo-instruct", "/v1/completions"),
        ("openai/gpt-99-newer-than-the-library", "/v1/chat/completions"),
        ("openai/ft:gpt-4o-mini:acme::1", "/v1/chat/completions"),
        ("openai/llama-on-our-own-server", "/v1/completions"),
    ],
)
async def test_which_models_have_text_completions(provider: Provider, demo: Demo, model: str, path: str) -> None:
    await provider.complete(a_completion(demo.base, "Hi", model=model), timeout_s=LIMIT_S)
    assert [request["path"] for request in await demo.requests()] == [path]


async def test_usage_in_a_text_stream_may_be_missing(provider: Provider) -> None:
    said = {
        "id": "c",
        "object": "text_completion",
        "choices": [{"index": 0, "text": "Hi there", "finish_reason": None}],
    }
    end = {"id": "c", "choices": [{"index": 0, "text": "", "finish_reason": "length"}]}
    async with raw_server(frame(said), frame(end), DONE) as (url, _):
        answer, _ = await streamed(provider, a_completion(url, "x"))

    assert answer.usage == Usage(prompt_tokens=77, completion_tokens=3, source="estimated")
    assert answer.finish_reason == "length"


async def test_keys_of_completions_do_not_mix(provider: Provider, demo: Demo) -> None:
    def with_key(call: Claimed, key: str) -> Claimed:
        from tests.workers.litellm_rig import SEALER

        return replace(call, api_key_sealed=SEALER.seal(key, purpose="model_aliases.api_key:fast"))

    for key in ("sk-number-0001", "sk-number-0002", "sk-number-0001"):
        await provider.complete(with_key(a_completion(demo.base, key), key), timeout_s=LIMIT_S)

    requests = await demo.requests()
    assert len(requests) == 3
    assert all(request["message"][-4:] == request["headers"]["authorization"][-4:] for request in requests)
