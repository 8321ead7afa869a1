"""The contract of litellm with us, on real sockets: what is sent, what an answer becomes, what leaks."""

import asyncio
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from shared.attempt_reports import Usage
from shared.states import Outcome
from tests.workers.litellm_rig import CANARY, LIMIT_S, Demo, a_call, error_body, failure, make, status
from workers.environment import take_provider_keys
from workers.provider import Answer, Provider

pytest_plugins = ("tests.workers.litellm_fixtures",)
pytestmark = pytest.mark.anyio


async def test_answer_holds_openais_fields_and_nothing_of_the_library(provider: Provider, demo: Demo) -> None:
    call = a_call(demo.base)
    answer = await provider.complete(call, timeout_s=LIMIT_S)

    assert json.loads(answer.response) == {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Paris"}, "finish_reason": "stop"}],
        "service_tier": "default",
        "system_fingerprint": "fp_demo",
    }
    assert answer.finish_reason == "stop"
    assert answer.usage == Usage(prompt_tokens=12, completion_tokens=2, source="provider")
    assert answer.provider_request_id
    assert answer.provider_request_id.startswith("req_")
    [request] = await demo.requests()
    assert request["headers"]["x-client-request-id"] == f"{call.id}.1"
    assert request["headers"]["authorization"] == f"...{CANARY[-4:]}"


async def test_only_whitelisted_fields_reach_the_provider(provider: Provider, demo: Demo) -> None:
    sent: dict[str, Any] = {"temperature": 0.5, "max_tokens": 50, "seed": 7, "n": 2, "stop": ["END"], "user": None}
    smuggled: dict[str, Any] = {
        "api_base": "http://127.0.0.1:9",
        "mock_response": "x",
        "num_retries": 3,
        "extra_headers": {"x": "y"},
    }
    await provider.complete(a_call(demo.base, **sent, **smuggled, metadata={"a": 1}, model="gpt-9"), timeout_s=LIMIT_S)

    [request] = await demo.requests()
    assert request["body"] == {
        "model": "gpt-4",
        "messages": [{"role": "user", "content": "Capital of France?"}],
        **{name: value for name, value in sent.items() if value is not None},
    }
    assert "x" not in request["headers"]


