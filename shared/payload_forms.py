"""The JSON of an event as it is sent: thin or with the answer in full, and never over 20,000 bytes.

What does not fit is left out in this order, until the rest fits: the answer, `metadata` (it becomes `{}`), the ends of
long texts. `data.truncated` is then true, and `data.result_url` leads to the whole.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

MAX_BODY_BYTES = 20_000
TEXT_BYTES = (2_000, 500, 200)
"""How much is left of each text at last. Ids and `result_url` are shorter than the last of them."""
LARGEST_READ = 1_000_000
"""Characters of a stored answer; of a longer one the first choice would not fit, and reading it would take long."""


def written(event: Mapping[str, Any]) -> str:
    """The body of an event object, cut to what is sent."""
    body = orjson.dumps(event)
    if len(body) > MAX_BODY_BYTES:
        for data in _shorter(event["data"]):
            body = orjson.dumps({**event, "data": data})
            if len(body) <= MAX_BODY_BYTES:
                break
    return body.decode()


def full(body: str, response: str | None) -> str:
    """The body of a `call.completed` with `data.response`, as reading the call shows it.

    response: the stored answer of the provider; None when it is erased or was not to be stored. Vectors are never in
    it: they are read at `result_url`.
    """
    event = orjson.loads(body)
    stored = {} if response is None or len(response) > LARGEST_READ else orjson.loads(response)
    event["data"]["response"] = first_choice(stored["choices"]) if "choices" in stored else None
    if response is not None and event["data"]["response"] is None:
        event["data"]["truncated"] = True
    return written(event)


def first_choice(choices: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`response` for short: the first choice's message, or text as a message, with its finish_reason."""
    first = choices[0]
    said = first["message"] if "message" in first else {"role": "assistant", "content": first["text"]}
    return {**said, "finish_reason": first["finish_reason"]}


def _shorter(data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The data with ever less in it."""
    less = {name: value for name, value in data.items() if name != "response"} | {"truncated": True}
    yield less
    if less.get("metadata"):
        less["metadata"] = {}
        yield less
    for most in TEXT_BYTES:
        yield {name: _cut(value, most) for name, value in less.items()}


def _cut(value: Any, most: int) -> Any:
    """The value with no text of more than so many bytes of UTF-8 in it."""
    if isinstance(value, str):
        encoded = value.encode()
        return value if len(encoded) <= most else encoded[:most].decode(errors="ignore") + "…"
    return {name: _cut(item, most) for name, item in value.items()} if isinstance(value, Mapping) else value
