"""The contract of litellm with us, on real sockets: one request per attempt, what each failure means, what leaks."""

import asyncio
import base64
import contextlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from shared.calls import Claimed
from shared.closing import Usage
from shared.credentials import Sealer
from shared.settings import Settings
from shared.states import Outcome
from workers.environment import prepare_environment, take_provider_keys
from workers.provider import Answer, Provider, ProviderError

ROOT = Path(__file__).parents[2]
LIMIT_S = 20
CANARY = "canary-9f3b71d2c4-key"
SEALER = Sealer(base64.b64encode(b"e" * 32).decode())

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def demo_url() -> Iterator[str]:
    command = [sys.executable, "-m", "cli.demo_provider", "--port", "0", "--control"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1].removesuffix("/v1")
        finally:
            process.kill()


class Demo:
    """The demo provider's control door."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self.client = client
        self.base = f"{url}/v1"

    async def script(self, *steps: dict[str, Any], **fields: Any) -> None:
        (await self.client.post("/_control/script", json={"steps": steps, **fields})).raise_for_status()

    async def requests(self, **which: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.client.get("/_control/requests", params=which)).json()["requests"]
        return found

    async def reached(self, **which: Any) -> bool:
        answer = await self.client.get("/_control/wait", params={"timeout": LIMIT_S, **which})
        return bool(answer.raise_for_status().json()["reached"])


@pytest.fixture
async def demo(demo_url: str) -> AsyncIterator[Demo]:
    async with httpx.AsyncClient(base_url=demo_url, timeout=LIMIT_S + 5) as client:
        await client.post("/_control/reset")
        yield Demo(client, demo_url)


@pytest.fixture(scope="session")
def library() -> Any:
    """litellm, imported once per process and as the worker does it."""
    prepare_environment(1000)
    import workers.litellm_provider

    return workers.litellm_provider


def make(library: Any, provider_keys: dict[str, str] | None = None, **settings: Any) -> Any:
    return library.LitellmProvider(Settings(**settings), SEALER, provider_keys or {})


@pytest.fixture(scope="module")
async def provider(library: Any) -> AsyncIterator[Provider]:
    made = make(library)
    yield made
    await made.aclose()


def a_call(
    base: str | None, *, key: str | None = CANARY, question: str = "Capital of France?", **request: Any
) -> Claimed:
    sealed = None if key is None else SEALER.seal(key, purpose="model_aliases.api_key:fast")
    messages = [{"role": "user", "content": question}]
    return Claimed(
        id=uuid4(), job_id=uuid4(), team_id="t1", number=1, candidates=["fast"], candidate=0, candidate_attempts=0,
        failures=0, estimated_prompt_tokens=77, estimated_output_tokens=500, created_at=datetime.now(UTC),
        deadline_in_s=3600, request={"messages": messages, **request}, markup_percentage=0, alias="fast",
        litellm_model="openai/gpt-4", provider="openai", api_base=base, api_key_sealed=sealed,
        input_nanousd_per_mtok=None, output_nanousd_per_mtok=None, cached_input_nanousd_per_mtok=None,
        on_unknown="retry",
    )  # fmt: skip


async def failure(provider: Provider, call: Claimed, timeout_s: float = LIMIT_S) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await provider.complete(call, timeout_s=timeout_s)
    return caught.value


def error_body(message: str, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}


def status(status: int, **more: Any) -> dict[str, Any]:
    return {"fault": "status", "status": status, **more}


async def test_answer_holds_openais_fields_and_nothing_of_the_library(provider: Provider, demo: Demo) -> None:
    call = a_call(demo.base)
    answer = await provider.complete(call, timeout_s=LIMIT_S)

    assert json.loads(answer.response) == {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Paris"}, "finish_reason": "stop"}],
        "service_tier": "default",
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

    assert json.loads(answer.response)["choices"][0]["message"] == message | {"content": ""}


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


FAILED, UNKNOWN = Outcome.FAILED, Outcome.UNKNOWN
LONG, POLICY, QUOTA = "context_length_exceeded", "content_policy_violation", "insufficient_quota"
TABLE = [
    (status(400), "provider_bad_request", FAILED, "never", 400),
    (status(400, body=error_body("maximum context length is 10 tokens", LONG)), LONG, FAILED, "next", 400),
    (status(400, body=error_body("rejected by our safety system", POLICY)), POLICY, FAILED, "never", 400),
    (status(401), "provider_auth", FAILED, "next", 401),
    (status(402), "provider_auth", FAILED, "next", 402),
    (status(403), "provider_auth", FAILED, "next", 403),
    (status(404), "provider_error", FAILED, "next", 404),
    (status(408), "provider_error", FAILED, "same", 408),
    (status(409), "provider_error", FAILED, "same", 409),
    (status(422), "provider_bad_request", FAILED, "never", 422),
    (status(429), "provider_rate_limit", FAILED, "same", 429),
    (status(429, body=error_body("check your plan", QUOTA)), "provider_auth", FAILED, "next", 429),
    (status(500), "provider_error", FAILED, "same", 500),
    (status(503), "provider_error", FAILED, "same", 503),
    (status(529), "provider_error", FAILED, "same", 529),
    ({"fault": "reset"}, "provider_error", UNKNOWN, "same", None),
    ({"fault": "cut"}, "provider_error", UNKNOWN, "same", 200),
    ({"fault": "garbage"}, "provider_error", UNKNOWN, "same", 200),
    ({"fault": "empty"}, "provider_error", UNKNOWN, "same", 200),
    (status(200, body={"choices": []}), "provider_error", UNKNOWN, "same", 200),
    (status(200, body=error_body("in the body")), "provider_error", UNKNOWN, "same", 200),
]


@pytest.mark.parametrize(("step", "code", "outcome", "again", "http_status"), TABLE)
async def test_failure_is_one_request_and_means_this(
    provider: Provider,
    demo: Demo,
    step: dict[str, Any],
    code: str,
    outcome: Outcome,
    again: str,
    http_status: int | None,
) -> None:
    await demo.script(step, step, step)
    error = await failure(provider, a_call(demo.base))

    assert (error.code, error.outcome, error.again, error.http_status) == (code, outcome, again, http_status)
    assert len(await demo.requests()) == 1


@pytest.mark.parametrize("fault", ["hang", "stall"])
async def test_silent_provider_is_an_unknown_timeout(provider: Provider, demo: Demo, fault: str) -> None:
    await demo.script({"fault": fault})
    error = await failure(provider, a_call(demo.base), timeout_s=1)

    assert (error.code, error.outcome, error.again) == ("provider_timeout", UNKNOWN, "same")
    assert len(await demo.requests()) == 1


@pytest.mark.parametrize("base", ["http://127.0.0.1:1/v1", "http://no-such-host.invalid/v1"])
async def test_no_connection_means_that_nothing_was_sent(provider: Provider, base: str) -> None:
    error = await failure(provider, a_call(base))

    assert (error.code, error.outcome, error.again, error.http_status) == ("provider_error", FAILED, "same", None)


async def test_redirect_is_not_followed(provider: Provider, demo: Demo) -> None:
    await demo.script(status(307, headers={"Location": f"{demo.base}/chat/completions"}))
    error = await failure(provider, a_call(demo.base))

    assert (error.code, error.outcome, error.again, error.http_status) == ("provider_error", FAILED, "next", 307)
    assert len(await demo.requests()) == 1


async def test_parameter_that_the_model_lacks_is_a_bad_request_never_sent(provider: Provider, demo: Demo) -> None:
    call = replace(a_call(demo.base, logit_bias={"1": 2}), litellm_model="anthropic/claude-x", provider="anthropic")
    error = await failure(provider, call)

    assert (error.code, error.outcome, error.again) == ("provider_bad_request", FAILED, "never")
    assert "logit_bias" in (error.message or "")
    assert "claude" not in (error.message or "")
    assert await demo.requests() == []


async def test_retry_after_is_read_as_seconds_and_as_a_date(provider: Provider, demo: Demo) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=600), usegmt=True)
    await demo.script(*(status(429, headers={"Retry-After": value}) for value in ("2.5", date, "86400", "soon")))
    waits = [(await failure(provider, a_call(demo.base))).retry_after_s for _ in range(4)]

    assert waits[0] == 2.5
    assert waits[1] is not None
    assert 500 < waits[1] <= 600
    assert waits[2:] == [3600, None]


async def test_error_brings_the_providers_words_and_request_id(provider: Provider, demo: Demo) -> None:
    await demo.script(status(400, body=error_body("Unknown role 'robot'.")))
    error = await failure(provider, a_call(demo.base))

    assert error.message == "Unknown role 'robot'."
    assert str(error.provider_request_id).startswith("req_")


@contextlib.asynccontextmanager
async def small_server(answer: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Answers every request alike; its URL and the requests it saw."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        seen.append(head + await reader.readexactly(length))
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", seen


async def test_anthropics_errors_are_read_from_its_own_wire(provider: Provider) -> None:
    body = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
    head = b"HTTP/1.1 529 Overloaded\r\ncontent-type: application/json\r\nretry-after: 7\r\nrequest-id: req_a1\r\n"
    answer = head + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body
    async with small_server(answer) as (url, seen):
        call = replace(a_call(url), litellm_model="anthropic/claude-sonnet-4-5", provider="anthropic")
        error = await failure(provider, call)

    assert (error.code, error.outcome, error.again, error.http_status) == ("provider_error", FAILED, "same", 529)
    assert (error.retry_after_s, error.message, error.provider_request_id) == (7, "Overloaded", "req_a1")
    assert len(seen) == 1


async def test_connection_anthropic_drops_is_unknown(provider: Provider) -> None:
    async with small_server(b"") as (url, seen):
        call = replace(a_call(url), litellm_model="anthropic/claude-sonnet-4-5", provider="anthropic")
        error = await failure(provider, call)

    assert (error.code, error.outcome, error.again) == ("provider_error", UNKNOWN, "same")
    assert len(seen) == 1


async def test_deleted_alias_and_missing_keys_send_nothing(library: Any, provider: Provider, demo: Demo) -> None:
    deleted = await failure(provider, replace(a_call(demo.base), litellm_model=None))
    keyless = await failure(provider, a_call(None, key=None))
    foreign = replace(a_call(demo.base), alias="other")
    unsealed = await failure(provider, foreign)
    switched_off = make(library, {"openai": CANARY}, provider_env_fallback=False)
    unused = await failure(switched_off, a_call(None, key=None))

    assert [error.code for error in (deleted, keyless, unsealed, unused)] == ["provider_error", *["provider_auth"] * 3]
    assert {(error.outcome, error.again) for error in (deleted, keyless, unsealed, unused)} == {(FAILED, "next")}
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
    assert [provider._timeout(seconds).read for seconds in (0.3, 1, 1.5, 700)] == [1, 1, 2, 700]
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
