"""What goes wrong in the demo provider's streams, at which place, and what its log says of it."""

import json
import time
from typing import Any
from uuid import uuid4

import anyio
import httpx
import pytest

from tests.cli.demo_rig import USAGE, a_question, ask, chunks, events, logged, reached, script, streamed_text, told

pytest_plugins = ("tests.cli.demo_fixtures",)
pytestmark = pytest.mark.anyio

EVENTS = 5
"""Of the stream that says Paris, with usage: role, content, finish, usage, [DONE]."""


async def received(provider: httpx.AsyncClient, **fields: Any) -> tuple[list[str], str | None]:
    """The lines of a stream that came, and the name of the error that ended it."""
    text, error = "", None
    async with provider.stream("POST", "/v1/chat/completions", json=a_question(**USAGE, **fields)) as answer:
        try:
            async for piece in answer.aiter_text():
                text += piece
        except httpx.TransportError as broken:
            error = type(broken).__name__
    return [line.removeprefix("data: ") for line in text.split("\n\n") if line], error


@pytest.mark.parametrize(("chunks_", "sent"), [(0, 0), (1, 1), (None, 2), (-1, EVENTS - 1), (-9, 0), (9, EVENTS - 1)])
async def test_stream_is_cut_at_any_place(provider: httpx.AsyncClient, chunks_: int | None, sent: int) -> None:
    await script(provider, {"fault": "cut", "chunks": chunks_})
    lines, error = await received(provider)

    assert (len(lines), error) == (sent, "RemoteProtocolError")
    assert [(entry["chunks"], entry["outcome"]) for entry in await logged(provider)] == [(sent, "cut")]


async def test_stream_can_be_reset_after_some_chunks(provider: httpx.AsyncClient) -> None:
    await script(provider, {"fault": "reset", "chunks": 0})

    assert await received(provider) == ([], "ReadError")


async def test_held_stream_waits_for_release_and_goes_on(provider: httpx.AsyncClient) -> None:
    await script(provider, {"fault": "hold", "chunks": 2}, {"fault": "hold"})
    streamed, answers = [], []

    async def follow() -> None:
        async with provider.stream("POST", "/v1/chat/completions", json=a_question(**USAGE)) as answer:
            streamed.extend([line async for line in answer.aiter_lines() if line])
        answers.append(await ask(provider))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        assert await reached(provider, outcome="held")
        [entry] = await logged(provider)
        assert entry["chunks"] == 2
        await provider.post("/_control/release")
        assert await reached(provider, outcome="held")
        await provider.post("/_control/release")

    assert (len(streamed), streamed[-1]) == (EVENTS, "data: [DONE]")
    assert answers[0].json()["choices"][0]["message"]["content"] == "Paris"
    assert [entry["outcome"] for entry in await logged(provider)] == ["answered", "answered"]


async def test_client_that_hangs_up_in_mid_stream_is_counted(provider: httpx.AsyncClient) -> None:
    question = str(uuid4())
    await script(provider, {"fault": "stall", "chunks": 3}, {"stream": {"every_s": 60}}, match=question)
    for sent in (3, 1):
        body = a_question(question, stream=True)
        async with provider.stream("POST", "/v1/chat/completions", json=body) as answer:
            lines = answer.aiter_lines()
            for _ in range(sent * 2):
                await anext(lines)
        assert await reached(provider, match=question, outcome="disconnected")

    assert await reached(provider, match=question, outcome="disconnected", count=2)
    assert [entry["chunks"] for entry in await logged(provider, match=question)] == [3, 1]


async def test_error_event_looks_like_the_status_it_stands_for(provider: httpx.AsyncClient) -> None:
    own = {"error": {"message": "Overloaded", "code": 529}}
    await script(
        provider,
        {"fault": "stream_error", "chunks": 2},
        {"fault": "stream_error", "chunks": 0, "status": 429},
        {"fault": "stream_error", "body": own},
    )
    plain, limited, other = [events(await ask(provider, **USAGE)) for _ in range(3)]

    assert (len(plain), plain[-1]["error"]["type"]) == (3, "server_error")
    assert (len(limited), limited[-1]["error"]["code"]) == (1, "rate_limit_exceeded")
    assert other[-1] == own


async def test_line_that_is_no_json_and_a_chunk_said_twice_stand_in_the_middle(provider: httpx.AsyncClient) -> None:
    await script(provider, {"fault": "bad_chunk", "chunks": 1}, {"fault": "duplicate", "chunks": 2})
    (broken, _), (twice, _) = [await received(provider) for _ in range(2)]

    assert (len(broken), broken[-1]) == (EVENTS + 1, "[DONE]")
    with pytest.raises(json.JSONDecodeError):
        json.loads(broken[1])
    assert streamed_text([json.loads(line) for line in twice[:-1]]) == "ParisParis"
    assert twice[1] == twice[2]


async def test_end_of_a_stream_can_be_missing(provider: httpx.AsyncClient) -> None:
    await script(provider, {"fault": "no_finish"}, {"fault": "no_usage"}, {"fault": "no_done"})
    no_finish, no_usage, no_done = [events(await ask(provider, **USAGE)) for _ in range(3)]

    assert streamed_text(no_finish) == "Paris"
    assert all(choice["finish_reason"] is None for chunk in no_finish for choice in chunk["choices"])
    assert no_usage[-1] == "[DONE]"
    assert not any(chunk["usage"] for chunk in no_usage[:-1])
    assert (len(no_done), no_done[-1]["usage"]["completion_tokens"]) == (EVENTS - 1, 2)


async def test_chunks_can_be_many_and_equal_or_one_and_huge(provider: httpx.AsyncClient) -> None:
    many = {"say": {"text": "same", "times": 1000}, "stream": {"chars": 4}}
    huge = {"say": {"text": "x", "times": 2_000_000}, "stream": {"chars": 2_000_000}}
    await script(provider, many, huge)
    equal, large = [await chunks(provider) for _ in range(2)]

    assert told(equal, "content") == ["same"] * 1000
    assert [len(content) for content in told(large, "content")] == [2_000_000]


async def test_chunks_say_when_they_were_sent(provider: httpx.AsyncClient) -> None:
    await script(
        provider, {"say": {"text": "{now} ", "times": 3}, "stream": {"chars": 6, "every_s": 0.02}}, repeat=True
    )
    began = time.time()
    times = [float(word) for word in streamed_text(await chunks(provider)).split()]
    whole = (await ask(provider)).json()["choices"][0]["message"]["content"]

    assert times == sorted(times)
    assert began < times[0] < times[2] - 0.03
    assert float(whole.split()[0]) > times[2]


async def test_faults_of_streams_leave_a_whole_answer_alone_or_cut_it(provider: httpx.AsyncClient) -> None:
    await script(provider, *({"fault": fault} for fault in ("bad_chunk", "duplicate", "no_done", "stream_error")))

    assert [(await ask(provider)).status_code for _ in range(3)] == [200] * 3
    with pytest.raises(httpx.RemoteProtocolError):
        await ask(provider)
    assert [entry["chunks"] for entry in await logged(provider)] == [0] * 4
