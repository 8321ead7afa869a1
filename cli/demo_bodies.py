"""How the demo provider's answers look as bytes: JSON bodies, server-sent chunks, errors, in OpenAI's shapes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import orjson

from cli.demo_answers import Completion, Json

JSON_TYPE = "application/json"
STREAM_TYPE = "text/event-stream; charset=utf-8"
ERROR_TYPES = {401: "invalid_request_error", 403: "permission_error", 429: "rate_limit_error"}
ERROR_CODES = {401: "invalid_api_key", 404: "not_found", 429: "rate_limit_exceeded"}
WORD = re.compile(r"\s*\S+|\s+$")


@dataclass(slots=True)
class Answer:
    """A whole HTTP answer; a streamed one has a piece for each server-sent event, any other has one piece."""

    status: int
    pieces: list[bytes]
    content_type: str = JSON_TYPE
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def streamed(self) -> bool:
        return self.content_type is STREAM_TYPE


def json_answer(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    return Answer(status, [orjson.dumps(content)], headers=headers or {})


def error_body(status: int, message: str, param: str | None = None) -> Json:
    kind = ERROR_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": ERROR_CODES.get(status)}}


def completion_answer(completion: Completion) -> Answer:
    message: Json = {"role": "assistant", "content": completion.text, "refusal": None, "annotations": []}
    if completion.tool_calls:
        message |= {"content": None, "tool_calls": completion.tool_calls}
    logprobs = {"content": _logprobs(completion.text), "refusal": None} if completion.logprobs else None
    content: Json = {
        "id": completion.id,
        "object": "chat.completion",
        "created": completion.created,
        "model": completion.model,
        "choices": [
            {"index": i, "message": message, "logprobs": logprobs, "finish_reason": completion.finish_reason}
            for i in range(completion.n)
        ],
        "service_tier": "default",
        "system_fingerprint": "fp_demo",
    }
    if completion.usage is not None:
        content["usage"] = completion.usage
    return json_answer(content)


def stream_answer(completion: Completion, *, include_usage: bool) -> Answer:
    """The chunks in order; a completion without finish_reason just ends, as when a provider dies politely."""
    pieces = [_event(chunk) for chunk in _chunks(completion, include_usage)]
    if completion.finish_reason is not None:
        pieces.append(b"data: [DONE]\n\n")
    return Answer(200, pieces, STREAM_TYPE)


def error_event(message: str) -> bytes:
    return _event(error_body(500, message))


def _event(content: Json) -> bytes:
    return b"data: " + orjson.dumps(content) + b"\n\n"


def _chunks(completion: Completion, include_usage: bool) -> Iterator[Json]:
    frame: Json = {
        "id": completion.id,
        "object": "chat.completion.chunk",
        "created": completion.created,
        "model": completion.model,
        "service_tier": "default",
        "system_fingerprint": "fp_demo",
    }
    if include_usage:
        frame["usage"] = None
    for i in range(completion.n):
        for delta, logprobs in _deltas(completion):
            yield frame | {"choices": [{"index": i, "delta": delta, "logprobs": logprobs, "finish_reason": None}]}
    if completion.finish_reason is None:
        return
    for i in range(completion.n):
        last = {"index": i, "delta": {}, "logprobs": None, "finish_reason": completion.finish_reason}
        yield frame | {"choices": [last]}
    if include_usage and completion.usage is not None:
        yield frame | {"choices": [], "usage": completion.usage}


def _deltas(completion: Completion) -> Iterator[tuple[Json, Json | None]]:
    yield {"role": "assistant", "content": None if completion.tool_calls else "", "refusal": None}, None
    for word in WORD.findall(completion.text):
        yield {"content": word}, {"content": _logprobs(word), "refusal": None} if completion.logprobs else None
    for i, call in enumerate(completion.tool_calls):
        opened = {"name": call["function"]["name"], "arguments": ""}
        yield {"tool_calls": [{"index": i, "id": call["id"], "type": "function", "function": opened}]}, None
        for part in _halves(call["function"]["arguments"]):
            yield {"tool_calls": [{"index": i, "function": {"arguments": part}}]}, None


def _halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


def _logprobs(text: str) -> list[Json]:
    return [
        {"token": word, "logprob": -0.01, "bytes": list(word.encode()), "top_logprobs": []}
        for word in WORD.findall(text)
    ]
