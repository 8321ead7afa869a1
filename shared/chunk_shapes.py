"""How a chunk of an answer is written, by the worker that tells it and by the api that tells it again from its row."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from shared.states import Endpoint

PREFIX = {Endpoint.CHAT: "chatcmpl", Endpoint.COMPLETION: "cmpl"}
"""Of an answer's id; embeddings have none."""
OBJECT = {Endpoint.CHAT: "chat.completion.chunk", Endpoint.COMPLETION: "text_completion"}


def head(call_id: UUID, endpoint: Endpoint, created_at: datetime, model: str) -> bytes:
    """What all chunks of a call begin with: the JSON text up to the value of `choices`. model: the asked name."""
    same = {
        "id": f"{PREFIX[endpoint]}-{call_id.hex}",
        "object": OBJECT[endpoint],
        "created": int(created_at.timestamp()),
        "model": model,
    }
    return orjson.dumps(same)[:-1] + b',"choices":'


def chunk(head_: bytes, choices: list[dict[str, Any]]) -> bytes:
    """A whole chunk."""
    return head_ + orjson.dumps(choices) + b"}"


def finish(endpoint: Endpoint, choice: Mapping[str, Any]) -> dict[str, Any]:
    """The last word on a choice: nothing but why it ended."""
    ended = {"finish_reason": choice["finish_reason"]}
    if endpoint == Endpoint.COMPLETION:
        return {"index": choice["index"], "text": "", "logprobs": None, **ended}
    return {"index": choice["index"], "delta": {}, **ended}
