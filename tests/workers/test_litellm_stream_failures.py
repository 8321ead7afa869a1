"""What a chat stream that breaks means, wherever it breaks: never a whole answer, never the provider still at work."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from shared.attempt_reports import Usage
from shared.states import Outcome
from tests.workers.litellm_rig import (
    CANARY,
    DONE,
    LIMIT_S,
    Demo,
    Heard,
    a_call,
    choices,
    chunk,
    error_body,
    failure,
    frame,
    from_anthropic,
    make,
    raw_server,
    status,
    streamed,
)
from tests.workers.test_litellm_streams import anthropic
from workers.provider import Provider, ProviderError
from workers.stream_reading import SinkFailed

pytest_plugins = ("tests.workers.litellm_fixtures",)
pytestmark = pytest.mark.anyio

FAILED, UNKNOWN = Outcome.FAILED, Outcome.UNKNOWN
QUOTA, LONG = "insufficient_quota", "context_length_exceeded"
HUNDRED = "100 words"


def meaning(error: ProviderError) -> tuple[Any, ...]:
    return error.code, error.outcome, error.again


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (status(429), ("provider_rate_limit", FAILED, "same")),
        (status(401), ("provider_auth", FAILED, "next")),
        (status(500), ("provider_error", FAILED, "same")),
        ({"fault": "reset"}, ("provider_error", UNKNOWN, "same")),
        ({"fault": "garbage"}, ("provider_error", UNKNOWN, "same")),
        ({"fault": "empty"}, ("provider_error", UNKNOWN, "same")),
        ({"fault": "cut", "chunks": 0}, ("provider_error", UNKNOWN, "same")),
    ],
)
async def test_failure_before_the_first_chunk_means_what_it_means_anywhere(
    provider: Provider, demo: Demo, step: dict[str, Any], expected: tuple[str, Outcome, str]
) -> None:
    await demo.script(step, step)
    heard = Heard()
    error = await failure(provider, a_call(demo.base), sink=heard)

    assert meaning(error) == expected
    assert heard.pieces == []
    assert len(await demo.requests()) == 1


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ({"fault": "cut", "chunks": 20}, ("provider_error", UNKNOWN, "same")),
        ({"fault": "reset", "chunks": 20}, ("provider_error", UNKNOWN, "same")),
        ({"fault": "bad_chunk", "chunks": 20}, ("provider_error", UNKNOWN, "same")),
        ({"fault": "no_finish"}, ("provider_error", UNKNOWN, "same")),
        ({"fault": "stream_error", "chunks": 20}, ("provider_error", UNKNOWN, "same")),
        ({"fault": "stream_error", "chunks": 20, "status": 429}, ("provider_rate_limit", UNKNOWN, "same")),
        ({"fault": "stream_error", "chunks": 20, "status": 401}, ("provider_auth", UNKNOWN, "next")),
    ],
)
async def test_stream_that_breaks_after_words_is_unknown_and_keeps_its_class(
    provider: Provider, demo: Demo, step: dict[str, Any], expected: tuple[str, Outcome, str]
) -> None:
    await demo.script(step, step)
    heard = Heard()
    error = await failure(provider, a_call(demo.base, question=HUNDRED), sink=heard)

    assert meaning(error) == expected
    # A reset may overtake words that were on their way.
    assert heard.text().startswith("the parcel") or step["fault"] == "reset"
    assert error.http_status == 200
    assert len(await demo.requests()) == 1


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"message": "slow down", "code": 429}, ("provider_rate_limit", "same")),
        ({"message": "slow down", "code": "rate_limit_exceeded"}, ("provider_rate_limit", "same")),
        ({"message": "pay first", "code": QUOTA, "type": QUOTA}, ("provider_auth", "next")),
        ({"message": "no", "code": "503"}, ("provider_error", "same")),
        ({"message": "too long", "code": LONG, "type": "invalid_request_error"}, (LONG, "next")),
        ({"message": "no", "type": "invalid_request_error"}, ("provider_bad_request", "never")),
        ({"message": "busy", "type": "overloaded_error"}, ("provider_error", "same")),
        ("out of memory", ("provider_error", "same")),
    ],
)
async def test_error_in_the_stream_is_classed_by_its_words(
    provider: Provider, said: Any, expected: tuple[str, str]
) -> None:
    async with raw_server(chunk({"content": "Hi"}), frame({"error": said})) as (url, _):
        error = await failure(provider, a_call(url), sink=(heard := Heard()))

    assert (error.code, error.again) == expected
    assert error.outcome == UNKNOWN
    assert error.message == (said if isinstance(said, str) else said["message"])
    assert heard.text() == "Hi"


async def test_error_in_the_stream_tells_no_secret(provider: Provider) -> None:
    said = error_body(f"Key {CANARY} at http://10.0.0.7/x?key={CANARY} failed")
    async with raw_server(chunk({"content": "Hi"}), frame(said)) as (url, _):
        error = await failure(provider, a_call(url), sink=Heard())

    assert CANARY not in f"{error!r} {vars(error)}"
    assert "Key [hidden]" in str(error.message)
    assert (error.__context__, error.__cause__) == (None, None)


@pytest.mark.parametrize("name", ["error", "event"])
async def test_other_forms_of_an_error_are_seen(provider: Provider, name: str) -> None:
    said = {"object": "error", "message": "boom", "code": 429} if name == "error" else {"message": "boom", "code": 429}
    told = (b"event: error\n" if name == "event" else b"") + frame(said)
    async with raw_server(chunk({"content": "Hi"}), told, DONE) as (url, _):
        error = await failure(provider, a_call(url), sink=Heard())

    assert (error.code, error.message) == ("provider_rate_limit", "boom")


async def test_choice_that_did_not_end_fails_the_answer(provider: Provider) -> None:
    frames = [chunk({"content": "a"}), chunk({"content": "b"}, index=1), chunk({}, finish="stop")]
    async with raw_server(*frames, DONE) as (url, _):
        error = await failure(provider, a_call(url, n=2), sink=Heard())
    assert meaning(error) == ("provider_error", UNKNOWN, "same")

    async with raw_server(chunk({"content": "a"}), chunk({}, finish="stop")) as (url, _):
        error = await failure(provider, a_call(url, n=2), sink=Heard())
    assert meaning(error) == ("provider_error", UNKNOWN, "same")


@pytest.mark.parametrize("step", [{"fault": "no_done"}, {"fault": "cut", "chunks": -1}, {"fault": "cut", "chunks": -2}])
async def test_cut_after_the_last_finish_loses_no_answer(provider: Provider, demo: Demo, step: dict[str, Any]) -> None:
    asked = a_call(demo.base, question="30 words")
    steps = [{"fault": "cut", "chunks": 32}] if step.get("chunks") == -2 else [step]
    await demo.script(*steps)
    answer, heard = await streamed(provider, asked)

    assert choices(answer)[0]["finish_reason"] == "stop"
    assert choices(answer)[0]["message"]["content"] == heard.text()
    if step.get("chunks") == -2:
        assert answer.usage.source == "estimated"
        assert answer.usage != Usage(source="estimated")


async def test_silence_before_and_between_chunks_is_a_timeout(library: Any, demo: Demo) -> None:
    hasty = make(library, first_chunk_timeout_s=0.4, chunk_timeout_s=5)
    await demo.script({"fault": "hang"}, {"fault": "stall", "chunks": 0})
    before = [await failure(hasty, a_call(demo.base), sink=Heard()) for _ in range(2)]
    await hasty.aclose()
    patient = make(library, first_chunk_timeout_s=5, chunk_timeout_s=0.4)
    await demo.script({"fault": "stall", "chunks": 5})
    between = await failure(patient, a_call(demo.base, question=HUNDRED), sink=(heard := Heard()))
    await patient.aclose()

    for error in (*before, between):
        assert meaning(error) == ("provider_timeout", UNKNOWN, "same")
    assert heard.text().startswith("the parcel")
    assert await demo.reached(outcome="disconnected", count=3)


async def test_comments_of_a_provider_are_no_chunks(library: Any) -> None:
    provider = make(library, first_chunk_timeout_s=0.4, chunk_timeout_s=5)
    async with raw_server(*[b": still working\n\n"] * 20, pause_s=0.1) as (url, _):
        error = await failure(provider, a_call(url), sink=Heard())
    await provider.aclose()

    assert error.code == "provider_timeout"


async def test_slow_chunks_inside_the_limit_are_an_answer(library: Any, demo: Demo) -> None:
    provider = make(library, first_chunk_timeout_s=0.5, chunk_timeout_s=0.5)
    await demo.script({"stream": {"every_s": 0.15}})
    answer = await provider.complete(a_call(demo.base, question="5 words"), timeout_s=LIMIT_S, sink=Heard())
    await provider.aclose()

    assert answer.finish_reason == "stop"


async def test_silence_after_the_last_finish_costs_only_the_usage(library: Any, demo: Demo) -> None:
    provider = make(library, first_chunk_timeout_s=5, chunk_timeout_s=0.3)
    await demo.script({"fault": "stall", "chunks": 32})
    answer = await provider.complete(a_call(demo.base, question="30 words"), timeout_s=LIMIT_S, sink=Heard())
    await provider.aclose()

    assert (answer.finish_reason, answer.usage.source) == ("stop", "estimated")


@pytest.mark.parametrize("wire", ["openai", "another"])
async def test_cancelled_stream_stops_the_provider_within_a_second(provider: Provider, demo: Demo, wire: str) -> None:
    heard = Heard()
    if wire == "openai":
        await demo.script({"fault": "stall", "chunks": 5})
        await cancelled(provider, a_call(demo.base, question=HUNDRED), heard)
        answer = await demo.client.get("/_control/wait", params={"outcome": "disconnected", "timeout": 1})
        assert answer.json()["reached"]
        return
    gone = asyncio.Event()
    async with open_server(anthropic("Bon", end=False), gone) as url:
        await cancelled(provider, from_anthropic(a_call(url)), heard)
        await asyncio.wait_for(gone.wait(), 1)


async def cancelled(provider: Provider, call: Any, heard: Heard) -> None:
    asked = asyncio.ensure_future(provider.complete(replace(call, stream=True), timeout_s=LIMIT_S, sink=heard))
    await asyncio.wait_for(heard.spoken.wait(), LIMIT_S)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asked, 1)


@contextlib.asynccontextmanager
async def open_server(frames: list[bytes], gone: asyncio.Event) -> AsyncIterator[str]:
    """Sends these and waits for the client to hang up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(length)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + b"".join(frames))
        await reader.read()
        gone.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


