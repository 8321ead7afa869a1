"""The demo provider's text completions and embeddings, in OpenAI's shapes."""

import base64
from array import array
from typing import Any

import httpx
import pytest

from tests.cli.demo_rig import USAGE, events, logged, script

pytest_plugins = ("tests.cli.demo_fixtures",)
pytestmark = pytest.mark.anyio

INSTRUCT = "gpt-3.5-turbo-instruct"


async def complete(provider: httpx.AsyncClient, prompt: Any, **fields: Any) -> httpx.Response:
    return await provider.post("/v1/completions", json={"model": INSTRUCT, "prompt": prompt, **fields})


async def embedded(provider: httpx.AsyncClient, given: Any, **fields: Any) -> httpx.Response:
    body = {"model": "text-embedding-ada-002", "input": given, **fields}
    return await provider.post("/v1/embeddings", json=body)


def texts(answer: httpx.Response) -> list[str]:
    return [choice["text"] for choice in answer.json()["choices"]]


async def test_prompt_is_completed_in_sixteen_tokens_unless_asked_otherwise(provider: httpx.AsyncClient) -> None:
    answer = (await complete(provider, "Capital of France?")).json()
    long, short = [await complete(provider, "30 words", **more) for more in ({}, {"max_tokens": 2})]

    assert {name: answer[name] for name in ("object", "model", "choices")} == {
        "object": "text_completion",
        "model": INSTRUCT,
        "choices": [{"index": 0, "text": "Paris", "logprobs": None, "finish_reason": "stop"}],
    }
    assert answer["id"].startswith("cmpl-")
    assert answer["usage"]["total_tokens"] == 5 + 2
    assert [len(text) for text in texts(long) + texts(short)] == [16 * 4, 2 * 4]
    assert long.json()["choices"][0]["finish_reason"] == "length"
    assert texts(await complete(provider, "30 words", stop="leaves")) == ["the parcel "]


async def test_each_prompt_is_answered_n_times_with_one_index_over_all(provider: httpx.AsyncClient) -> None:
    prompts = ["Capital of France?", "Capital of Italy?"]
    answer = await complete(provider, prompts, n=2, best_of=3, suffix="four")

    assert texts(answer) == ["Paris", "Paris (2)", "Rome", "Rome (2)"]
    assert [choice["index"] for choice in answer.json()["choices"]] == [0, 1, 2, 3]
    usage = answer.json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (5 + 5 + 2, (2 + 3 + 1 + 2) * 3 // 2)


async def test_tokens_are_prompts_of_their_own_length(provider: httpx.AsyncClient) -> None:
    one, two = await complete(provider, [1, 2, 30000]), await complete(provider, [[1], [2, 3]])

    assert (len(one.json()["choices"]), one.json()["usage"]["prompt_tokens"]) == (1, 3)
    assert (len(two.json()["choices"]), two.json()["usage"]["prompt_tokens"]) == (2, 3)
    assert [entry["message"] for entry in await logged(provider)] == ["   1   20000", "   2   3"]


async def test_prompt_is_echoed_with_its_logprobs(provider: httpx.AsyncClient) -> None:
    [choice] = (await complete(provider, "The capital of France", echo=True, logprobs=2)).json()["choices"]
    only_prompt = await complete(provider, "Hello there", echo=True, max_tokens=0)

    assert choice["text"] == "The capital of FranceParis"
    told = choice["logprobs"]
    assert told["tokens"] == ["The", " capital", " of", " France", "Paris"]
    assert told["text_offset"] == [0, 3, 11, 14, 21]
    assert (told["token_logprobs"][0], told["top_logprobs"][0], len(told["top_logprobs"][4])) == (None, None, 2)
    assert texts(only_prompt) == ["Hello there"]


async def test_completion_is_streamed_with_usage_in_a_chunk_of_its_own(provider: httpx.AsyncClient) -> None:
    prompts = ["Write 3 words", "Capital of Italy?"]
    asked: dict[str, Any] = {"echo": True, "logprobs": 0}
    whole = (await complete(provider, prompts, **asked)).json()
    *found, done = events(await complete(provider, prompts, **asked, **USAGE))

    assert done == "[DONE]"
    for index, choice in enumerate(whole["choices"]):
        said = [one for chunk in found for one in chunk["choices"] if one["index"] == index]
        assert "".join(one["text"] for one in said) == choice["text"]
        assert [one["finish_reason"] for one in said][-2:] == [None, "stop"]
        assert said[-1]["text"] == ""
        offsets = [offset for one in said[:-1] for offset in one["logprobs"]["text_offset"]]
        assert offsets == choice["logprobs"]["text_offset"]
    assert {chunk["object"] for chunk in found} == {"text_completion"}
    assert (found[-1]["choices"], found[-1]["usage"]) == ([], whole["usage"])


async def test_faults_are_for_completions_too(provider: httpx.AsyncClient) -> None:
    await script(
        provider, {"fault": "content", "text": "Lyon"}, {"say": {"text": "no", "finish_reason": "content_filter"}}
    )
    scripted, filtered = [await complete(provider, "Capital of France?") for _ in range(2)]
    await script(provider, {"fault": "stream_error", "chunks": 1, "status": 429}, match=INSTRUCT)
    broken = events(await complete(provider, "Capital of France?", **USAGE))

    assert texts(scripted) == ["Lyon"]
    assert filtered.json()["choices"][0]["finish_reason"] == "content_filter"
    assert (len(broken), broken[-1]["error"]["type"]) == (2, "rate_limit_error")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [[1, True]]}, "prompt"),
        ({"n": 3, "best_of": 2}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"logprobs": 6}, "logprobs"),
        ({"max_tokens": -1}, "max_tokens"),
    ],
)
async def test_wrong_completion_requests_are_refused(provider: httpx.AsyncClient, fields: Any, param: str) -> None:
    answer = await complete(provider, **({"prompt": "Hello"} | fields))

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_embeddings_are_deterministic_unit_vectors_in_both_forms(provider: httpx.AsyncClient) -> None:
    floats = (await embedded(provider, ["one", "two"])).json()
    coded = (await embedded(provider, ["one", "two"], encoding_format="base64")).json()

    one, two = (item["embedding"] for item in floats["data"])
    assert len(one) == 1536
    assert one != two
    assert sum(x * x for x in one) == pytest.approx(1, abs=1e-5)
    assert array("f", base64.b64decode(coded["data"][0]["embedding"])).tolist() == one
    assert floats["usage"] == {"prompt_tokens": 2, "total_tokens": 2}


async def test_embeddings_take_tokens_and_dimensions(provider: httpx.AsyncClient) -> None:
    one, two = await embedded(provider, [5, 6, 7], dimensions=3), await embedded(provider, [[5, 6, 7], [8]])

    assert [len(item["embedding"]) for item in one.json()["data"]] == [3]
    assert [(item["index"], len(item["embedding"])) for item in two.json()["data"]] == [(0, 1536), (1, 1536)]
    assert (one.json()["usage"]["prompt_tokens"], two.json()["usage"]["prompt_tokens"]) == (3, 4)
    assert [(await embedded(provider, given)).status_code for given in ("", [""], [[]], [1, "a"], [])] == [400] * 5
