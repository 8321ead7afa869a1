"""Embeddings on real sockets: floats as the provider wrote them, in the order of the inputs."""

import base64
import json
import struct
from typing import Any

import pytest

from shared.attempt_reports import Usage
from shared.states import Outcome
from tests.workers.litellm_rig import LIMIT_S, Demo, an_embedding, failure, status
from workers.provider import Answer, Provider

pytest_plugins = ("tests.workers.litellm_fixtures",)
pytestmark = pytest.mark.anyio


def data(answer: Answer) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(answer.response)["data"]
    return found


@pytest.mark.parametrize("model", ["openai/text-embedding-3-small", "openai/own-embedder", "hosted_vllm/e5"])
@pytest.mark.parametrize(("given", "items"), [("one", 1), (["one", "two"], 2), ([1, 2, 3], 1), ([[1, 2], [3], [4]], 3)])
async def test_inputs_and_parameters_pass_as_they_are_and_floats_are_asked(
    provider: Provider, demo: Demo, given: Any, items: int, model: str
) -> None:
    call = an_embedding(demo.base, given, model=model, dimensions=4, user="u1", encoding_format="base64", api_base="x")
    answer = await provider.complete(call, timeout_s=LIMIT_S)

    [request] = await demo.requests()
    sent = {"model": model.partition("/")[2], "dimensions": 4, "user": "u1", "encoding_format": "float"}
    assert request["path"] == "/v1/embeddings"
    # Some of litellm's clients make a list of a single text: that is the same question.
    assert request["body"] | {"input": None} == sent | {"input": None}
    assert request["body"]["input"] in (given, [given])
    assert request["headers"]["x-client-request-id"] == f"{call.id}.1"
    assert [item["index"] for item in data(answer)] == list(range(items))
    assert all(len(item["embedding"]) == 4 for item in data(answer))
    assert answer.usage.source == "provider"
    assert answer.usage.completion_tokens == 0
    assert answer.usage.prompt_tokens > 0
    assert answer.finish_reason is None


def a_body(*items: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"object": "list", "model": "m", "data": [{"object": "embedding", **item} for item in items], **more}


async def test_order_is_the_inputs_and_digits_are_the_providers(provider: Provider, demo: Demo) -> None:
    first, second = [-0.006929283495992422, 1e-07, 3.0], [0.1, -0.25, 0.30000000000000004]
    usage = {"prompt_tokens": 9, "total_tokens": 9}
    body = a_body({"index": 1, "embedding": second}, {"index": 0, "embedding": first}, usage=usage)
    await demo.script(status(200, body=body))
    answer = await provider.complete(an_embedding(demo.base, ["a", "b"]), timeout_s=LIMIT_S)

    assert data(answer) == [{"index": 0, "embedding": first}, {"index": 1, "embedding": second}]
    assert "-0.006929283495992422" in answer.response
    assert answer.usage == Usage(prompt_tokens=9, source="provider")


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
async def test_base64_that_nobody_asked_for_is_read(provider: Provider, demo: Demo) -> None:
    packed = base64.b64encode(struct.pack("<3f", 0.25, -0.5, 1.0)).decode()
    await demo.script(status(200, body=a_body({"index": 0, "embedding": packed})))
    answer = await provider.complete(an_embedding(demo.base, "a"), timeout_s=LIMIT_S)

    assert data(answer) == [{"index": 0, "embedding": [0.25, -0.5, 1.0]}]
    assert answer.usage == Usage(prompt_tokens=77, source="estimated")


@pytest.mark.parametrize(
    "body",
    [
        a_body({"index": 0, "embedding": [0.5]}),
        a_body({"index": 0, "embedding": [0.5]}, {"index": 0, "embedding": [0.5]}),
        a_body({"index": 0, "embedding": [0.5]}, {"index": 1, "embedding": []}),
        a_body({"index": 0, "embedding": [0.5]}, {"index": 1, "embedding": "!"}),
        {"object": "list", "data": None},
    ],
)
async def test_anything_but_one_embedding_per_input_is_no_answer(
    provider: Provider, demo: Demo, body: dict[str, Any]
) -> None:
    await demo.script(status(200, body=body))
    error = await failure(provider, an_embedding(demo.base, ["a", "b"]))

    assert (error.code, error.outcome) == ("provider_error", Outcome.UNKNOWN)


async def test_failed_embedding_means_what_a_failed_chat_means(provider: Provider, demo: Demo) -> None:
    await demo.script(status(429), {"fault": "reset"}, status(400), status(401), {"fault": "garbage"})
    found = [await failure(provider, an_embedding(demo.base, "a")) for _ in range(5)]

    assert [(error.code, error.outcome) for error in found] == [
        ("provider_rate_limit", Outcome.FAILED),
        ("provider_error", Outcome.UNKNOWN),
        ("provider_bad_request", Outcome.FAILED),
        ("provider_auth", Outcome.FAILED),
        ("provider_error", Outcome.UNKNOWN),
    ]
    assert len(await demo.requests()) == 5