class Full(Heard):
    """Loses the call, or breaks, at its third piece."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    async def send(self, choices: Any) -> None:
        await super().send(choices)
        if len(self.pieces) == 3:
            raise self.error


async def test_sink_that_lost_the_call_or_breaks_stops_the_provider(provider: Provider, demo: Demo) -> None:
    await demo.script(*[{"stream": {"every_s": 0.05}}] * 2)
    call = a_call(demo.base, question=HUNDRED)
    with pytest.raises(asyncio.CancelledError):
        await provider.complete(call, timeout_s=LIMIT_S, sink=Full(asyncio.CancelledError()))
    with pytest.raises(SinkFailed):
        await provider.complete(call, timeout_s=LIMIT_S, sink=Full(ValueError("bug")))

    assert await demo.reached(outcome="disconnected", count=2)


async def test_another_wire_that_ends_early_or_says_an_error_is_no_answer(provider: Provider) -> None:
    async with raw_server(*anthropic("Bon", end=False)) as (url, _):
        early = await failure(provider, from_anthropic(a_call(url)), sink=(heard := Heard()))

    assert heard.text() == "Bon"
    assert meaning(early) == ("provider_error", UNKNOWN, "same")


@pytest.mark.filterwarnings("ignore::UserWarning")
async def test_class_of_an_error_inside_of_another_wires_stream_is_kept(
    library: Any, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Gemini's part of the library enters a cache of its own here, at its first call.
    for name in ("input_callback", "success_callback"):
        monkeypatch.setattr(library.litellm, name, [])
    said = {"candidates": [{"index": 0, "content": {"role": "model", "parts": [{"text": "Bon"}]}}]}
    busy = {"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED"}}
    async with raw_server(frame(said), frame(busy), pause_s=0.1) as (url, seen):
        call = replace(a_call(url), litellm_model="gemini/gemini-2.0-flash", provider="gemini")
        limited = await failure(provider, call, sink=(heard := Heard()))

    assert heard.text() == "Bon"
    assert (limited.code, limited.again) == ("provider_rate_limit", "same")
    assert len(seen) == 1
