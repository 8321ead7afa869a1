"""How the demo provider's answers look as bytes: JSON bodies and errors, in OpenAI's shapes."""

from dataclasses import dataclass, field

import orjson

from cli.demo_answers import Choice, Reply
from cli.demo_logprobs import chat_logprobs, text_logprobs
from cli.demo_texts import Json

JSON_TYPE = "application/json"
STREAM_TYPE = "text/event-stream; charset=utf-8"
ERROR_TYPES = {401: "invalid_request_error", 403: "permission_error", 429: "rate_limit_error"}
ERROR_CODES = {401: "invalid_api_key", 404: "not_found", 429: "rate_limit_exceeded"}


@dataclass(slots=True)
class Answer:
    """A whole HTTP answer; a streamed one has a piece for each server-sent event, any other has one piece."""

    status: int
    pieces: list[bytes]
    content_type: str = JSON_TYPE
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def streamed(self) -> bool:
        """Whether it is made of server-sent events."""
        return self.content_type is STREAM_TYPE


def json_answer(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    """An answer in one piece."""
    return Answer(status, [orjson.dumps(content)], headers=headers or {})


def error_body(status: int, message: str, param: str | None = None) -> Json:
    """OpenAI's error object."""
    kind = ERROR_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": ERROR_CODES.get(status)}}


def frame(reply: Reply) -> Json:
    """What the whole answer and each chunk of it have in common."""
    common: Json = {"id": reply.id, "object": reply.kind, "created": reply.created, "model": reply.model}
    if reply.service_tier is not None:
        common["service_tier"] = reply.service_tier
    return common | {"system_fingerprint": reply.system_fingerprint}


def whole_answer(reply: Reply) -> Answer:
    """The answer in one piece."""
    shown = _chat_choice if reply.kind == "chat.completion" else _text_choice
    content = frame(reply) | {
        "choices": [
            {"index": index} | shown(choice, reply) | {"finish_reason": choice.finish_reason}
            for index, choice in enumerate(reply.choices)
        ]
    }
    if reply.usage is not None:
        content["usage"] = reply.usage
    return json_answer(content)


def _chat_choice(choice: Choice, reply: Reply) -> Json:
    content = None if choice.silent else choice.text
    message: Json = {"role": "assistant", "content": content, "refusal": choice.refusal}
    message["annotations"] = choice.annotations
    extra = {
        "reasoning_content": choice.reasoning,
        "tool_calls": choice.tool_calls,
        "function_call": choice.function_call,
        "audio": choice.audio,
    }
    message |= {name: value for name, value in extra.items() if value}
    refused = choice.refusal is not None
    logprobs = chat_logprobs(choice.refusal or choice.text, reply.logprobs, refused=refused)
    return {"message": message, "logprobs": logprobs}


def _text_choice(choice: Choice, reply: Reply) -> Json:
    logprobs = text_logprobs(choice.prompt, choice.text, reply.logprobs)
    return {"text": choice.prompt + choice.text, "logprobs": logprobs}
