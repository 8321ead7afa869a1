"""What each failure of a provider means, on real sockets: one request, one code, one outcome."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlsplit

import pytest

from shared.states import Outcome
from tests.workers.litellm_rig import Demo, a_call, error_body, failure, status
from workers.provider import Provider

pytest_plugins = ("tests.workers.litellm_fixtures",)
pytestmark = pytest.mark.anyio

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
    host = str(urlsplit(demo.base).hostname)
    await demo.script(status(400, body=error_body(f"Unknown role 'robot' on {host}, see {demo.base}/roles")))
    error = await failure(provider, a_call(demo.base))

    assert error.message == "Unknown role 'robot' on [hidden], see [hidden]"
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
