"""The answer of a completed call as the job API shows it: OpenAI's fields of its endpoint, and `response` for short."""

from typing import Any

import orjson

from shared import payload_forms
from shared.calls import Call
from shared.chunk_shapes import PREFIX
from shared.states import CallState, Endpoint
from shared.wire.embeddings import numbers

OBJECT = {Endpoint.CHAT: "chat.completion", Endpoint.COMPLETION: "text_completion", Endpoint.EMBEDDING: "list"}


def answer_of(call: Call) -> dict[str, Any]:
    """`id` and `created` of a completed call, and what it was answered unless that is erased or was not asked for.

    chat, completion  `choices`, and `response`: the first choice's message with its finish_reason
    embedding         `data`: the vectors as the provider wrote them
    """
    if call.state != CallState.COMPLETED:
        return {}
    endpoint = Endpoint(call.endpoint)
    id_ = f"{PREFIX[endpoint]}-{call.id.hex}" if endpoint in PREFIX else None
    answer: dict[str, Any] = {"id": id_, "created": int(call.created_at.timestamp())}
    if call.response is None:
        return answer
    if endpoint == Endpoint.EMBEDDING:
        return {**answer, "data": orjson.Fragment(f"[{numbers(call.response)}]")}
    choices = orjson.loads(call.response)["choices"]
    return {**answer, "response": payload_forms.first_choice(choices), "choices": choices}