async def test_tools_and_logprobs_and_all_choices_are_kept(provider: Provider, demo: Demo) -> None:
    function = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
    forced: dict[str, Any] = {"tools": [{"type": "function", "function": function}], "tool_choice": "required"}
    called = json.loads((await provider.complete(a_call(demo.base, **forced), timeout_s=LIMIT_S)).response)
    spoken = json.loads((await provider.complete(a_call(demo.base, logprobs=True, n=2), timeout_s=LIMIT_S)).response)

    [choice] = called["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    [tool_call] = choice["message"]["tool_calls"]
    assert set(tool_call) == {"id", "type", "function"}
    assert tool_call["function"]["name"] == "weather"
    assert json.loads(tool_call["function"]["arguments"]).keys() == {"city"}
    assert [choice["index"] for choice in spoken["choices"]] == [0, 1]
    assert all(choice["logprobs"]["content"][0]["token"] for choice in spoken["choices"])


async def test_refusal_stays_where_the_provider_put_it(provider: Provider, demo: Demo) -> None:
    message = {"role": "assistant", "content": None, "refusal": "I cannot."}
    body = {"id": "c1", "object": "chat.completion", "created": 1, "model": "gpt-4",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}  # fmt: skip
    await demo.script(status(200, body=body))
    answer = await provider.complete(a_call(demo.base), timeout_s=LIMIT_S)

    assert json.loads(answer.response)["choices"][0]["message"] == message


@pytest.mark.parametrize(
    ("step", "usage"),
    [
        ({"fault": "no_usage"}, Usage(prompt_tokens=77, completion_tokens=2, source="estimated")),
        ({"fault": "usage", "prompt_tokens": 0, "completion_tokens": 0}, Usage(source="provider")),
        (
            {"fault": "usage", "prompt_tokens": 9, "completion_tokens": 8, "cached_tokens": 5, "reasoning_tokens": 3},
            Usage(prompt_tokens=9, completion_tokens=8, cached_tokens=5, reasoning_tokens=3, source="provider"),
        ),
    ],
)
async def test_reported_zero_and_missing_usage_are_three_things(
    provider: Provider, demo: Demo, step: dict[str, Any], usage: Usage
) -> None:
    await demo.script(step)
    assert (await provider.complete(a_call(demo.base), timeout_s=LIMIT_S)).usage == usage


async def test_bare_zeros_without_details_are_a_report(provider: Provider, demo: Demo) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    body = {"id": "c1", "object": "chat.completion", "created": 1, "model": "gpt-4", "choices": [choice]}
    await demo.script(status(200, body=body | {"usage": usage}), status(200, body=body))

    assert (await provider.complete(a_call(demo.base), timeout_s=LIMIT_S)).usage.source == "provider"
    assert (await provider.complete(a_call(demo.base), timeout_s=LIMIT_S)).usage.source == "estimated"


async def test_deleted_alias_and_missing_keys_send_nothing(library: Any, provider: Provider, demo: Demo) -> None:
    deleted = await failure(provider, replace(a_call(demo.base), litellm_model=None))
    keyless = await failure(provider, a_call(None, key=None))
    foreign = replace(a_call(demo.base), alias="other")
    unsealed = await failure(provider, foreign)
    switched_off = make(library, {"openai": CANARY}, provider_env_fallback=False)
    unused = await failure(switched_off, a_call(None, key=None))

    assert [error.code for error in (deleted, keyless, unsealed, unused)] == ["provider_error", *["provider_auth"] * 3]
    assert {(error.outcome, error.again) for error in (deleted, keyless, unsealed, unused)} == {
        (Outcome.FAILED, "next")
    }
    assert await demo.requests() == []


async def test_servers_own_key_never_goes_to_a_base_of_somebody_else(library: Any, demo: Demo) -> None:
    provider = make(library, {"openai": CANARY})
    await provider.complete(a_call(demo.base, key=None), timeout_s=LIMIT_S)
    await provider.aclose()

    [request] = await demo.requests()
    assert request["headers"]["authorization"] == "...none"


async def test_keys_of_calls_do_not_mix(provider: Provider, demo: Demo) -> None:
    keys = [f"sk-key-number-{n:04}" for n in range(8)]
    calls = [a_call(demo.base, key=key, question=f"Question of {key[-4:]}") for key in keys]
    await asyncio.gather(*(provider.complete(call, timeout_s=LIMIT_S) for call in calls))

    requests = await demo.requests()
    assert len(requests) == 8
    assert all(request["message"][-4:] == request["headers"]["authorization"][-4:] for request in requests)


async def test_hundred_calls_wait_side_by_side(provider: Provider, demo: Demo) -> None:
    await demo.client.post("/_control/hold", json={})
    asked = [asyncio.ensure_future(provider.complete(a_call(demo.base), timeout_s=LIMIT_S)) for _ in range(100)]
    assert await demo.reached(outcome="held", count=100)
    await demo.client.post("/_control/release")

    answers: list[Answer] = await asyncio.gather(*asked)
    assert {json.loads(answer.response)["choices"][0]["message"]["content"] for answer in answers} == {"Paris"}


async def test_cancelled_call_closes_its_connection(provider: Provider, demo: Demo) -> None:
    await demo.script({"fault": "hang"})
    asked = asyncio.ensure_future(provider.complete(a_call(demo.base), timeout_s=LIMIT_S))
    assert await demo.reached(count=1)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked

    answer = await demo.client.get("/_control/wait", params={"outcome": "disconnected", "timeout": 1})
    assert answer.json()["reached"]


async def test_key_appears_in_no_error_and_no_log(
    provider: Provider, demo: Demo, caplog: pytest.LogCaptureFixture
) -> None:
    leaking = [
        status(code, body=error_body(f"Key {CANARY} sent as Bearer {CANARY} to http://x/?key={CANARY}"))
        for code in (400, 401, 404, 422, 429, 500)
    ]
    await demo.script(*leaking, {"fault": "garbage"}, {"fault": "reset"})
    with caplog.at_level(logging.DEBUG):
        errors = [await failure(provider, a_call(demo.base)) for _ in range(8)]

    for error in errors:
        shown = f"{error!r} {error} {vars(error)}"
        assert CANARY not in shown
        assert "?key" not in shown
        assert error.__context__ is None
        assert error.__cause__ is None
        assert not any(CANARY in repr(value) for value in frame_values(error))
    assert CANARY not in caplog.text
    assert "Key [hidden]" in str(errors[0].message)


def frame_values(error: BaseException) -> Iterator[object]:
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename != __file__:
            yield from trace.tb_frame.f_locals.values()
        trace = trace.tb_next


async def test_globals_of_the_library_stay_as_they_are(library: Any, provider: Provider, demo: Demo) -> None:
    before = simple_globals(library)
    await demo.script(status(429), status(500), {"fault": "no_usage"})
    for _ in range(2):
        await failure(provider, a_call(demo.base))
    for _ in range(2):
        await provider.complete(a_call(demo.base, temperature=0.2), timeout_s=LIMIT_S)

    assert simple_globals(library) == before


def simple_globals(library: Any) -> dict[str, str]:
    kinds = (str, int, float, bool, type(None), list, dict, set, tuple)
    shown = {name: value for name, value in vars(library.litellm).items() if isinstance(value, kinds)}
    return {name: repr(value) for name, value in shown.items() if not name.startswith("__")}


@pytest.mark.parametrize(
    ("name", "value"), [("num_retries", 2), ("drop_params", True), ("api_base", "http://x"), ("callbacks", ["x"])]
)
def test_library_that_somebody_configured_is_refused(
    library: Any, monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    monkeypatch.setattr(library.litellm, name, value)
    with pytest.raises(RuntimeError, match=name):
        make(library)


def test_clients_are_kept_across_deadlines(library: Any) -> None:
    provider = make(library, provider_timeout_s=600, provider_connect_timeout_s=4)
    reads = {provider._timeout(seconds).read for seconds in (513, 550.123, 599.9, 600)}

    assert reads == {600}
    assert [provider._timeout(seconds).read for seconds in (0.3, 1, 1.5, 700)] == [1, 1, 2, 1024]
    assert provider._timeout(1).connect == 4


def test_provider_keys_leave_the_environment() -> None:
    environ = {
        "OPENAI_API_KEY": " sk-one ", "OPENAI_BASE_URL": "http://x", "ANTHROPIC_API_KEY": "", "HF_TOKEN": "hf",
        "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "eu-west-1", "TOGETHERAI_API_KEY": "t", "GOOGLE_API_KEY": "g",
        "AZURE_API_VERSION": "2026", "PATH": "/bin", "WAYBILL_ENV": "production",
    }  # fmt: skip
    keys = take_provider_keys(environ)

    assert keys == {"openai": "sk-one", "huggingface": "hf", "together_ai": "t", "gemini": "g"}
    assert environ.keys() == {"AWS_REGION", "AZURE_API_VERSION", "PATH", "WAYBILL_ENV"}


def test_environment_is_prepared_for_as_many_calls_as_may_be_in_flight(library: Any) -> None:
    assert int(os.environ["AIOHTTP_CONNECTOR_LIMIT_PER_HOST"]) > 1000
    assert library.litellm.REPEATED_STREAMING_CHUNK_LIMIT > 10**9
