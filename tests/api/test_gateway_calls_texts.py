"""Text completions and embeddings: their requests, what is held for them, and answers in OpenAI's form."""

import base64
import struct
from typing import Any
from uuid import UUID

from shared import redis_keys
from shared.attempt_reports import Usage
from shared.wire.embeddings import SMALL_CHARS
from tests.api.gateway import COMPLETIONS, EMBEDDINGS, ask, frames, only_call, stored
from tests.scene import Scene, Team, agrees, saying

VECTORS = [[0.25, -0.5, 1.0], [-0.006929283, -0.00040876168, 1e-07]]
AS_TOLD = Usage(prompt_tokens=9, completion_tokens=0, source="provider")


def vectors(*found: list[float]) -> Any:
    return stored({"data": [{"index": n, "embedding": one} for n, one in enumerate(found)]}, AS_TOLD)


def choices(*found: str) -> list[dict[str, Any]]:
    return [{"index": n, "text": one, "finish_reason": "stop", "logprobs": None} for n, one in enumerate(found)]


def texts(*found: str) -> Any:
    return stored({"choices": choices(*found)})


async def test_prompts_are_completed_in_openais_form(scene: Scene, team: Team):
    scene.provider.steps = [texts("a", "b", "c", "d")]
    asked = {"prompt": [[1, 2, 3], [4]], "n": 2, "best_of": 3, "max_tokens": 10, "echo": True, "logprobs": 5}
    found = await ask(team, COMPLETIONS, **asked, suffix="!", api_base="http://evil")
    call = await only_call(team)
    body = found.json()
    assert list(body) == ["id", "object", "created", "model", "choices", "usage", "system_fingerprint"]
    assert (body["id"], body["object"], body["model"]) == (f"cmpl-{call.id.hex}", "text_completion", team.models[0])
    assert body["choices"][1] == {"text": "b", "index": 1, "logprobs": None, "finish_reason": "stop"}
    assert (body["usage"]["total_tokens"], body["usage"]["cost"]) == (450, call.client_cost_nanousd / 10**9)
    claimed = scene.provider.asked[0]
    assert (claimed.endpoint, claimed.request) == ("completion", {**asked, "suffix": "!"})
    assert (call.estimated_prompt_tokens, call.estimated_output_tokens) == (4 + 2 * 8 + 2, 10 * 3 * 2)
    await agrees(scene, team)


async def test_a_completion_is_streamed(scene: Scene, team: Team):
    pieces = [[{"index": 0, "text": text}] for text in ("Once", " upon")]
    scene.provider.steps = [saying(*pieces, then=texts("Once upon"))]
    asked = {"prompt": "Tell", "stream": True, "stream_options": {"include_usage": True}}
    first = await ask(team, COMPLETIONS, **asked, Idempotency_Key="k")
    told = frames(first)
    assert {chunk["object"] for chunk in told} == {"text_completion"}
    assert all(choice["logprobs"] is None for chunk in told for choice in chunk["choices"])
    assert "".join(choice["text"] for chunk in told for choice in chunk["choices"]) == "Once upon"
    assert told[-2]["choices"][0]["finish_reason"] == "stop"
    assert (told[-1]["choices"], told[-1]["usage"]["total_tokens"]) == ([], 450)

    await scene.rt.redis.delete(redis_keys.chunks(UUID(first.headers["x-call-id"])))
    longer_ago = "update calls set completed_at = completed_at - interval '1 hour' where id = :id returning id"
    await scene.rows(longer_ago, id=UUID(first.headers["x-call-id"]))
    stored_ones = frames(await ask(team, COMPLETIONS, **asked, Idempotency_Key="k"))
    assert [chunk["choices"][0] for chunk in stored_ones[:-1]] == [
        {"index": 0, "text": "Once upon", "logprobs": None, "finish_reason": None},
        {"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"},
    ]


