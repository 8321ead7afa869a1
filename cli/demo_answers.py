"""What the demo provider says: deterministic chat completions in OpenAI's shapes, without any I/O."""

import itertools
import re
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import orjson

Json = dict[str, Any]

CHARS_PER_TOKEN = 4
TOKENS_PER_MESSAGE = 4
REPLY_PRIMING_TOKENS = 3
MAX_REPLY_WORDS = 5_000
MODELS = (
    "gpt-4",
    "gpt-4o",
    "gpt-4o-mini",
    "text-embedding-3-large",
    "text-embedding-3-small",
    "text-embedding-ada-002",
)
CAPITALS = {"france": "Paris", "germany": "Berlin", "italy": "Rome", "japan": "Tokyo", "spain": "Madrid"}
STORY = "the parcel leaves the depot at dawn and reaches the harbour by noon where every crate is counted once"

_boot = uuid.uuid4().hex[:12]
_serial = itertools.count(1)


class BadRequest(Exception):
    """The request is not one OpenAI would take; `param` names the field."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message, self.param = message, param


def next_id(prefix: str) -> str:
    """An id no other answer of any run of this server has."""
    return f"{prefix}{_boot}{next(_serial):08x}"


def count_tokens(text: str) -> int:
    """One token for each four characters begun."""
    return -(-len(text) // CHARS_PER_TOKEN)


def text_of(content: object) -> str:
    """The text of a message's content, which may be a string or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(piece.get("text", "")) for piece in content if isinstance(piece, dict))
    return ""


def last_message(body: Json) -> str:
    """The last user message of a chat request or the last text of an embeddings request; "" when there is none."""
    messages = body.get("messages")
    if isinstance(messages, list):
        for message in reversed(messages):
            if isinstance(message, dict) and message.get("role") == "user":
                return text_of(message.get("content"))
    given = body.get("input")
    if isinstance(given, list) and given:
        given = given[-1]
    return given if isinstance(given, str) else ""


@dataclass(slots=True)
class Completion:
    """One answer before it is put on the wire; `usage` None and `finish_reason` None leave those out."""

    model: str
    text: str
    finish_reason: str | None
    usage: Json | None
    tool_calls: list[Json] = field(default_factory=list)
    n: int = 1
    logprobs: bool = False
    id: str = field(default_factory=lambda: next_id("chatcmpl-"))
    created: int = field(default_factory=lambda: int(time.time()))


def usage_block(prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0, reasoning_tokens: int = 0) -> Json:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": reasoning_tokens, "audio_tokens": 0},
    }


def complete(body: Json, question: str, scripted_text: str | None = None) -> Completion:
    """Answer a chat request; the same request gets the same text and usage. Raises BadRequest."""
    messages = _messages(body)
    n = whole(body, "n", 1, 128) or 1
    limit = whole(body, "max_completion_tokens", 1, None) or whole(body, "max_tokens", 1, None)
    calls = [] if scripted_text is not None else _tool_calls(body, question)
    text = "" if calls else (_reply(body, messages, question) if scripted_text is None else scripted_text)
    text, finish_reason = _shorten(text, body.get("stop"), limit)
    said_tokens = count_tokens(text) + sum(count_tokens(call["function"]["arguments"]) for call in calls)
    return Completion(
        model=body["model"],
        text=text,
        finish_reason="tool_calls" if calls else finish_reason,
        usage=usage_block(_prompt_tokens(body, messages), said_tokens * n),
        tool_calls=calls,
        n=n,
        logprobs=bool(body.get("logprobs")),
    )


def _messages(body: Json) -> list[Json]:
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise BadRequest("you must provide a model parameter", "model")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise BadRequest("'messages' must be a non-empty array of objects", "messages")
    return messages


