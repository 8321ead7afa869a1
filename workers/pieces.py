"""What a provider said of one choice, in OpenAI's words only: the pieces as they come, and all of them joined.

Keys that OpenAI has not, and nulls, stay out. A whole message counts as one large piece of itself, so that a streamed
answer and any other are stored alike.
"""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from workers.tool_calls import Json, ToolCalls, as_text

FINISHES = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
OTHER_FINISHES = {
    "max_tokens": "length", "max_output_tokens": "length", "model_length": "length", "tool_use": "tool_calls",
    "safety": "content_filter", "recitation": "content_filter", "refusal": "content_filter",
    "blocklist": "content_filter", "prohibited_content": "content_filter", "spii": "content_filter",
    "content_filtered": "content_filter",
}  # fmt: skip
"""Servers with a dialect of their own; of any other word is known only that the model stopped."""
ANNOTATION_KEYS = ("type", "url_citation", "file_citation", "file_path")
AUDIO_KEYS = ("id", "data", "transcript", "expires_at")
LOGPROBS = ("content", "refusal")


def finish_word(value: Any) -> str | None:
    """One of OpenAI's reasons; None where the provider gave none."""
    if not isinstance(value, str) or not value:
        return None
    return value if value in FINISHES else OTHER_FINISHES.get(value.lower(), "stop")


