"""From what a provider sent to our answer: its chunks joined, its whole body read, the tokens it reported counted.

A body or chunk is the JSON object of OpenAI's wire, or what the library made of another wire in the same form.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import orjson

from shared import estimate
from shared.attempt_reports import Usage
from shared.calls import Claimed
from shared.states import Endpoint
from workers.classify import request_id
from workers.pieces import Choice, TextChoice, finish_word
from workers.provider import Answer
from workers.tool_calls import Json

MAX_ID = 200
MAX_TOKENS = 2**30 - 1
"""Prompt and completion together still fit the column; nobody has such a context."""
MAX_CHOICES = 4096
"""More than any request may ask for: a provider's index above it is garbage."""
TOLD = ("service_tier", "system_fingerprint")


class Unreadable(Exception):
    """The provider said yes, but there is no answer in what it sent."""


class Tokens:
    """The largest counts that a provider reported; some of them report while they speak, some only a part."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}

    def add(self, usage: Any) -> None:
        """Count a usage block; anything in it that is no number counts as not reported."""
        if not isinstance(usage, Mapping):
            return
        for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
            self._see(name, usage.get(name))
        for name, details in (
            ("cached_tokens", "prompt_tokens_details"),
            ("reasoning_tokens", "completion_tokens_details"),
        ):
            if isinstance(usage.get(details), Mapping):
                self._see(name, usage[details].get(name))

    def usage(self, call: Claimed, said_bytes: int) -> Usage:
        """As the provider reported it; 0 is a report. What is missing follows from its total, else it is estimated.

        An embedding has no answer's tokens, whether or not its provider says so.
        """
        prompt, completion, total = map(self._told.get, ("prompt_tokens", "completion_tokens", "total_tokens"))
        if completion is None and call.endpoint == Endpoint.EMBEDDING:
            completion = 0
        if completion is None and prompt is not None and total is not None:
            completion = max(0, total - prompt)
        said = estimate.tokens(said_bytes) if completion is None else completion
        if prompt is None and total is not None:
            prompt = max(0, total - said)
        return Usage(
            prompt_tokens=call.estimated_prompt_tokens if prompt is None else prompt,
            completion_tokens=said,
            cached_tokens=self._told.get("cached_tokens", 0),
            reasoning_tokens=self._told.get("reasoning_tokens", 0),
            source="estimated" if prompt is None or completion is None else "provider",
        )

    def _see(self, name: str, value: Any) -> None:
        if isinstance(value, int | float) and value == value:  # noqa: PLR0124 - not a number
            self._told[name] = max(self._told.get(name, 0), int(max(0, min(value, MAX_TOKENS))))


class Assembly:
    """One answer while it comes. `expected`: how many choices were asked for."""

    def __init__(self, expected: int) -> None:
        self.tokens = Tokens()
        self._expected = expected
        self._told: dict[str, str] = {}
        self._id: str | None = None

    def take(self, chunk: Json) -> list[Json]:
        """Keep a chunk; the pieces to pass on."""
        if chunk.get("usage"):
            self.tokens.add(chunk["usage"])
        for name in TOLD:
            if isinstance(chunk.get(name), str):
                self._told[name] = chunk[name]
        self._id = self._id or chunk.get("id")
        return [piece for choice in chunk.get("choices") or () for piece in self._pieces(choice, _index(choice))]

    def is_whole(self, *, done: bool) -> bool:
        """Whether every choice has ended: those that began where the provider said it is done, else all asked for."""
        choices = self._choices()
        ended = bool(choices) and all(choice.finish_reason is not None for choice in choices)
        return ended and (done or len(choices) >= self._expected)

    def answer(self, call: Claimed, headers: Mapping[str, str]) -> Answer:
        """The whole. Raises Unreadable when there is none."""
        choices = self._stored()
        if not choices:
            raise Unreadable
        return Answer(
            response=orjson.dumps({"choices": choices, **self._told}).decode(),
            finish_reason=choices[0]["finish_reason"],
            usage=self.tokens.usage(call, sum(map(_said_bytes, choices))),
            provider_request_id=request_id(httpx.Headers(dict(headers)), ()) or _word(self._id),
        )

    def _stored(self) -> list[Json]:
        return [choice.stored() for choice in sorted(self._choices(), key=lambda choice: choice.index)]

    def _choices(self) -> Sequence[Choice | TextChoice]:
        raise NotImplementedError

    def _pieces(self, said: Json, index: int) -> list[Json]:
        raise NotImplementedError


class ChatAssembly(Assembly):
    """A chat answer, from chunks or from a body: a message is taken as one large delta."""

    def __init__(self, expected: int) -> None:
        super().__init__(expected)
        self._begun: dict[int, Choice] = {}

    def _choices(self) -> Sequence[Choice]:
        return list(self._begun.values())

    def _pieces(self, said: Json, index: int) -> list[Json]:
        choice = self._begun.get(index)
        if choice is None:
            choice = self._begun[index] = Choice(index)
        delta = said.get("delta")
        pieces = [choice.take(_message(said) if delta is None else delta, said.get("logprobs"))]
        if said.get("finish_reason"):
            choice.finish_reason = finish_word(said["finish_reason"])
            if self._expected > 1:
                pieces.append(choice.opening())
        return [piece for piece in pieces if piece is not None]


class TextAssembly(Assembly):
    """A text completion, from chunks or from a body."""

    def __init__(self, expected: int) -> None:
        super().__init__(expected)
        self._begun: dict[int, TextChoice] = {}

    def _choices(self) -> Sequence[TextChoice]:
        return list(self._begun.values())

    def _pieces(self, said: Json, index: int) -> list[Json]:
        choice = self._begun.get(index)
        if choice is None:
            choice = self._begun[index] = TextChoice(index)
        piece = choice.take(said)
        if said.get("finish_reason"):
            choice.finish_reason = finish_word(said["finish_reason"])
        return [] if piece is None else [piece]


def _word(value: Any) -> str | None:
    """A provider's short word as it can be stored."""
    return str(value).replace("\x00", "")[:MAX_ID] if value else None


def _index(choice: Json) -> int:
    index = choice.get("index") or 0
    if not isinstance(index, int) or not 0 <= index < MAX_CHOICES:
        raise Unreadable
    return index


def _message(said: Json) -> Json:
    """The message of a whole choice; its tool calls have no index but their place."""
    message: Json = said.get("message") or {}
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return message
    return message | {"tool_calls": [{**call, "index": at} for at, call in enumerate(calls)]}


def _said_bytes(choice: Json) -> int:
    if "text" in choice:
        return len(choice["text"].encode())
    said = {name: value for name, value in choice["message"].items() if name not in {"role", "annotations"} and value}
    return sum(map(estimate.said_bytes, said.values()))