async def test_vectors_keep_the_providers_digits_and_the_order_of_the_inputs(scene: Scene, team: Team):
    scene.provider.steps = [vectors(*VECTORS)]
    found = await ask(team, EMBEDDINGS, input=["a", "b"], dimensions=3, user="u")
    call = await only_call(team)
    assert found.json() == {
        "object": "list",
        "data": [{"object": "embedding", "index": n, "embedding": one} for n, one in enumerate(VECTORS)],
        "model": team.models[0],
        "usage": {"prompt_tokens": 9, "total_tokens": 9, "cost": call.client_cost_nanousd / 10**9},
    }
    assert call.client_cost_nanousd == 9 * 10_000
    claimed = scene.provider.asked[0]
    assert (claimed.endpoint, claimed.request) == ("embedding", {"input": ["a", "b"], "dimensions": 3, "user": "u"})
    assert found.headers["x-litellm-response-cost"] == "0.00009"
    await agrees(scene, team)


async def test_base64_is_little_endian_float32(scene: Scene, team: Team):
    many = [[n / 7 + m for n in range(500)] for m in range(20)]
    scene.provider.steps = [vectors(VECTORS[0]), vectors(*many)]
    one = await ask(team, EMBEDDINGS, input=[1, 2, 3], encoding_format="base64")
    assert one.json()["data"] == [{"object": "embedding", "index": 0, "embedding": "AACAPgAAAL8AAIA/"}]
    assert (await only_call(team)).estimated_prompt_tokens == 3
    assert (await only_call(team)).estimated_output_tokens == 0

    big = await ask(team, EMBEDDINGS, input=["x"] * 20, encoding_format="base64")
    size = "select length(response::text) as chars from call_payloads where call_id = :id"
    row = await scene.row(size, id=big.headers["x-call-id"])
    assert row.chars > SMALL_CHARS
    decoded = [struct.unpack("<500f", base64.b64decode(item["embedding"])) for item in big.json()["data"]]
    assert decoded == [struct.unpack("<500f", struct.pack("<500f", *vector)) for vector in many]


async def test_the_job_api_shows_what_was_completed(scene: Scene, team: Team):
    scene.provider.steps = [texts("a", "b")]
    found = await ask(team, COMPLETIONS, prompt="Tell", n=2)
    path = f"/jobs/{found.headers['x-job-id']}/calls"
    told = (await team.get(f"{path}/{found.headers['x-call-id']}")).json()
    assert (told["id"], told["object"], told["choices"]) == (found.json()["id"], "text_completion", choices("a", "b"))
    assert told["response"] == {"role": "assistant", "content": "a", "finish_reason": "stop"}
    assert "data" not in told
    [listed] = (await team.get(path)).json()["calls"]
    assert (listed["id"], listed["object"]) == (found.json()["id"], "text_completion")


async def test_the_job_api_shows_vectors_also_to_who_cancels_too_late_and_until_they_are_erased(
    scene: Scene, team: Team
):
    scene.provider.steps = [vectors(*VECTORS)]
    found = await ask(team, EMBEDDINGS, input=["a", "b"])
    path = f"/jobs/{found.headers['x-job-id']}/calls"
    one = f"{path}/{found.headers['x-call-id']}"
    for told in (await team.get(one), await team.post(f"{one}/cancel"), await scene.api.get(one)):
        shown = told.json()
        assert (shown["status"], shown["object"], shown["data"]) == ("completed", "list", found.json()["data"])
        assert (shown["id"], shown["choices"], shown["response"]) == (None, None, None)
    again = await team.get(one, If_None_Match=(await team.get(one)).headers["etag"])
    assert again.status_code == 304
    [listed] = (await team.get(path)).json()["calls"]
    assert listed["object"] == "list"
    assert "data" not in listed

    await scene.rows("delete from call_payloads where call_id = :id returning call_id", id=found.headers["x-call-id"])
    erased = (await team.get(one)).json()
    assert (erased["data"], erased["payload_expired"]) == (None, True)
