"""Streamed chat completions through the SDK, with its own helpers on top."""

import asyncio
import json
from typing import Any

import openai
import pytest

from tests.contract.sdk_chat import CITY, CLOCK, Verdict, says
from tests.contract.sdk_world import BASES, QUESTION, Connect, Eager
from tests.demo import DemoProvider

AT_ONCE = 30


async def chunks_of(client: Eager, text: str, **fields: Any) -> list[Any]:
    stream = await client.chat.completions.create(
        model=client.account.alias, messages=says(text), stream=True, **fields
    )
    return [chunk async for chunk in stream]


def said(chunks: list[Any], index: int = 0) -> str:
    choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
    return "".join(choice.delta.content or "" for choice in choices)


def finishes(chunks: list[Any]) -> list[tuple[int, str]]:
    return [
        (choice.index, choice.finish_reason) for chunk in chunks for choice in chunk.choices if choice.finish_reason
    ]


@pytest.mark.parametrize("base", BASES)
async def test_a_stream_comes_in_chunks_of_one_answer(connect: Connect, base: str):
    client = connect(base=base)

    chunks = await chunks_of(client, "30 words")

    assert len(chunks) > 20
    assert {chunk.id for chunk in chunks} == {"chatcmpl-" + client.traffic.call_ids[0].replace("-", "")}
    assert {(chunk.object, chunk.model) for chunk in chunks} == {("chat.completion.chunk", client.account.alias)}
    assert len({chunk.created for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len(said(chunks).split()) == 30
    assert finishes(chunks) == [(0, "stop")]
    assert chunks[-1].choices[0].delta.content is None
    assert all(chunk.usage is None and "usage" not in chunk.model_fields_set for chunk in chunks)
    (answer,) = client.traffic.answers
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert "content-length" not in answer.headers
    assert answer.headers["x-olla-model"] == client.account.alias


async def test_usage_comes_last_when_it_was_asked_for(client: Eager):
    *chunks, last = await chunks_of(client, QUESTION, stream_options={"include_usage": True})

    assert said(chunks) == "Paris"
    assert all(chunk.usage is None and "usage" in chunk.model_fields_set for chunk in chunks)
    assert last.choices == []
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens > 0
    assert last.usage.model_extra["cost"] > 0


@pytest.mark.parametrize("order", ["mixed", "in_turn"])
async def test_each_of_several_choices_is_finished(connect: Connect, provider: DemoProvider, order: str):
    client = connect()
    await provider.script({"stream": {"choices": order}}, match=f"{order} {client.account.model}")

    chunks = await chunks_of(client, f"{order} {client.account.model}", n=2)

    assert said(chunks, 1) == said(chunks, 0) + " (2)"
    assert sorted(finishes(chunks)) == [(0, "stop"), (1, "stop")]
    first = {index: next(c.delta for x in chunks for c in x.choices if c.index == index) for index in (0, 1)}
    assert [delta.role for delta in first.values()] == ["assistant", "assistant"]


@pytest.mark.parametrize(("parallel", "names"), [(True, ["get_weather", "get_time"]), (False, ["get_weather"])])
async def test_streamed_tool_calls_are_put_together_by_index(client: Eager, parallel: bool, names: list[str]):
    chunks = await chunks_of(client, "use the tools", tools=[CITY, CLOCK], parallel_tool_calls=parallel)

    found: dict[int, Any] = {}
    arguments: dict[int, str] = {}
    for part in (part for chunk in chunks for choice in chunk.choices for part in choice.delta.tool_calls or ()):
        assert (part.id is not None) == (part.index not in found), "the id comes in the first fragment only"
        found.setdefault(part.index, part)
        arguments[part.index] = arguments.get(part.index, "") + (part.function.arguments or "")
    assert [(index, part.type, part.function.name) for index, part in sorted(found.items())] == [
        (index, "function", name) for index, name in enumerate(names)
    ]
    assert "city" in json.loads(arguments[0])
    assert finishes(chunks) == [(0, "tool_calls")]


async def test_the_helper_puts_a_stream_together(client: Eager):
    async with client.chat.completions.stream(
        model=client.account.alias,
        messages=says("capital of Germany"),
        response_format=Verdict,
        stream_options={"include_usage": True},
    ) as stream:
        kinds = {event.type async for event in stream}
        answer = await stream.get_final_completion()

    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert answer.choices[0].message.parsed == Verdict(label="Berlin", score=1)
    assert answer.usage
    assert answer.usage.total_tokens > 0


async def test_the_helper_puts_tool_calls_together(client: Eager):
    async with client.chat.completions.stream(
        model=client.account.alias, messages=says("use the tools"), tools=[CITY, CLOCK]
    ) as stream:
        answer = await stream.get_final_completion()

    calls = answer.choices[0].message.tool_calls or []
    assert [call.function.name for call in calls] == ["get_weather", "get_time"]


async def test_streamed_log_probabilities_refusals_and_thoughts(client: Eager):
    likely = await chunks_of(client, "3 words", logprobs=True, top_logprobs=1)
    found = [one for chunk in likely for choice in chunk.choices if choice.logprobs for one in choice.logprobs.content]
    assert [one.token for one in found] == ["the", " parcel", " leaves"]

    refused = await chunks_of(client, "please refuse")
    refusal = "".join(choice.delta.refusal or "" for chunk in refused for choice in chunk.choices)
    assert (said(refused), refusal) == ("", "I'm sorry, I cannot help with that.")

    aloud = await chunks_of(client, "think aloud")
    extras = [choice.delta.model_extra or {} for chunk in aloud for choice in chunk.choices]
    assert "".join(extra.get("reasoning_content") or "" for extra in extras).startswith("The question is short.")
    assert said(aloud) == "You said: think aloud"


async def test_any_text_survives_its_way(client: Eager, provider: DemoProvider):
    odd = 'zażółć 👩‍👩‍👧 \u2028\u2029\x85 "quoted" \\ \r\n\r\ndata: [DONE]\n\n: ping\n\0\x1f</s>'
    await provider.script({"say": {"text": odd}, "stream": {"chars": 1}}, match=f"odd {client.account.model}")

    assert said(await chunks_of(client, f"odd {client.account.model}")) == odd


async def test_streams_at_once_do_not_mix(client: Eager):
    texts = [f"stream number {n} of many" for n in range(AT_ONCE)]

    streams = await asyncio.gather(*(chunks_of(client, text) for text in texts))

    assert [said(chunks) for chunks in streams] == [f"You said: {text}" for text in texts]
    assert len({chunks[0].id for chunks in streams}) == AT_ONCE


async def test_a_stream_that_breaks_off_raises_with_what_is_known(connect: Connect, provider: DemoProvider):
    client = connect("faults", max_retries=2)
    text = f"broken {client.account.model}"
    await provider.script({"fault": "cut", "chunks": 2}, match=text)
    stream = await client.chat.completions.create(model=client.account.alias, messages=says(text), stream=True)
    got: list[Any] = []

    async def read() -> None:
        async for chunk in stream:
            got.append(chunk)  # noqa: PERF401 - what came before the error is what this is about

    with pytest.raises(openai.APIError) as failure:
        await read()

    assert got
    assert not finishes(got)
    assert not isinstance(failure.value, openai.APIStatusError)
    assert failure.value.code == "stream_interrupted"
    assert failure.value.body == {
        "message": "LLM call failed: stream interrupted",
        "type": "api_connection_error",
        "param": None,
        "code": "stream_interrupted",
        "provider": "openai",
    }
    assert len(client.traffic.sent) == 1, "the SDK begins no second stream"
    assert await provider.count(text) == 1, "and neither do we"


async def test_a_stream_that_fails_before_its_first_chunk_is_an_error_like_any_other(
    connect: Connect, provider: DemoProvider
):
    client = connect("faults")
    text = f"never begun {client.account.model}"
    await provider.script({"fault": "status", "status": 400}, match=text)

    with pytest.raises(openai.BadRequestError) as failure:
        await client.chat.completions.create(model=client.account.alias, messages=says(text), stream=True)

    assert failure.value.code == "provider_bad_request"


async def test_who_leaves_a_stream_early_leaves_the_connection_usable(client: Eager):
    stream = await client.chat.completions.create(model=client.account.alias, messages=says("30 words"), stream=True)
    async for _ in stream:
        break
    await stream.close()

    assert said(await chunks_of(client, QUESTION)) == "Paris"
