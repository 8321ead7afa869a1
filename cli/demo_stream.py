"""How the demo provider's streams look: the chunks of a Reply in OpenAI's shapes, cut and ordered as scripted."""

from collections.abc import Iterator, Sequence
from itertools import chain, zip_longest

import orjson

from cli.demo_answers import Choice, Reply
from cli.demo_bodies import STREAM_TYPE, Answer, frame
from cli.demo_faults import Shape
from cli.demo_logprobs import chat_logprobs, text_logprobs
from cli.demo_texts import WORD, Json

DONE = b"data: [DONE]\n\n"
BROKEN = b'data: {"id":"chatcmpl-broken","choices":[{"index":0,"delta":{"cont\n\n'
PIECES_OF_ARGUMENTS = 2


def stream_answer(reply: Reply, shape: Shape, *, include_usage: bool) -> Answer:
    """The chunks in order; a choice without finish_reason just ends, as when a provider dies politely."""
    pieces = [event(chunk) for chunk in _chunks(reply, shape, include_usage)]
    if all(choice.finish_reason is not None for choice in reply.choices):
        pieces.append(DONE)
    return Answer(200, pieces, STREAM_TYPE)


def event(content: object) -> bytes:
    """One server-sent event."""
    return b"data: " + orjson.dumps(content) + b"\n\n"


def _chunks(reply: Reply, shape: Shape, include_usage: bool) -> Iterator[Json]:
    common = frame(reply)
    if reply.kind == "chat.completion":
        common["object"] = "chat.completion.chunk"
    nothing: Json = {"usage": None} if include_usage else {}
    usage = {"usage": reply.usage} if include_usage and reply.usage is not None else {}
    *others, last = _ordered(reply, shape)
    yield from (common | {"choices": [one]} | nothing for one in others)
    yield common | {"choices": [last]} | (usage if usage and shape.usage == "joined" else nothing)
    finished = all(choice.finish_reason is not None for choice in reply.choices)
    if usage and shape.usage == "own" and finished:
        yield common | {"choices": []} | usage


def _ordered(reply: Reply, shape: Shape) -> list[Json]:
    """The choices' entries one beside the other, as OpenAI sends them, or one choice after the other."""
    said = [list(_entries(reply, choice, index, shape)) for index, choice in enumerate(reply.choices)]
    return _mixed(said) if shape.choices == "mixed" else list(chain.from_iterable(said))


def _mixed(lists: Sequence[Sequence[Json]]) -> list[Json]:
    return [one for row in zip_longest(*lists) for one in row if one is not None]


def _entries(reply: Reply, choice: Choice, index: int, shape: Shape) -> Iterator[Json]:
    """What the chunks say of one choice, its finish included."""
    chat = reply.kind == "chat.completion"
    pieces = list(_deltas(reply, choice, shape) if chat else _texts(reply, choice, shape))
    if choice.finish_reason is not None and shape.finish == "own":
        pieces.append({"delta": {}, "logprobs": None} if chat else {"text": "", "logprobs": None})
    for number, piece in enumerate(pieces, 1):
        finish_reason = choice.finish_reason if number == len(pieces) else None
        yield {"index": index} | piece | {"finish_reason": finish_reason}


def _texts(reply: Reply, choice: Choice, shape: Shape) -> Iterator[Json]:
    offset = 0
    for piece in [*_cut(choice.prompt, shape), *_cut(choice.text, shape)] or [""]:
        yield {"text": piece, "logprobs": text_logprobs("", piece, reply.logprobs, offset)}
        offset += len(piece)


def _deltas(reply: Reply, choice: Choice, shape: Shape) -> Iterator[Json]:
    first = {"role": "assistant", "content": None if choice.silent or choice.reasoning else "", "refusal": None}
    yield _delta(first)
    for piece in _cut(choice.reasoning or "", shape):
        yield _delta({"reasoning_content": piece})
    for piece in _cut(choice.refusal or "", shape):
        yield _delta({"refusal": piece}, chat_logprobs(piece, reply.logprobs, refused=True))
    for piece in _cut("" if choice.silent else choice.text, shape):
        yield _delta({"content": piece}, chat_logprobs(piece, reply.logprobs))
    if choice.annotations:
        yield _delta({"annotations": choice.annotations})
    calls = [[{"index": i} | one for one in _called(call, shape)] for i, call in enumerate(choice.tool_calls)]
    for fragment in _mixed(calls) if shape.tool_calls == "mixed" else chain.from_iterable(calls):
        yield _delta({"tool_calls": [fragment]})
    for fragment in _fragments(choice.function_call, shape):
        yield _delta({"function_call": fragment})
    if choice.audio is not None:
        for names in (("id", "transcript"), ("data",), ("expires_at",)):
            yield _delta({"audio": {name: choice.audio[name] for name in names}})


def _delta(delta: Json, logprobs: Json | None = None) -> Json:
    return {"delta": delta, "logprobs": logprobs}


def _called(call: Json, shape: Shape) -> Iterator[Json]:
    """The fragments of one tool call: id, type and name in the first only."""
    opened, *more = _fragments(call["function"], shape)
    yield {"id": call["id"], "type": "function", "function": opened}
    yield from ({"function": fragment} for fragment in more)


def _fragments(function: Json | None, shape: Shape) -> Iterator[Json]:
    if function is None:
        return
    yield {"name": function["name"], "arguments": ""}
    text = function["arguments"]
    size = shape.chars or max(1, -(-len(text) // PIECES_OF_ARGUMENTS))
    yield from ({"arguments": text[at : at + size]} for at in range(0, len(text), size))


def _cut(text: str, shape: Shape) -> list[str]:
    if shape.chars is None:
        return WORD.findall(text)
    return [text[at : at + shape.chars] for at in range(0, len(text), shape.chars)]
