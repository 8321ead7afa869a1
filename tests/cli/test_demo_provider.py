"""The demo provider as its users meet it: a process of its own, over real sockets."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import httpx
import pytest

from tests.cli.demo_rig import LIMIT_S, ROOT, ask, events, logged, reached, running, script, streamed_text

pytest_plugins = ("tests.cli.demo_fixtures",)
pytestmark = pytest.mark.anyio


async def test_question_is_answered_with_usage(provider: httpx.AsyncClient) -> None:
    first, second = await ask(provider, "What is the capital of France?"), await ask(provider, "Parcels!")

    assert first.json()["choices"][0]["message"]["content"] == "Paris"
    assert first.json()["choices"][0]["finish_reason"] == "stop"
    assert first.json()["usage"]["prompt_tokens"] == 3 + 4 + 8
    assert first.json()["usage"]["completion_tokens"] == 2
    assert second.json()["choices"][0]["message"]["content"] == "You said: Parcels!"
    assert first.json()["id"].startswith("chatcmpl-")
    assert first.json()["id"] != second.json()["id"]
    assert first.headers["x-request-id"]
    assert first.headers["openai-processing-ms"].isdigit()


async def test_stream_holds_the_same_text_and_the_usage_asked_for(provider: httpx.AsyncClient) -> None:
    plain = await ask(provider, "Write 30 words", stream=True)
    with_usage = events(await ask(provider, "Write 30 words", stream=True, stream_options={"include_usage": True}))
    whole = (await ask(provider, "Write 30 words")).json()

    assert plain.headers["content-type"].startswith("text/event-stream")
    assert streamed_text(events(plain)) == whole["choices"][0]["message"]["content"]
    assert len(streamed_text(with_usage).split()) == 30
    assert events(plain)[-1] == "[DONE]"
    assert not any("usage" in chunk for chunk in events(plain)[:-1])
    assert (with_usage[-2]["choices"], with_usage[-2]["usage"]) == ([], whole["usage"])
    assert with_usage[-3]["choices"][0]["finish_reason"] == "stop"


async def test_answer_is_shortened_by_max_tokens_and_stop(provider: httpx.AsyncClient) -> None:
    cut = (await ask(provider, "Write 30 words", max_tokens=5)).json()
    stopped = (await ask(provider, "Write 30 words", stop=[" leaves"], n=2)).json()

    assert (cut["choices"][0]["finish_reason"], cut["usage"]["completion_tokens"]) == ("length", 5)
    assert [choice["message"]["content"] for choice in stopped["choices"]] == ["the parcel"] * 2
    assert stopped["usage"]["completion_tokens"] == 6


async def test_json_schema_is_filled(provider: httpx.AsyncClient) -> None:
    schema = {"$defs": {"C": {"enum": ["a", "b"]}}, "properties": {"c": {"$ref": "#/$defs/C"}, "l": {"type": "array"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = (await ask(provider, response_format=wanted)).json()

    assert json.loads(answer["choices"][0]["message"]["content"]) == {"c": "a", "l": ["Paris"]}


async def test_wrong_key_and_wrong_requests_are_refused_in_openai_shape(provider: httpx.AsyncClient) -> None:
    path = "/v1/chat/completions"
    wrong_key = await provider.post(path, json={}, headers={"authorization": "Bearer sk-wrong"})
    no_messages, no_json = await ask(provider, messages=[]), await provider.post(path, content=b"{")
    bad_input = await provider.post("/v1/embeddings", json={"model": "m", "input": [1, "a"]})
    unknown = await provider.get("/v1/nothing")
    bad_format = await ask(provider, response_format="json")

    assert (wrong_key.status_code, wrong_key.json()["error"]["code"]) == (401, "invalid_api_key")
    assert (no_messages.status_code, no_messages.json()["error"]["param"]) == (400, "messages")
    assert (no_json.status_code, bad_input.status_code, unknown.status_code) == (400, 400, 404)
    assert bad_format.json()["error"]["param"] == "response_format"
    assert unknown.json()["error"]["type"] == "invalid_request_error"


async def test_models_are_listed(provider: httpx.AsyncClient) -> None:
    names = [model["id"] for model in (await provider.get("/v1/models")).json()["data"]]

    assert {"gpt-4", "text-embedding-ada-002"} <= set(names)
    assert (await provider.get("/v1/models/gpt-4")).json()["id"] == "gpt-4"
    assert (await provider.get("/v1/models/none")).status_code == 404


async def test_script_is_for_matching_requests_one_step_each(provider: httpx.AsyncClient) -> None:
    refusal = {"fault": "status", "status": 429, "headers": {"Retry-After": "2"}}
    await script(provider, refusal, {"fault": "status", "status": 503, "body": {"x": 1}}, match="France")
    other = await ask(provider, "Parcels!")
    first, second, third = [await ask(provider) for _ in range(3)]

    assert (other.status_code, first.status_code, second.status_code, third.status_code) == (200, 429, 503, 200)
    assert (first.headers["retry-after"], first.json()["error"]["code"]) == ("2", "rate_limit_exceeded")
    assert second.json() == {"x": 1}
    assert [entry["fault"] for entry in await logged(provider, match="France")] == ["status", "status", None]


async def test_repeated_script_goes_round(provider: httpx.AsyncClient) -> None:
    await script(provider, {"fault": "ok"}, {"fault": "status", "status": 500}, repeat=True)

    assert [(await ask(provider)).status_code for _ in range(4)] == [200, 500, 200, 500]


async def test_unknown_fault_is_refused(provider: httpx.AsyncClient) -> None:
    answer = await provider.post("/_control/script", json={"steps": [{"fault": "explode"}]})

    assert answer.status_code == 400
    assert "stream_error" in answer.json()["error"]["message"]


async def test_answer_bodies_can_be_spoiled(provider: httpx.AsyncClient) -> None:
    spoiled = [{"fault": "garbage"}, {"fault": "empty"}, {"fault": "no_usage"}, {"fault": "content", "text": "Lyon"}]
    await script(provider, *spoiled, {"fault": "usage", "prompt_tokens": 7, "completion_tokens": 9, "cached_tokens": 5})
    garbage, empty, no_usage, content, usage = [await ask(provider) for _ in range(5)]

    assert garbage.status_code == 200
    assert garbage.text.startswith("<html>")
    assert (empty.status_code, empty.content) == (200, b"")
    assert "usage" not in no_usage.json()
    assert content.json()["choices"][0]["message"]["content"] == "Lyon"
    assert usage.json()["usage"]["total_tokens"] == 16
    assert usage.json()["usage"]["prompt_tokens_details"]["cached_tokens"] == 5
    assert (await logged(provider))[2]["usage"]["completion_tokens"] == 2


async def test_reset_breaks_the_connection_without_an_answer(provider: httpx.AsyncClient) -> None:
    await script(provider, {"fault": "reset"})
    with pytest.raises(httpx.ReadError):
        await ask(provider)

    assert [entry["outcome"] for entry in await logged(provider)] == ["cut"]


async def test_cut_leaves_half_a_body_or_some_chunks(provider: httpx.AsyncClient) -> None:
    await script(provider, {"fault": "cut"}, {"fault": "cut", "chunks": 4})
    with pytest.raises(httpx.RemoteProtocolError):
        await ask(provider)
    body = {"model": "gpt-4", "messages": [{"role": "user", "content": "Write 30 words"}], "stream": True}
    received = bytearray()
    async with provider.stream("POST", "/v1/chat/completions", json=body) as answer:
        with pytest.raises(httpx.RemoteProtocolError):
            await collect(answer, received)

    assert received.count(b"data: ") == 4
    assert await reached(provider, outcome="cut", count=2)


async def collect(answer: httpx.Response, received: bytearray) -> None:
    async for piece in answer.aiter_bytes():
        received.extend(piece)


async def test_drip_delivers_everything_in_small_pieces(provider: httpx.AsyncClient) -> None:
    await script(provider, {"fault": "drip", "every_s": 0.01, "bytes": 50})
    body = {"model": "gpt-4", "messages": [{"role": "user", "content": "Capital of France?"}]}
    async with provider.stream("POST", "/v1/chat/completions", json=body) as answer:
        pieces = [piece async for piece in answer.aiter_raw()]

    assert len(pieces) > 3
    assert json.loads(b"".join(pieces))["choices"][0]["message"]["content"] == "Paris"


async def test_base_delay_is_for_every_answer(url: str, provider: httpx.AsyncClient) -> None:
    await provider.post("/_control/delay", json={"seconds": 60})
    await give_up_after_asking(url, provider, question := str(uuid4()))
    await provider.post("/_control/delay", json={"seconds": 0})

    assert await reached(provider, match=question, outcome="disconnected")
    assert (await ask(provider)).status_code == 200


async def test_delayed_answer_comes(provider: httpx.AsyncClient) -> None:
    await script(provider, {"fault": "delay", "seconds": 0.01}, {"fault": "status", "status": 502, "after_s": 0.01})

    assert [(await ask(provider)).status_code for _ in range(2)] == [200, 502]


async def give_up_after_asking(url: str, provider: httpx.AsyncClient, question: str, **fields: Any) -> None:
    async with httpx.AsyncClient(base_url=url) as impatient, anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: ask(impatient, question, **fields))
        assert await reached(provider, match=question)
        tasks.cancel_scope.cancel()


WAITING: dict[str, dict[str, Any]] = {
    "hang": {"fault": "hang"},
    "delay": {"fault": "delay", "seconds": 60},
    "drip": {"fault": "drip", "every_s": 60},
    "stall": {"fault": "stall", "chunks": 2},
}


@pytest.mark.parametrize("step", WAITING.values(), ids=WAITING.keys())
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_client_that_hangs_up_is_noticed(url: str, provider: httpx.AsyncClient, step: Any, stream: bool) -> None:
    question = str(uuid4())
    await script(provider, step, match=question)
    await give_up_after_asking(url, provider, question, stream=stream)

    assert await reached(provider, match=question, outcome="disconnected")
    [entry] = await logged(provider, match=question)
    assert (entry["fault"], entry["finished_at"] is not None) == (step["fault"], True)


async def test_held_answers_come_when_released(provider: httpx.AsyncClient) -> None:
    await provider.post("/_control/hold")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, provider, "first")
        tasks.start_soon(ask, provider, "second")
        assert await reached(provider, outcome="held", count=2)
        assert await logged(provider, outcome="answered") == []
        await provider.post("/_control/release")

    assert [entry["outcome"] for entry in await logged(provider)] == ["answered", "answered"]
    assert (await ask(provider)).status_code == 200


async def test_client_that_hangs_up_while_held_is_noticed(url: str, provider: httpx.AsyncClient) -> None:
    await provider.post("/_control/hold", json={"match": "held"})
    await give_up_after_asking(url, provider, "held question")

    assert (await ask(provider, "another question")).status_code == 200
    assert await reached(provider, match="held", outcome="disconnected")
    assert (await provider.post("/_control/release")).status_code == 200


async def test_log_shows_requests_with_the_key_masked(provider: httpx.AsyncClient) -> None:
    await ask(provider, "first")
    [first] = await logged(provider)
    await ask(provider, "x" * 5000, user="u1")
    [second] = await logged(provider, since=first["seq"])

    assert first["body"]["messages"][0]["content"] == "first"
    assert first["headers"]["authorization"] == "...1234"
    assert (first["outcome"], first["status"], first["model"]) == ("answered", 200, "gpt-4")
    assert (second["seq"], second["body"]) == (first["seq"] + 1, None)


async def test_wait_says_when_the_requests_did_not_come(provider: httpx.AsyncClient) -> None:
    await ask(provider)

    assert await reached(provider, count=1)
    assert not await reached(provider, count=2, timeout=0.01)


async def test_ground_truth_is_written_before_the_answer(tmp_path: Path) -> None:
    truth = tmp_path / "truth.jsonl"
    with running("--control", "--ground-truth", str(truth)) as (_, url):
        async with httpx.AsyncClient(base_url=url, headers={"x-client-request-id": "call-1"}) as client:
            await client.post("/_control/hold")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, client, "q" * 300)
                assert await reached(client, outcome="held")
                [line] = truth.read_text().splitlines()
                tasks.cancel_scope.cancel()

    written = json.loads(line)
    assert (written["seq"], written["model"], written["client_request_id"]) == (1, "gpt-4", "call-1")
    assert written["message"] == "q" * 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_ends_it_at_once_with_a_request_hanging(number: signal.Signals) -> None:
    with running("--control") as (process, url):
        async with httpx.AsyncClient(base_url=url, timeout=LIMIT_S) as client:
            await script(client, {"fault": "hang"})
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(expect_broken, client)
                assert await reached(client)
                os.kill(process.pid, number)
        assert process.wait(LIMIT_S) == 0


async def expect_broken(client: httpx.AsyncClient) -> None:
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        await ask(client)


async def test_control_is_absent_unless_asked_for() -> None:
    with running() as (_, url):
        async with httpx.AsyncClient(base_url=url) as client:
            assert (await client.post("/_control/reset")).status_code == 404
            assert (await ask(client)).json()["choices"][0]["message"]["content"] == "Paris"


def test_taken_port_is_said_at_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [sys.executable, "-m", "cli.demo_provider", "--port", str(taken.getsockname()[1])]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)

    assert ended.returncode == 1
    assert "in use" in ended.stderr
    assert "Traceback" not in ended.stderr
