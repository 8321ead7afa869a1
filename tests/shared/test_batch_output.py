"""The lines of a batch's files, byte by byte as OpenAI's clients read them."""

import asyncio
import base64
import struct
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
import pytest

from shared import batch_output, failures
from shared.batch_output import LINE_CHARS, SMALL_CHARS
from shared.batch_results import EndedLine

ID = UUID("019aa3c2-7b1e-7c44-9d0a-3f5b1c2d4e6f")
HEX = ID.hex
PARIS = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Paris"}, "finish_reason": "stop"}]}
VECTOR = {"data": [{"index": 0, "embedding": [0.5, -0.25]}]}

DONE = EndedLine(
    id=ID,
    custom_id="request-1",
    ended_number=1,
    state="completed",
    endpoint="chat",
    model="fast",
    created_at=datetime(2026, 1, 15, 12, tzinfo=UTC),
    finish_reason="stop",
    prompt_tokens=9,
    completion_tokens=12,
    total_tokens=21,
    cached_tokens=0,
    reasoning_tokens=0,
    client_cost_nanousd=1_200_000,
    error_code=None,
    error_message=None,
    response=orjson.dumps(PARIS).decode(),
)


def failed(code: str, state: str = "failed", message: str | None = None) -> EndedLine:
    text = failures.message(code, message)
    return replace(DONE, state=state, response=None, client_cost_nanousd=0, error_code=code, error_message=text)


def shown(line: EndedLine) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(batch_output.line(line))
    assert list(found) == ["id", "custom_id", "response", "error", "cost_usd", "call_id"]
    assert (found["response"] is None) != (found["error"] is None)
    return found


def test_every_byte_of_a_line_that_succeeded_is_as_documented():
    assert (
        batch_output.line(DONE)
        == (
            f'{{"id":"batch_req_{HEX}","custom_id":"request-1","response":{{"status_code":200,"request_id":"req_{HEX}",'
            f'"body":{{"id":"chatcmpl-{HEX}","object":"chat.completion","created":1768478400,"model":"fast","choices":'
            '[{"index":0,"message":{"role":"assistant","content":"Paris","refusal":null},"logprobs":null,'
            '"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21,'
            '"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":'
            '{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0},'
            '"cost":0.0012},"system_fingerprint":null,"service_tier":null}},"error":null,"cost_usd":0.0012,'
            f'"call_id":"{ID}"}}\n'
        ).encode()
    )


def test_every_byte_of_a_line_that_its_provider_refused_is_as_documented():
    line = replace(failed("provider_rate_limit"), provider="openai")
    assert (
        batch_output.line(line)
        == (
            f'{{"id":"batch_req_{HEX}","custom_id":"request-1","response":{{"status_code":429,"request_id":"req_{HEX}",'
            '"body":{"error":{"message":"LLM call failed: provider rate limit","type":"rate_limit_error","param":null,'
            f'"code":429,"provider":"openai"}}}}}},"error":null,"cost_usd":0.0,"call_id":"{ID}"}}\n'
        ).encode()
    )


def test_every_byte_of_a_line_that_never_ran_is_as_documented():
    assert (
        batch_output.line(failed("deadline_exceeded"))
        == (
            f'{{"id":"batch_req_{HEX}","custom_id":"request-1","response":null,"error":{{"code":"batch_expired",'
            '"message":"This request could not be executed before the completion window expired."},"cost_usd":0.0,'
            f'"call_id":"{ID}"}}\n'
        ).encode()
    )


def test_a_line_that_was_cancelled_says_so():
    error = shown(failed("cancelled", "cancelled"))["error"]
    message = "This request was cancelled before it was completed."
    assert error == {"code": "batch_cancelled", "message": message}


@pytest.mark.parametrize("code", [code for code in failures.FAILURES if code not in ("cancelled", "deadline_exceeded")])
def test_a_line_that_ran_and_failed_has_the_answer_that_its_request_would_have_had_alone(code: str):
    response = shown(failed(code, message="too long"))["response"]
    said = response["body"]["error"]
    failure = failures.FAILURES[code]
    assert (response["status_code"], said["type"]) == (failure.http_status, failure.type)
    assert said["code"] == (429 if code == "provider_rate_limit" else code)
    assert said["message"] == failures.message(code, "too long")


def test_a_text_completion_is_written_as_one():
    stored = {"choices": [{"index": 0, "text": " Paris", "finish_reason": "stop"}]}
    body = shown(replace(DONE, endpoint="completion", response=orjson.dumps(stored).decode()))["response"]["body"]
    assert (body["id"], body["object"], body["choices"][0]["text"]) == (f"cmpl-{HEX}", "text_completion", " Paris")


def test_the_vectors_of_an_embedding_come_as_they_were_asked_for():
    line = replace(DONE, endpoint="embedding", response=orjson.dumps(VECTOR).decode())
    [numbers] = shown(line)["response"]["body"]["data"]
    [packed] = shown(replace(line, as_base64=True))["response"]["body"]["data"]
    assert numbers == {"object": "embedding", "index": 0, "embedding": [0.5, -0.25]}
    assert struct.unpack("<2f", base64.b64decode(packed["embedding"])) == (0.5, -0.25)


def test_names_that_are_no_ascii_stay_as_they_are():
    line = replace(DONE, custom_id='é "1"\n')
    assert shown(line)["custom_id"] == 'é "1"\n'
    assert batch_output.line(line).count(b"\n") == 1


def test_an_answer_that_is_no_longer_stored_is_not_made_up():
    found = shown(replace(DONE, response=None))
    assert (found["response"], found["error"]["code"], found["cost_usd"]) == (None, "answer_erased", 0.0012)


def test_an_answer_that_cannot_be_read_costs_no_other_line_its_place():
    assert shown(replace(DONE, response='{"choices":[7]}'))["error"]["code"] == "answer_unreadable"


async def test_lines_long_and_short_are_written_in_their_order():
    words = orjson.dumps(PARIS).decode()
    long = words.replace("Paris", "P" * SMALL_CHARS)
    page = [replace(DONE, ended_number=n, response=long if n % 3 == 0 else words) for n in range(1, 9)]
    found = [(line, text) async for line, text in batch_output.written(page)]
    assert found == [(line, batch_output.line(line)) for line in page]
    assert len(long) > SMALL_CHARS > LINE_CHARS + len(words)


async def test_others_get_their_turn_while_many_lines_are_written():
    turns = []

    async def other() -> None:
        while True:
            turns.append(None)
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    written = [text async for _, text in batch_output.written([DONE] * 1000)]
    task.cancel()
    assert (len(written), len(turns) > 3) == (1000, True)
