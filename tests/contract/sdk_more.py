"""Completions, embeddings and models through the SDK."""

import base64
import struct

import openai
import pytest

from tests.contract.sdk_world import BASES, Connect, Eager, asked
from tests.demo import DemoProvider


async def test_a_completion_is_answered(client: Eager):
    answer = await client.completions.create(model=client.account.alias, prompt="capital of Italy")

    assert answer.id.startswith("cmpl-")
    assert (answer.object, answer.model) == ("text_completion", client.account.alias)
    (choice,) = answer.choices
    assert (choice.index, choice.text, choice.finish_reason, choice.logprobs) == (0, "Rome", "stop", None)
    assert answer.usage
    assert answer.usage.model_extra
    assert answer.usage.model_extra["cost"] > 0


async def test_indexes_run_over_prompts_and_choices(client: Eager):
    answer = await client.completions.create(
        model=client.account.alias, prompt=["capital of Italy", "capital of Spain"], n=2, echo=True, logprobs=1
    )

    assert [(choice.index, choice.text) for choice in answer.choices] == [
        (0, "capital of ItalyRome"),
        (1, "capital of ItalyRome (2)"),
        (2, "capital of SpainMadrid"),
        (3, "capital of SpainMadrid (2)"),
    ]
    assert answer.choices[0].logprobs
    assert answer.choices[0].logprobs.tokens == ["capital", " of", " Italy", "Rome"]


async def test_prompts_may_be_tokens(client: Eager, provider: DemoProvider):
    one = await client.completions.create(model=client.account.alias, prompt=[11, 12, 13])
    two = await client.completions.create(model=client.account.alias, prompt=[[11, 12, 13], [14]])

    assert one.usage
    assert one.usage.prompt_tokens == 3
    assert [choice.index for choice in two.choices] == [0, 1]


async def test_completions_are_streamed(client: Eager):
    stream = await client.completions.create(
        model=client.account.alias,
        prompt=["capital of Italy", "capital of Spain"],
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = [chunk async for chunk in stream]

    texts = {index: "".join(c.text for x in chunks for c in x.choices if c.index == index) for index in (0, 1)}
    assert texts == {0: "Rome", 1: "Madrid"}
    assert {chunk.object for chunk in chunks} == {"text_completion"}
    ends = [(choice.index, choice.finish_reason) for x in chunks for choice in x.choices if choice.finish_reason]
    assert sorted(ends) == [(0, "stop"), (1, "stop")]
    assert last.choices == []
    assert last.usage
    assert last.usage.total_tokens > 0


@pytest.mark.parametrize("base", BASES)
async def test_embeddings_are_the_same_in_either_encoding(connect: Connect, provider: DemoProvider, base: str):
    client = connect(base=base)
    texts = [f"first {base} {client.account.model}", f"second {base} {client.account.model}"]
    by_default = await client.embeddings.create(model=client.account.alias, input=texts, dimensions=8)
    floats = await client.embeddings.create(
        model=client.account.alias, input=texts, dimensions=8, encoding_format="float"
    )
    coded = await client.embeddings.create(
        model=client.account.alias, input=texts, dimensions=8, encoding_format="base64"
    )

    assert (floats.object, floats.model) == ("list", client.account.alias)
    assert [(one.object, one.index, len(one.embedding)) for one in floats.data] == [
        ("embedding", 0, 8),
        ("embedding", 1, 8),
    ]
    assert [one.embedding for one in by_default.data] == [pytest.approx(one.embedding) for one in floats.data]
    decoded = [list(struct.unpack("<8f", base64.b64decode(str(one.embedding)))) for one in coded.data]
    assert decoded == [pytest.approx(one.embedding) for one in floats.data]
    assert floats.data[0].embedding != floats.data[1].embedding
    assert floats.usage.total_tokens == floats.usage.prompt_tokens > 0
    bodies = [request["body"] for request in await provider.requests(texts[-1])]
    assert [body.get("encoding_format", "float") for body in bodies] == ["float"] * 3


async def test_inputs_may_be_tokens(client: Eager, provider: DemoProvider):
    answer = await client.embeddings.create(model=client.account.alias, input=[[90001, 2], [3, 4, 5]], dimensions=4)

    assert [one.index for one in answer.data] == [0, 1]
    assert answer.usage.prompt_tokens == 5


async def test_an_empty_input_is_refused_before_the_provider_is_asked(client: Eager):
    with pytest.raises(openai.BadRequestError) as failure:
        await client.embeddings.create(model=client.account.alias, input="")

    assert failure.value.param == "input"
    assert client.traffic.call_ids == []


@pytest.mark.parametrize("base", BASES)
async def test_models_are_listed_and_read(connect: Connect, base: str):
    client = connect(base=base)
    slashed = client.account.more["slashed"]

    listed = {model.id: model async for model in client.models.list()}
    assert set(listed) >= {client.account.alias, slashed}
    assert "/" in slashed
    assert listed[slashed].object == "model"
    assert (await client.models.retrieve(slashed)).id == slashed
    with pytest.raises(openai.NotFoundError) as failure:
        await client.models.retrieve("nobody/has-this")
    assert failure.value.code == "model_not_found"


async def test_a_name_with_a_slash_is_answered_under_that_name(client: Eager, provider: DemoProvider):
    slashed = client.account.more["slashed"]
    answer = await client.chat.completions.create(
        model=slashed, messages=[{"role": "user", "content": f"slashed {client.account.model}"}]
    )

    assert answer.model == slashed
    assert (await asked(provider, f"slashed {client.account.model}"))["model"] == client.account.model
