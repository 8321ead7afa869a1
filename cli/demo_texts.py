"""What the demo provider says and how it reads a request: texts, tokens, fields; deterministic, without any I/O."""

import itertools
import re
import uuid
from typing import Any, TypeGuard

Json = dict[str, Any]

CHARS_PER_TOKEN = 4
MAX_REPLY_WORDS = 5_000
CAPITALS = {"france": "Paris", "germany": "Berlin", "italy": "Rome", "japan": "Tokyo", "spain": "Madrid"}
STORY = "the parcel leaves the depot at dawn and reaches the harbour by noon where every crate is counted once"
WORD = re.compile(r"\s*\S+|\s+$")

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


def spelled(tokens: list[int]) -> str:
    """A token array as text, four characters each: it counts its own length, not that of its spelling."""
    return "".join(f"{token:>{CHARS_PER_TOKEN}}"[-CHARS_PER_TOKEN:] for token in tokens)


def is_token_array(given: object) -> TypeGuard[list[int]]:
    """Whether it is a list of token numbers, with one at least."""
    return isinstance(given, list) and bool(given) and all(type(one) is int and one >= 0 for one in given)


def texts_of(given: object, name: str, most: int) -> list[str]:
    """The texts of a string, a list of strings, a token array or a list of those. Raises BadRequest."""
    several = given if isinstance(given, list) and not is_token_array(given) else [given]
    texts = []
    for one in several if len(several) <= most else ():
        if isinstance(one, str):
            texts.append(one)
        elif is_token_array(one):
            texts.append(spelled(one))
    if not texts or len(texts) != len(several):
        raise BadRequest(f"'{name}' must be a string or an array of 1 to {most} strings or token arrays", name)
    return texts


def text_of(content: object) -> str:
    """The text of a message's content, which may be a string or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(piece.get("text", "")) for piece in content if isinstance(piece, dict))
    return ""


def last_message(body: Json) -> str:
    """The last user message of a chat request, the last text of any other; "" when there is none."""
    messages = body.get("messages")
    if isinstance(messages, list):
        for message in reversed(messages):
            if isinstance(message, dict) and message.get("role") == "user":
                return text_of(message.get("content"))
    given = body.get("prompt", body.get("input"))
    if isinstance(given, list) and given and not is_token_array(given):
        given = given[-1]
    if isinstance(given, list):
        return spelled(given) if is_token_array(given) else ""
    return given if isinstance(given, str) else ""


def model_of(body: Json) -> str:
    """The model of a request. Raises BadRequest."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest("you must provide a model parameter", "model")
    return model


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


def shorten(text: str, stop: object, limit: int | None) -> tuple[str, str]:
    """The text up to a stop mark and within so many tokens, and its finish_reason."""
    for mark in [stop] if isinstance(stop, str) else stop if isinstance(stop, list) else []:
        if isinstance(mark, str) and mark:
            text = text.partition(mark)[0]
    if limit is not None and count_tokens(text) > limit:
        return text[: limit * CHARS_PER_TOKEN], "length"
    return text, "stop"


def plain_reply(question: str, choice: int = 0) -> str:
    """A capital, a text of as many words as asked for, a greeting, or the question said back.

    choice: of several choices the second ends with " (2)" and so on, so that none can pass for another.
    """
    return _first_reply(question) + (f" ({choice + 1})" if choice else "")


def _first_reply(question: str) -> str:
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
