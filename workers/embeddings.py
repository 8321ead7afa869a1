"""From a provider's embeddings to ours: floats, in the order of the inputs."""

import base64
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import orjson

from shared import estimate
from shared.calls import Claimed
from workers.answers import Tokens, Unreadable
from workers.classify import request_id
from workers.provider import Answer

FLOAT_BYTES = 4


def read_text(body: bytes, call: Claimed, headers: Mapping[str, str]) -> Answer:
    """The same from the provider's own bytes; for a thread, since a full answer has millions of numbers."""
    try:
        return read(orjson.loads(body), call, headers)
    except orjson.JSONDecodeError:
        raise Unreadable from None


def read(body: Any, call: Claimed, headers: Mapping[str, str]) -> Answer:
    """body: `{"data": [{"index", "embedding"}], "usage"}`. Raises Unreadable unless there is one for each input."""
    data = body.get("data") if isinstance(body, dict) else None
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise Unreadable
    by_index = {item.get("index", at): item.get("embedding") for at, item in enumerate(data)}
    wanted = len(estimate.items(call.request["input"]))
    if len(data) != wanted or set(by_index) != set(range(wanted)):
        raise Unreadable
    tokens = Tokens()
    tokens.add(body.get("usage"))
    shown = [{"index": index, "embedding": _floats(by_index[index])} for index in range(wanted)]
    return Answer(
        response=orjson.dumps({"data": shown}).decode(),
        finish_reason=None,
        usage=tokens.usage(call, 0),
        provider_request_id=request_id(httpx.Headers(dict(headers)), ()),
    )


def _floats(value: Any) -> Sequence[float]:
    """Some servers send base64 although floats were asked for: little-endian, four bytes each."""
    if isinstance(value, str):
        try:
            raw = base64.b64decode(value, validate=True)
            return struct.unpack(f"<{len(raw) // FLOAT_BYTES}f", raw)
        except (ValueError, struct.error):
            raise Unreadable from None
    if not isinstance(value, list) or not value or not all(isinstance(one, int | float) for one in value):
        raise Unreadable
    return value
