"""Chat completions through the SDK: every field that an answer may have arrives as the provider said it."""

import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.contract.sdk_world import BASES, QUESTION, Connect, Eager, Traffic, World, asked
from tests.demo import DemoProvider


def tool(name: str, **properties: Any) -> Any:
    """A function that a model may call; strict, as the SDK's helper for streams wants it."""
    wanted = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "strict": True, "parameters": wanted}}


CITY, CLOCK = tool("get_weather", city={"type": "string"}), tool("get_time")


class Verdict(BaseModel):
    """What a model is made to say."""

    label: str
    score: int


def says(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize("base", BASES)
async def test_an_answer_is_complete_and_priced(connect: Connect, base: str):
    client = connect(base=base)

    answer = await client.chat.completions.create(model=client.account.alias, messages=says(QUESTION))

    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model) == ("chat.completion", client.account.alias)
    (choice,) = answer.choices
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "stop", None)
    assert (choice.message.role, choice.message.content, choice.message.refusal) == ("assistant", "Paris", None)
    assert choice.message.tool_calls is None
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    assert answer.usage.prompt_tokens_details
    assert answer.usage.completion_tokens_details
    assert answer.usage.model_extra
    assert answer.usage.model_extra["cost"] > 0
    assert client.traffic.sent == [f"POST {base}/chat/completions"]


def test_the_client_without_asyncio_works_as_well(world: World):
    account = world.accounts["main"]
    traffic = Traffic()
    http = openai.DefaultHttpxClient(event_hooks={"response": [traffic.answers.append]}, trust_env=False)
    with openai.OpenAI(base_url=world.api_url + "/v1", api_key=account.key, http_client=http, max_retries=0) as client:
        answer = client.chat.completions.create(model=account.alias, messages=says(QUESTION))
        stream = client.chat.completions.create(model=account.alias, messages=says(QUESTION), stream=True)
        streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    world.note(traffic.call_ids)

    assert answer.choices[0].message.content == streamed == "Paris"


async def test_headers_say_what_became_of_the_request(client: Eager):
    raw = await client.chat.completions.with_raw_response.create(
        model=client.account.alias,
        messages=says(QUESTION),
        extra_headers={"X-Request-ID": "mine-1", "x-litellm-call-id": "call-of-mine"},
    )

    answer, headers = raw.parse(), raw.headers
    assert raw.request_id == headers["x-request-id"] == headers["x-olla-request-id"] == "mine-1"
    assert answer._request_id == "mine-1"
    assert headers["x-olla-endpoint"] == "litellm-gateway"
    assert headers["x-olla-backend-type"] == "litellm"
    assert headers["x-olla-model"] == headers["x-litellm-model-group"] == client.account.alias
    assert headers["x-olla-routing-strategy"] == "strict"
    assert (headers["x-olla-routing-decision"], headers["x-olla-routing-reason"]) == ("routed", "model_found")
    assert headers["x-olla-response-time"].endswith("s")
    assert headers["x-litellm-call-id"] == "call-of-mine"
    assert answer.id == "chatcmpl-" + headers["x-call-id"].replace("-", "")
    assert answer.usage
    assert answer.usage.model_extra
    assert float(headers["x-litellm-response-cost"]) == pytest.approx(answer.usage.model_extra["cost"])
    assert "e" not in headers["x-litellm-response-cost"].lower()
    assert (headers["x-litellm-attempted-retries"], headers["x-litellm-attempted-fallbacks"]) == ("0", "0")
    assert headers["x-served-by"].startswith("waybill/")
    assert "provider;dur=" in headers["server-timing"]
    assert int(headers["x-ratelimit-limit-requests"]) == 100_000
    assert int(headers["x-ratelimit-remaining-requests"]) < 100_000


async def test_headers_say_that_another_model_answered(client: Eager, provider: DemoProvider):
    text = f"fall back {client.account.model}"
    await provider.script({"fault": "status", "status": 500}, {"fault": "status", "status": 500}, match=text)

    raw = await client.chat.completions.with_raw_response.create(
        model=client.account.alias,
        messages=says(text),
        extra_body={"fallbacks": [client.account.more["slashed"]], "num_retries": 1},
    )

    assert raw.parse().model == client.account.alias
    assert (raw.headers["x-olla-routing-decision"], raw.headers["x-olla-routing-reason"]) == (
        "fallback", "model_found_fallback",
    )  # fmt: skip
    assert raw.headers["x-litellm-attempted-retries"] == "1"
    assert raw.headers["x-litellm-attempted-fallbacks"] == "1"


