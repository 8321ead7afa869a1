"""What the demo provider says in a chat: refusals, tools, reasoning, several choices, whole and in chunks."""

import json
from typing import Any

import httpx
import pytest

from tests.cli.demo_rig import ask, chunks, script, streamed_text, told

pytest_plugins = ("tests.cli.demo_fixtures",)
pytestmark = pytest.mark.anyio

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
FUNCTIONS = [{"name": name, "parameters": PARAMETERS} for name in ("map", "weather")]
TOOLS = [{"type": "function", "function": function} for function in FUNCTIONS]
WEATHER = {"type": "function", "function": {"name": "weather"}}
FOUND = {"city": "Paris", "days": 1}


async def said(provider: httpx.AsyncClient, question: str = "Capital of France?", **fields: Any) -> dict[str, Any]:
    """The first choice of a whole answer."""
    choice: dict[str, Any] = (await ask(provider, question, **fields)).json()["choices"][0]
    return choice


def called(found: list[Any]) -> list[tuple[str, str, Any]]:
    """The tool calls that fragments add up to: id, name, arguments."""
    calls: dict[int, list[str]] = {}
    for [fragment] in told(found, "tool_calls"):
        one = calls.setdefault(fragment["index"], [fragment.get("id"), fragment["function"].get("name"), ""])
        one[2] += fragment["function"]["arguments"]
    return [(id_, name, json.loads(arguments)) for id_, name, arguments in calls.values()]


async def test_forced_tool_is_called_with_arguments_of_its_schema(provider: httpx.AsyncClient) -> None:
    choice = await said(provider, tools=TOOLS, tool_choice=WEATHER)
    both = await said(provider, tools=TOOLS, tool_choice="required", parallel_tool_calls=True)
    first = await said(provider, "Use the tools", tools=TOOLS, parallel_tool_calls=False)

    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "weather"
    assert json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"]) == FOUND
    assert [call["function"]["name"] for call in both["message"]["tool_calls"]] == ["map", "weather"]
    assert [call["function"]["name"] for call in first["message"]["tool_calls"]] == ["map"]
    assert (await said(provider, tools=TOOLS))["message"]["content"] == "Paris"


@pytest.mark.parametrize("order", ["in_turn", "mixed"])
async def test_parallel_tool_calls_are_streamed_by_index(provider: httpx.AsyncClient, order: str) -> None:
    await script(provider, {"stream": {"tool_calls": order, "chars": 5}})
    found = await chunks(provider, "Use the tools: capital of France", tools=TOOLS)

    assert [(name, arguments) for _, name, arguments in called(found)] == [("map", FOUND), ("weather", FOUND)]
    assert len({id_ for id_, _, _ in called(found)}) == 2
    assert told(found, "role") == ["assistant"]
    assert found[-2]["choices"][0]["finish_reason"] == "tool_calls"
    indexes = [fragment["index"] for [fragment] in told(found, "tool_calls")]
    assert (indexes == sorted(indexes)) is (order == "in_turn")


async def test_function_is_called_in_the_form_before_tools(provider: httpx.AsyncClient) -> None:
    forced: dict[str, Any] = {"functions": FUNCTIONS, "function_call": {"name": "map"}}
    choice, found = await said(provider, **forced), await chunks(provider, **forced)

    assert (choice["message"]["function_call"]["name"], choice["finish_reason"]) == ("map", "function_call")
    fragments = told(found, "function_call")
    assert [fragment.get("name") for fragment in fragments] == ["map", None, None]
    assert json.loads("".join(fragment["arguments"] for fragment in fragments)) == FOUND


async def test_refusal_has_no_content(provider: httpx.AsyncClient) -> None:
    choice = await said(provider, "Please refuse", logprobs=True)
    found = await chunks(provider, "Please refuse")

    assert choice["message"]["refusal"] == "I'm sorry, I cannot help with that."
    assert (choice["message"]["content"], choice["finish_reason"]) == (None, "stop")
    assert choice["logprobs"]["refusal"][0]["token"] == "I'm"
    assert ("".join(told(found, "refusal")), streamed_text(found)) == (choice["message"]["refusal"], "")