class Choice:
    """One choice of a chat answer while it comes. finish_reason: None until the provider gave it."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.finish_reason: str | None = None
        self._begun = False
        self._texts: dict[str, list[str]] = {}
        self._calls = ToolCalls()
        self._function: list[Json] = []
        self._annotations: list[Json] = []
        self._audio: list[Json] = []
        self._logprobs: dict[str, list[Any]] = {}

    def take(self, said: Json, logprobs: Any = None) -> Json | None:
        """Keep what the provider said; the piece to pass on, None when it says nothing. said: a delta or a message."""
        delta: Json = {}
        for name, value in said.items():
            if value and (taker := self._takers.get(name)) is not None:
                taker(self, delta, value)
        piece = {"index": self.index, "delta": delta}
        if isinstance(logprobs, dict) and any(logprobs.get(name) for name in LOGPROBS):
            piece["logprobs"] = self._keep_logprobs(logprobs)
        elif not delta:
            return None
        return self._opened(piece)

    def opening(self) -> Json | None:
        """A first piece without words, for a choice that ends before it said any."""
        return None if self._begun else self._opened({"index": self.index, "delta": {"content": ""}})

    def stored(self) -> Json:
        """The whole choice as it is stored."""
        message: Json = {"role": "assistant", "content": None}
        message |= {name: "".join(parts) for name, parts in self._texts.items()}
        if self._calls:
            message["tool_calls"] = self._calls.stored()
        if self._function:
            message["function_call"] = _joined(self._function, appended=("arguments",))
        if self._annotations:
            message["annotations"] = self._annotations
        if self._audio:
            message["audio"] = _joined(self._audio, appended=("data", "transcript"))
        if not message.keys() & {"tool_calls", "refusal", "function_call", "audio"}:
            message["content"] = message["content"] or ""
        stored: Json = {"index": self.index, "message": message, "finish_reason": self.finish_reason}
        if self._logprobs:
            stored["logprobs"] = {name: self._logprobs.get(name) for name in LOGPROBS}
        return stored

    def _opened(self, piece: Json) -> Json:
        if not self._begun:
            self._begun = True
            piece["delta"] = {"role": "assistant", **piece["delta"]}
        return piece

    def _keep_logprobs(self, logprobs: Json) -> Json:
        for name in LOGPROBS:
            if isinstance(logprobs.get(name), list):
                self._logprobs.setdefault(name, []).extend(logprobs[name])
        return {name: logprobs.get(name) for name in LOGPROBS}

    def _keep_text(self, name: str, delta: Json, value: Any) -> None:
        text = value if isinstance(value, str) else _plain_text(value)
        if text:
            delta[name] = text
            self._texts.setdefault(name, []).append(text)

    def _take_content(self, delta: Json, value: Any) -> None:
        self._keep_text("content", delta, value)

    def _take_refusal(self, delta: Json, value: Any) -> None:
        self._keep_text("refusal", delta, value)

    def _take_reasoning(self, delta: Json, value: Any) -> None:
        """Two spellings of one thing: a server that uses both says the same twice."""
        if "reasoning_content" not in delta:
            self._keep_text("reasoning_content", delta, value)

    def _take_calls(self, delta: Json, value: Any) -> None:
        fragments = self._calls.take(value if isinstance(value, list) else [])
        if fragments:
            delta["tool_calls"] = fragments

    def _take_function(self, delta: Json, value: Any) -> None:
        if isinstance(value, dict):
            fragment = {name: as_text(value[name]) for name in ("name", "arguments") if value.get(name) is not None}
            delta["function_call"] = fragment
            self._function.append(fragment)

    def _take_annotations(self, delta: Json, value: Any) -> None:
        found = [_only(one, ANNOTATION_KEYS) for one in value if isinstance(one, dict)]
        delta["annotations"] = found
        self._annotations.extend(found)

    def _take_audio(self, delta: Json, value: Any) -> None:
        if isinstance(value, dict):
            delta["audio"] = _only(value, AUDIO_KEYS)
            self._audio.append(delta["audio"])

    _takers: ClassVar[dict[str, Callable[["Choice", Json, Any], None]]] = {
        "content": _take_content,
        "refusal": _take_refusal,
        "reasoning_content": _take_reasoning,
        "reasoning": _take_reasoning,
        "tool_calls": _take_calls,
        "function_call": _take_function,
        "annotations": _take_annotations,
        "audio": _take_audio,
    }


class TextChoice:
    """One choice of a text completion while it comes."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.finish_reason: str | None = None
        self._texts: list[str] = []
        self._logprobs: Json | None = None

    def take(self, said: Json) -> Json | None:
        """Keep what the provider said; the piece to pass on, None when it says nothing. said: a choice of a chunk."""
        text, logprobs = said.get("text") or "", said.get("logprobs")
        piece: Json = {"index": self.index, "text": text}
        self._texts.append(text)
        if isinstance(logprobs, dict):
            piece["logprobs"] = logprobs
            self._logprobs = _joined_lists(self._logprobs, logprobs)
        return piece if text or "logprobs" in piece else None

    def stored(self) -> Json:
        """The whole choice as it is stored."""
        return {
            "index": self.index,
            "text": "".join(self._texts),
            "finish_reason": self.finish_reason,
            "logprobs": self._logprobs,
        }


def _joined_lists(whole: Json | None, more: Json) -> Json:
    """Logprobs are lists side by side, one entry per token."""
    if whole is None:
        return {name: list(value) if isinstance(value, list) else value for name, value in more.items()}
    for name, value in more.items():
        if isinstance(value, list) and isinstance(whole.get(name), list):
            whole[name].extend(value)
        elif value is not None:
            whole[name] = value
    return whole


def _plain_text(value: Any) -> str:
    """The words of a list of content parts."""
    parts = value if isinstance(value, list) else []
    return "".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))


def _joined(fragments: Iterable[Json], *, appended: tuple[str, ...]) -> Json:
    whole: Json = {}
    for fragment in fragments:
        for name, value in fragment.items():
            whole[name] = whole.get(name, "") + value if name in appended and isinstance(value, str) else value
    return whole


def _only(holder: Json, names: Iterable[str]) -> Json:
    return {name: without_nulls(holder[name]) for name in names if holder.get(name) is not None}


def without_nulls(value: Any) -> Any:
    """The same without keys that hold null, at every depth."""
    if isinstance(value, dict):
        return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value
