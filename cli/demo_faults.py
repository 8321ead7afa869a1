"""What the demo provider can be told: the steps of a script, as /_control takes them."""

from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

Fault = Literal[
    "ok", "status", "hang", "delay", "drip", "reset", "cut", "stall", "hold", "stream_error", "bad_chunk", "duplicate",
    "garbage", "empty", "no_usage", "no_finish", "no_done", "usage", "content",
]  # fmt: skip

NOW = "{now}"
"""In a scripted text: the time, as seconds since 1970, at which the chunk with it is sent."""


class Function(BaseModel):
    """A function that a model calls; arguments that are no string are written as JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    arguments: Any = {}

    def as_json(self) -> dict[str, str]:
        """As OpenAI shows it."""
        given = self.arguments
        return {"name": self.name, "arguments": given if isinstance(given, str) else orjson.dumps(given).decode()}


class Say(BaseModel):
    """What is answered, to every choice alike.

    A text, a refusal or a call stands for all that is said; the other fields leave the words to the question.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str | None = None
    times: int = Field(default=1, ge=1, description="the text so many times over")
    refusal: str | None = None
    reasoning: str | None = None
    tool_calls: list[Function] = []
    function_call: Function | None = None
    annotations: list[dict[str, Any]] = []
    finish_reason: str | None = None
    service_tier: str | None = None
    system_fingerprint: str | None = None

    @property
    def has_words(self) -> bool:
        """Whether the question and its tools have no part in the answer."""
        return self.text is not None or self.refusal is not None or bool(self.tool_calls or self.function_call)


class Shape(BaseModel):
    """How a stream is cut into chunks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    chars: int | None = Field(default=None, ge=1, description="characters in a chunk; null: a word")
    every_s: float | None = Field(default=None, ge=0, description="after each chunk; null: as /_control/delay says")
    choices: Literal["mixed", "in_turn"] = "mixed"
    tool_calls: Literal["mixed", "in_turn"] = "in_turn"
    finish: Literal["own", "joined"] = Field(
        default="own", description="finish_reason: a chunk of its own, or the last"
    )
    usage: Literal["own", "joined"] = Field(default="own", description="usage: a chunk of its own, or the last finish")


class Step(BaseModel):
    """What happens to one request; fields a fault has no use for are ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fault: Fault = "ok"
    say: Say | None = None
    stream: Shape = Shape()
    after_s: float = Field(default=0, ge=0, description="wait this long before the fault")
    status: int = Field(default=500, ge=200, le=599)
    headers: dict[str, str] = {}
    body: Any = None
    seconds: float = Field(default=0, ge=0)
    every_s: float = Field(default=0.1, ge=0)
    size_bytes: int = Field(default=50, ge=1, alias="bytes")
    chunks: int | None = Field(default=None, description="the fault's place in a stream: after so many chunks")
    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    cached_tokens: int = Field(default=0, ge=0)
    reasoning_tokens: int = Field(default=0, ge=0)
    text: str = ""

    @property
    def said(self) -> Say | None:
        """What it scripts to say; `content` is the short form of it."""
        return Say(text=self.text) if self.fault == "content" else self.say


class Script(BaseModel):
    """Steps for the requests whose model or last user message contains `match` (null: for all), one each."""

    model_config = ConfigDict(extra="forbid")

    match: str | None = None
    steps: list[Step] = Field(min_length=1)
    repeat: bool = False
    taken: int = Field(default=0, exclude=True)

    def take(self) -> Step | None:
        """The next step, while there is one."""
        if self.taken >= len(self.steps) and not self.repeat:
            return None
        self.taken += 1
        return self.steps[(self.taken - 1) % len(self.steps)]


class Pace(BaseModel):
    """How long every answer takes: before it starts, and after each stream chunk."""

    model_config = ConfigDict(extra="forbid")

    seconds: float = Field(default=0, ge=0)
    chunk_seconds: float = Field(default=0, ge=0)