async def test_tools_are_called_and_their_results_go_back(client: Eager):
    named: Any = {"type": "function", "function": {"name": "get_weather"}}
    first = await client.chat.completions.create(
        model=client.account.alias, messages=says("capital of Italy"), tools=[CITY, CLOCK], tool_choice=named
    )
    (choice,) = first.choices
    (call,) = choice.message.tool_calls or ()
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    assert (call.type, call.function.name, json.loads(call.function.arguments)) == (
        "function", "get_weather", {"city": "Rome"},
    )  # fmt: skip

    told = [choice.message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    second = await client.chat.completions.create(
        model=client.account.alias, messages=[*says("capital of Italy"), *told], tools=[CITY, CLOCK]
    )
    assert second.choices[0].message.content == "The tool answered: sunny"


@pytest.mark.parametrize(("parallel", "names"), [(True, ["get_weather", "get_time"]), (False, ["get_weather"])])
async def test_parallel_tool_calls_keep_their_order(client: Eager, parallel: bool, names: list[str]):
    answer = await client.chat.completions.create(
        model=client.account.alias,
        messages=says("use the tools"),
        tools=[CITY, CLOCK],
        parallel_tool_calls=parallel,
    )

    calls = answer.choices[0].message.tool_calls or []
    assert [call.function.name for call in calls] == names
    assert len({call.id for call in calls}) == len(names)


async def test_a_schema_is_answered_and_parsed(client: Eager):
    answer = await client.chat.completions.parse(
        model=client.account.alias, messages=says("capital of Spain"), response_format=Verdict
    )

    assert answer.choices[0].message.parsed == Verdict(label="Madrid", score=1)


async def test_several_choices_come_with_their_indexes(client: Eager):
    answer = await client.chat.completions.create(model=client.account.alias, messages=says(QUESTION), n=2)

    assert [(choice.index, choice.message.content) for choice in answer.choices] == [(0, "Paris"), (1, "Paris (2)")]
    assert [choice.finish_reason for choice in answer.choices] == ["stop", "stop"]


async def test_log_probabilities_are_passed_on(client: Eager):
    answer = await client.chat.completions.create(
        model=client.account.alias, messages=says("3 words"), logprobs=True, top_logprobs=2
    )

    found = answer.choices[0].logprobs
    assert found
    assert [one.token for one in found.content or ()] == ["the", " parcel", " leaves"]
    assert found.content
    assert [one.token for one in found.content[0].top_logprobs] == ["the", "the!"]
    assert found.refusal is None


async def test_parameters_reach_the_provider_and_its_marks_come_back(client: Eager, provider: DemoProvider):
    text = f"seeded {client.account.model}"
    answer = await client.chat.completions.create(
        model=client.account.alias,
        messages=says(text),
        seed=7,
        temperature=0.25,
        top_p=0.5,
        stop=["nothing"],
        max_completion_tokens=50,
        logit_bias={"11": -1},
        presence_penalty=0.5,
        service_tier="default",
        user="someone",
        metadata={"kind": "test"},
        extra_body={"api_base": "http://127.0.0.1:1", "api_key": "sk-stolen", "mock_response": "no", "tags": ["a"]},
    )

    assert (answer.system_fingerprint, answer.service_tier) == ("fp_demo_7", "default")
    body = await asked(provider, text)
    assert (body["seed"], body["temperature"], body["top_p"], body["stop"]) == (7, 0.25, 0.5, ["nothing"])
    assert (body["logit_bias"], body["presence_penalty"]) == ({"11": -1}, 0.5)
    assert body["max_completion_tokens"] == 50
    assert not {"api_base", "api_key", "mock_response", "tags"} & set(body)


async def test_a_length_limit_shows_in_the_finish_reason(client: Eager):
    answer = await client.chat.completions.create(model=client.account.alias, messages=says("30 words"), max_tokens=2)

    assert (answer.choices[0].finish_reason, answer.choices[0].message.content) == ("length", "the parc")


async def test_a_refusal_is_no_content(client: Eager):
    answer = await client.chat.completions.create(model=client.account.alias, messages=says("please refuse"))

    message = answer.choices[0].message
    assert (message.content, message.refusal) == (None, "I'm sorry, I cannot help with that.")


async def test_thoughts_come_beside_the_content(client: Eager):
    answer = await client.chat.completions.create(model=client.account.alias, messages=says("think aloud"))

    message = answer.choices[0].message
    assert message.content == "You said: think aloud"
    assert message.model_extra
    assert message.model_extra["reasoning_content"] == "The question is short. So is the answer."
    assert answer.usage
    assert answer.usage.completion_tokens_details
    assert (answer.usage.completion_tokens_details.reasoning_tokens or 0) > 0


async def test_sources_are_passed_on(client: Eager):
    answer = await client.chat.completions.create(model=client.account.alias, messages=says("cite a source"))

    (source,) = answer.choices[0].message.annotations or ()
    assert (source.type, source.url_citation.url) == ("url_citation", "https://example.com/parcels")


async def test_sound_is_passed_on(client: Eager):
    answer = await client.chat.completions.create(
        model=client.account.alias,
        messages=says(QUESTION),
        modalities=["text", "audio"],
        audio={"voice": "alloy", "format": "wav"},
    )

    message = answer.choices[0].message
    assert message.content is None
    assert message.audio
    assert message.audio.transcript == "Paris"


async def test_the_older_form_of_function_calls_works(client: Eager):
    answer = await client.chat.completions.create(
        model=client.account.alias,
        messages=says("capital of Japan"),
        functions=[CITY["function"]],
        function_call={"name": "get_weather"},
    )

    (choice,) = answer.choices
    assert choice.finish_reason == "function_call"
    assert choice.message.function_call
    assert json.loads(choice.message.function_call.arguments) == {"city": "Tokyo"}
