"""Chat streams on real sockets: what is told while it comes, and the same answer whole at the end."""

import asyncio
import json
from typing import Any

import pytest

from shared.attempt_reports import Usage
from tests.workers.litellm_rig import (
    DONE,
    LIMIT_S,
    Demo,
    Heard,
    a_call,
    choices,
    chunk,
    from_anthropic,
    make,
    raw_server,
    streamed,
)
from workers.provider import Provider
from workers.stream_reading import LibrarySource, OpenAISource

pytest_plugins = ("tests.workers.litellm_fixtures",)
pytestmark = pytest.mark.anyio

FUNCTION = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
OTHER = {"name": "time", "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}}}
TOOLS = [{"type": "function", "function": one} for one in (FUNCTION, OTHER)]


async def test_stream_is_told_in_pieces_and_stored_whole(provider: Provider, demo: Demo) -> None:
    answer, heard = await streamed(provider, a_call(demo.base, question="30 words please"))

    assert heard.pieces[0]["delta"].keys() == {"role", "content"}
    assert all(piece.keys() == {"index", "delta"} for piece in heard.pieces)
    assert all(piece["delta"].keys() == {"content"} for piece in heard.pieces[1:])
    assert len(heard.pieces) == 30
    [choice] = choices(answer)
    assert choice == {
        "index": 0,
        "message": {"role": "assistant", "content": heard.text()},
        "finish_reason": "stop",
    }
    assert answer.usage.source == "provider"
    assert answer.usage.completion_tokens > 20
    assert str(answer.provider_request_id).startswith("req_")
    [request] = await demo.requests()
    assert request["body"]["stream"] is True
    assert request["body"]["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("Capital of France?", {}),
        ("Capital of France?", {"n": 2, "logprobs": True, "top_logprobs": 1}),
        ("Capital of France?", {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": True}),
        ("Capital of France?", {"functions": [FUNCTION], "function_call": {"name": "weather"}}),
        ("please refuse", {"seed": 7, "service_tier": "flex"}),
        ("think aloud", {"n": 2}),
        ("cite a source", {}),
        ("speak", {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}),
    ],
)
async def test_streamed_answer_is_stored_like_any_other(
    provider: Provider, demo: Demo, question: str, asked: dict[str, Any]
) -> None:
    call = a_call(demo.base, question=question, **asked)
    whole = await provider.complete(call, timeout_s=LIMIT_S)
    answer, heard = await streamed(provider, call)

    assert comparable(answer.response) == comparable(whole.response)
    assert (answer.finish_reason, answer.usage) == (whole.finish_reason, whole.usage)
    for choice in choices(answer):
        message = choice["message"]
        said = heard.of(choice["index"])
        assert [piece.get("role") for piece in said] == ["assistant"] + [None] * (len(said) - 1)
        for name in ("content", "refusal", "reasoning_content"):
            assert heard.text(choice["index"], name) == (message.get(name) or "")
    assert all(value is not None for piece in heard.pieces for value in piece["delta"].values())
    assert not any("finish_reason" in piece for piece in heard.pieces)


def comparable(response: str) -> Any:
    """An answer without the ids that no two answers share."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(inner) for name, inner in value.items() if name not in {"id", "expires_at"}}
        return [plain(item) for item in value] if isinstance(value, list) else value

    return plain(json.loads(response))


async def test_parallel_tool_calls_are_told_by_index(provider: Provider, demo: Demo) -> None:
    await demo.script({"stream": {"tool_calls": "mixed"}})
    call = a_call(demo.base, tools=TOOLS, tool_choice="required", parallel_tool_calls=True)
    answer, heard = await streamed(provider, call)

    fragments = [one for piece in heard.pieces for one in piece["delta"].get("tool_calls", ())]
    firsts = [one for one in fragments if "id" in one]
    assert [(one["index"], one["type"], one["function"]["name"]) for one in firsts] == [
        (0, "function", "weather"),
        (1, "function", "time"),
    ]
    assert all(one.keys() == {"index", "function"} for one in fragments if "id" not in one)
    assert all("content" not in piece["delta"] for piece in heard.pieces)
    [choice] = choices(answer)
    assert choice["message"]["content"] is None
    assert choice["finish_reason"] == "tool_calls"
    for index, stored in enumerate(choice["message"]["tool_calls"]):
        told = "".join(one["function"]["arguments"] for one in fragments if one["index"] == index)
        assert stored["function"]["arguments"] == told
        assert json.loads(told)


@pytest.mark.parametrize("order", ["mixed", "in_turn"])
async def test_every_choice_has_its_own_words_and_finish(provider: Provider, demo: Demo, order: str) -> None:
    await demo.script({"stream": {"choices": order, "finish": "joined"}})
    answer, heard = await streamed(provider, a_call(demo.base, question="6 words", n=3))

    found = choices(answer)
    assert [choice["index"] for choice in found] == [0, 1, 2]
    assert [choice["finish_reason"] for choice in found] == ["stop"] * 3
    assert [choice["message"]["content"] for choice in found] == [heard.text(index) for index in range(3)]
    assert len({choice["message"]["content"] for choice in found}) == 3


async def test_content_beside_a_finish_is_told_and_a_thousand_equal_chunks_are_no_loop(
    provider: Provider, demo: Demo
) -> None:
    say = {"text": "same", "times": 1000, "finish_reason": "length"}
    await demo.script({"say": say, "stream": {"chars": 4, "finish": "joined", "usage": "joined"}})
    answer, heard = await streamed(provider, a_call(demo.base))

    assert [delta["content"] for delta in heard.of(0)] == ["same"] * 1000
    assert answer.finish_reason == "length"
    assert answer.usage.source == "provider"


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
async def test_streams_reported_zero_and_missing_usage_are_three_things(
    provider: Provider, demo: Demo, step: dict[str, Any], usage: Usage
) -> None:
    await demo.script(step)
    assert (await streamed(provider, a_call(demo.base)))[0].usage == usage


async def test_words_of_the_library_and_nulls_stay_out(provider: Provider) -> None:
    odd = {"provider_specific_fields": {"x": 1}, "citations": ["u"], "function_call": None, "audio": None, "x": 2}
    frames = [
        chunk({"role": "assistant", "content": "", "refusal": None, **odd}, citations=["u"]),
        chunk({"content": "Hi", "tool_calls": None, **odd}, x_groq={"id": "r"}),
        chunk({"reasoning": "Hm", "reasoning_content": "Hm", "content": None}),
        chunk({}, finish="eos"),
    ]
    async with raw_server(*frames, DONE) as (url, _):
        answer, heard = await streamed(provider, a_call(url))

    assert heard.pieces == [
        {"index": 0, "delta": {"role": "assistant", "content": "Hi"}},
        {"index": 0, "delta": {"reasoning_content": "Hm"}},
    ]
    assert answer.finish_reason == "stop"


async def test_servers_that_give_every_tool_call_one_index_are_understood(provider: Provider) -> None:
    def call(id_: str, arguments: Any) -> dict[str, Any]:
        return {"tool_calls": [{"index": 0, "id": id_, "function": {"name": "f", "arguments": arguments}}]}

    frames = [chunk(call("a", '{"x":')), chunk(call("a", "1}")), chunk(call("b", {"x": 2})), chunk({}, finish="stop")]
    async with raw_server(*frames, DONE) as (url, _):
        answer, heard = await streamed(provider, a_call(url))

    told = [one for piece in heard.pieces for one in piece["delta"]["tool_calls"]]
    assert [(one["index"], one.get("id"), one["function"].get("name")) for one in told] == [
        (0, "a", "f"),
        (0, None, None),
        (1, "b", "f"),
    ]
    stored = choices(answer)[0]["message"]["tool_calls"]
    assert [one["function"]["arguments"] for one in stored] == ['{"x":1}', '{"x":2}']
    assert [one["type"] for one in stored] == ["function", "function"]


async def test_stream_is_read_past_the_library_where_its_wire_is_openais(library: Any, demo: Demo) -> None:
    """A version of the library that hides its client's stream would cost four times the CPU, and ends and usage."""
    asked = {"messages": [{"role": "user", "content": "Hi"}], "api_key": "k", "stream": True}
    openais = await library.open_chat({**asked, "model": "openai/gpt-4", "api_base": demo.base})
    await openais.aclose()
    async with raw_server(*ANTHROPIC) as (url, _):
        translated = await library.open_chat({**asked, "model": "anthropic/claude-sonnet-4-5", "api_base": url})
        await translated.aclose()

    assert isinstance(openais, OpenAISource)
    assert isinstance(translated, LibrarySource)


def event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def anthropic(*deltas: str, usage: dict[str, int] | None = None, end: bool = True) -> list[bytes]:
    counted = {"input_tokens": 11, "output_tokens": 1} if usage is None else usage
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "c", "content": [], "usage": counted}
    last = {"output_tokens": 6} if usage is None else usage
    return [
        event("message_start", message=message),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        *(event("content_block_delta", index=0, delta={"type": "text_delta", "text": text}) for text in deltas),
        *(
            [
                event("content_block_stop", index=0),
                event("message_delta", delta={"stop_reason": "max_tokens", "stop_sequence": None}, usage=last),
                event("message_stop"),
            ]
            if end
            else []
        ),
    ]


ANTHROPIC = anthropic("Bon", "jour")


async def test_another_wire_is_told_as_the_library_translates_it(provider: Provider) -> None:
    async with raw_server(*ANTHROPIC) as (url, seen):
        answer, heard = await streamed(provider, from_anthropic(a_call(url)))

    assert [delta.get("content") for delta in heard.of(0)] == ["Bon", "jour"]
    assert heard.of(0)[0]["role"] == "assistant"
    assert choices(answer) == [
        {"index": 0, "message": {"role": "assistant", "content": "Bonjour"}, "finish_reason": "length"}
    ]
    assert answer.usage == Usage(prompt_tokens=11, completion_tokens=6, source="provider")
    assert len(seen) == 1


async def test_another_wires_zero_usage_is_a_report(provider: Provider) -> None:
    async with raw_server(*anthropic("Hi", usage={"input_tokens": 0, "output_tokens": 0})) as (url, _):
        answer, _ = await streamed(provider, from_anthropic(a_call(url)))

    assert answer.usage == Usage(source="provider")


async def test_sink_that_waits_for_the_record_is_no_silence_of_the_provider(library: Any, demo: Demo) -> None:
    provider = make(library, first_chunk_timeout_s=0.5, chunk_timeout_s=0.5)
    heard = Heard(first_s=0.8)
    answer = await provider.complete(a_call(demo.base, question="3 words"), timeout_s=LIMIT_S, sink=heard)
    await provider.aclose()

    assert choices(answer)[0]["message"]["content"] == heard.text()


async def test_connection_of_a_stream_read_to_its_end_is_used_again(provider: Provider, demo: Demo) -> None:
    await asyncio.gather(*(streamed(provider, a_call(demo.base)) for _ in range(2)))
    session = provider._session_here()  # type: ignore[attr-defined]

    assert sum(len(kept) for kept in session.connector._conns.values()) >= 1
