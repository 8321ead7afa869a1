"""The tool calls of one choice while they come: fragments in OpenAI's form, and the calls joined."""

from collections.abc import Iterable
from typing import Any
from uuid import uuid4

import orjson

Json = dict[str, Any]

WORDS = {"function": "arguments", "custom": "input"}
"""Kind of tool -> where the words of its call stand."""


class ToolCall:
    """One call: what is told once, and its words so far."""

    def __init__(self, said: Json) -> None:
        self.id = str(said.get("id") or f"call_{uuid4().hex}")
        self.kind = "custom" if isinstance(said.get("custom"), dict) else "function"
        self.name = as_text(_body(said).get("name"))
        self.words: list[str] = []

    def take(self, said: Json) -> str:
        """Keep the words of a fragment; returns them."""
        words = as_text(_body(said).get(WORDS[self.kind]))
        self.words.append(words)
        return words

    def shown(self, words: str) -> Json:
        """The call with these words."""
        return {"id": self.id, "type": self.kind, self.kind: {"name": self.name, WORDS[self.kind]: words}}


class ToolCalls:
    """All calls of a choice in order, joined by index; id, type and name are told once."""

    def __init__(self) -> None:
        self._calls: list[ToolCall] = []
        self._at: dict[int | None, int] = {}
        """The provider's index -> ours: the newest call under it."""

    def __bool__(self) -> bool:
        return bool(self._calls)

    def take(self, fragments: Iterable[Any]) -> list[Json]:
        """What is new in the provider's fragments."""
        return [taken for one in fragments if isinstance(one, dict) and (taken := self._fragment(one)) is not None]

    def stored(self) -> list[Json]:
        """The whole calls, as a message has them."""
        return [call.shown("".join(call.words)) for call in self._calls]

    def _fragment(self, said: Json) -> Json | None:
        theirs = said.get("index")
        index = self._at.get(theirs)
        if index is None or _is_another(self._calls[index], said):
            call = ToolCall(said)
            self._at[theirs] = index = len(self._calls)
            self._calls.append(call)
            return {"index": index, **call.shown(call.take(said))}
        call = self._calls[index]
        words = call.take(said)
        return {"index": index, call.kind: {WORDS[call.kind]: words}} if words else None


def _is_another(call: ToolCall, said: Json) -> bool:
    """Some servers give every call the same index, or none."""
    return bool(said.get("id")) and said["id"] != call.id and bool(_body(said).get("name"))


def _body(said: Json) -> Json:
    body = said.get("function") or said.get("custom")
    return body if isinstance(body, dict) else {}


def as_text(value: Any) -> str:
    """Arguments are a string on OpenAI's wire; some servers send the object itself."""
    if isinstance(value, str):
        return value
    return "" if value is None else orjson.dumps(value).decode()