async def test_reasoning_and_sources_stand_beside_the_content(provider: httpx.AsyncClient) -> None:
    question = "Think aloud and cite a source: capital of France"
    answer = (await ask(provider, question)).json()
    message, found = answer["choices"][0]["message"], await chunks(provider, question)

    assert message["content"] == streamed_text(found) == "Paris"
    assert message["reasoning_content"] == "".join(told(found, "reasoning_content"))
    assert [message["annotations"]] == told(found, "annotations")
    assert message["annotations"][0]["url_citation"]["url"].startswith("https://")
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 10
    assert answer["usage"]["completion_tokens"] == 12


async def test_sound_is_the_text(provider: httpx.AsyncClient) -> None:
    choice, found = [await of(provider, modalities=["text", "audio"]) for of in (said, chunks)]
    sound = {name: value for piece in told(found, "audio") for name, value in piece.items()}

    assert (choice["message"]["audio"]["transcript"], choice["message"]["content"]) == ("Paris", None)
    assert sound.keys() == {"id", "transcript", "data", "expires_at"}


@pytest.mark.parametrize("order", ["mixed", "in_turn"])
async def test_choices_differ_and_each_has_its_finish(provider: httpx.AsyncClient, order: str) -> None:
    await script(provider, {"stream": {"choices": order}}, match="France")
    found = await chunks(provider, n=2)
    whole = (await ask(provider, n=2)).json()

    assert ["".join(told(found, "content", index)) for index in (0, 1)] == ["Paris", "Paris (2)"]
    assert [choice["message"]["content"] for choice in whole["choices"]] == ["Paris", "Paris (2)"]
    assert whole["usage"] == found[-1]["usage"]
    entries = [one for chunk in found for one in chunk["choices"]]
    assert [one["index"] for one in entries if one["finish_reason"]] == [0, 1]
    assert [one["index"] for one in entries][:3] == ([0, 1, 0] if order == "mixed" else [0, 0, 0])


async def test_finish_and_usage_can_stand_in_the_last_chunk(provider: httpx.AsyncClient) -> None:
    await script(provider, {"stream": {"finish": "joined"}}, {"stream": {"finish": "joined", "usage": "joined"}})
    first, second = [await chunks(provider) for _ in range(2)]

    assert (first[-2]["choices"][0]["delta"], first[-2]["choices"][0]["finish_reason"]) == (
        {"content": "Paris"},
        "stop",
    )
    assert (first[-2]["usage"], first[-1]["choices"]) == (None, [])
    assert (second[-1]["choices"][0]["finish_reason"], second[-1]["usage"]) == ("stop", first[-1]["usage"])


async def test_seed_tier_and_alternatives_are_shown(provider: httpx.AsyncClient) -> None:
    asked: dict[str, Any] = {"seed": 7, "service_tier": "flex", "logprobs": True, "top_logprobs": 2}
    answer, found = (await ask(provider, **asked)).json(), await chunks(provider, **asked)

    assert [(one["system_fingerprint"], one["service_tier"]) for one in (answer, found[0])] == [
        ("fp_demo_7", "flex")
    ] * 2
    [token] = answer["choices"][0]["logprobs"]["content"]
    assert (token["token"], len(token["top_logprobs"])) == ("Paris", 2)
    assert found[1]["choices"][0]["logprobs"]["content"] == [token]


async def test_script_says_what_no_question_brings(provider: httpx.AsyncClient) -> None:
    say = {
        "tool_calls": [{"name": "map", "arguments": '{"broken'}, {"name": "map", "arguments": {"a": 1}}],
        "finish_reason": "content_filter",
        "service_tier": "scale",
        "system_fingerprint": "fp_1",
    }
    others = [{"function_call": {"name": "f"}}, {"refusal": "No."}, {"finish_reason": "length"}]
    await script(provider, {"say": say}, *({"say": one} for one in others))
    answer = (await ask(provider, tools=TOOLS, tool_choice=WEATHER)).json()
    function, refusal, only_finish = [await said(provider, tools=TOOLS, tool_choice=WEATHER) for _ in range(3)]

    [choice] = answer["choices"]
    assert [call["function"]["arguments"] for call in choice["message"]["tool_calls"]] == ['{"broken', '{"a":1}']
    assert choice["finish_reason"] == "content_filter"
    assert (answer["service_tier"], answer["system_fingerprint"]) == ("scale", "fp_1")
    assert function["message"]["function_call"] == {"name": "f", "arguments": "{}"}
    assert refusal["message"]["refusal"] == "No."
    assert (len(only_finish["message"]["tool_calls"]), only_finish["finish_reason"]) == (1, "length")