def whole(body: Json, name: str, low: int, high: int | None) -> int | None:
    """An optional integer field of the request. Raises BadRequest outside of low..high."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < low or (high is not None and value > high):
        raise BadRequest(f"'{name}' must be an integer of at least {low}" + (f", at most {high}" if high else ""), name)
    return value


def part(body: Json, name: str) -> Json:
    """An optional object of the request, empty when absent. Raises BadRequest when it is something else."""
    value = body.get(name) or {}
    if not isinstance(value, dict):
        raise BadRequest(f"'{name}' must be an object", name)
    return value


def _prompt_tokens(body: Json, messages: list[Json]) -> int:
    tokens = REPLY_PRIMING_TOKENS
    for message in messages:
        tokens += TOKENS_PER_MESSAGE + count_tokens(text_of(message.get("content")))
    if tools := body.get("tools"):
        tokens += -(-len(orjson.dumps(tools)) // CHARS_PER_TOKEN)
    return tokens


def _shorten(text: str, stop: object, limit: int | None) -> tuple[str, str]:
    for mark in [stop] if isinstance(stop, str) else stop if isinstance(stop, list) else []:
        if isinstance(mark, str) and mark:
            text = text.partition(mark)[0]
    if limit is not None and count_tokens(text) > limit:
        return text[: limit * CHARS_PER_TOKEN], "length"
    return text, "stop"


def _reply(body: Json, messages: list[Json], question: str) -> str:
    wanted = part(body, "response_format")
    if wanted.get("type") == "json_schema":
        schema = part(part(wanted, "json_schema"), "schema")
        return orjson.dumps(sample(schema, schema, plain_reply(question))).decode()
    if wanted.get("type") == "json_object":
        return orjson.dumps({"answer": plain_reply(question)}).decode()
    if messages[-1].get("role") == "tool":
        return f"The tool answered: {text_of(messages[-1].get('content'))[:200]}"
    return plain_reply(question)


def plain_reply(question: str) -> str:
    """A capital, a text of as many words as asked for, a greeting, or the question said back."""
    asked = question[:2000].lower()
    if "capital of " in asked:
        for country, city in CAPITALS.items():
            if f"capital of {country}" in asked:
                return city
    if (wish := re.search(r"\b(\d{1,6}) words\b", asked)) is not None:
        return " ".join(itertools.islice(itertools.cycle(STORY.split()), min(int(wish[1]), MAX_REPLY_WORDS)))
    if asked.startswith(("hello", "hi ", "hi!", "hey")) or asked in ("hi", ""):
        return "Hello! How can I help you today?"
    return f"You said: {' '.join(question[:200].split())}"


def _tool_calls(body: Json, question: str) -> list[Json]:
    """The calls a forced tool_choice asks for: the named function, else the first, else (parallel) each of them."""
    choice, tools = body.get("tool_choice"), body.get("tools")
    if not isinstance(tools, list) or not tools or choice in (None, "auto", "none"):
        return []
    offered = [tool.get("function") for tool in tools if isinstance(tool, dict)]
    functions = [function for function in offered if isinstance(function, dict)]
    if isinstance(choice, dict):
        name = part(choice, "function").get("name")
        functions = [one for one in functions if one.get("name") == name]
        if not functions:
            raise BadRequest(f"Tool choice '{name}' not found in 'tools' parameter.", "tool_choice")
    elif not body.get("parallel_tool_calls"):
        functions = functions[:1]
    return [_tool_call(one, question) for one in functions]


def _tool_call(function: Json, question: str) -> Json:
    schema = part(function, "parameters") or {"type": "object"}
    arguments = orjson.dumps(sample(schema, schema, plain_reply(question))).decode()
    return {
        "id": next_id("call_"),
        "type": "function",
        "function": {"name": function.get("name", ""), "arguments": arguments},
    }


def sample(schema: Json, root: Json, text: str, depth: int = 0) -> object:
    """The smallest plain value a JSON schema takes; strings hold `text`."""
    if depth > 12:
        return None
    if isinstance(ref := schema.get("$ref"), str):
        return sample(root.get("$defs", {}).get(ref.rsplit("/", 1)[-1], {}), root, text, depth + 1)
    for either in ("anyOf", "oneOf", "allOf"):
        if schema.get(either):
            return sample(schema[either][0], root, text, depth + 1)
    if "const" in schema or "enum" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {name: sample(inner, root, text, depth + 1) for name, inner in schema.get("properties", {}).items()}
    if kind == "array":
        return [sample(schema.get("items", {}), root, text, depth + 1)]
    least = schema.get("minimum", 1)
    return {"string": text, "integer": least, "number": float(least), "boolean": True}.get(kind)
