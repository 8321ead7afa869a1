"""A stored answer told as chunks: one of content for each choice, and the end. The same numbers every time."""

from collections.abc import Mapping
from typing import Any

import orjson

from api.views import usage_object
from shared import chunk_shapes, money
from shared.calls import Call
from shared.chunks import Chunks, End, Entry
from shared.states import CallState, Endpoint


def stored_chunks(call: Call) -> list[Entry]:
    """The chunks and the end of a completed call; where its texts are erased, chunks without any."""
    choices = _choices(call)
    return [
        Chunks(attempt=call.attempt, last=len(choices), texts=[_chunk(call, _said(call, one)) for one in choices]),
        stored_end(call, first=len(choices) + 1),
    ]


def stored_end(call: Call, *, first: int) -> End:
    """The end of a completed call, its finish chunks numbered from `first`."""
    return End(
        attempt=call.attempt,
        first=first,
        state=CallState.COMPLETED,
        finishes=[_chunk(call, chunk_shapes.finish(Endpoint(call.endpoint), one)) for one in _choices(call)],
        usage=orjson.dumps(usage_object(call)),
        cost_usd=orjson.dumps(money.usd(call.client_cost_nanousd)),
    )


def _choices(call: Call) -> list[dict[str, Any]]:
    if call.response is None:
        return [{"index": 0, "message": {}, "text": "", "finish_reason": call.finish_reason or "stop"}]
    found: list[dict[str, Any]] = orjson.loads(call.response)["choices"]
    return found


def _said(call: Call, choice: Mapping[str, Any]) -> dict[str, Any]:
    told = {"logprobs": choice.get("logprobs")}
    if call.endpoint == Endpoint.COMPLETION:
        return {"index": choice["index"], "text": choice["text"], **told, "finish_reason": None}
    logprobs = {} if told["logprobs"] is None else told
    return {"index": choice["index"], "delta": _delta(choice["message"]), **logprobs, "finish_reason": None}


def _delta(message: Mapping[str, Any]) -> dict[str, Any]:
    said = {name: value for name, value in message.items() if value is not None}
    if said.get("tool_calls"):
        said["tool_calls"] = [{"index": index, **one} for index, one in enumerate(said["tool_calls"])]
    return {"role": "assistant", **said}


def _chunk(call: Call, choice: dict[str, Any]) -> bytes:
    head = chunk_shapes.head(call.id, Endpoint(call.endpoint), call.created_at, call.model)
    return chunk_shapes.chunk(head, [choice])
