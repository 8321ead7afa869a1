"""An answer of the demo provider before it is put on the wire: choices, usage, and what stands beside them."""

import time
from dataclasses import dataclass, field
from typing import Literal

from cli.demo_texts import Json, count_tokens

MODELS = (
    "gpt-3.5-turbo-instruct",
    "gpt-4",
    "gpt-4o",
    "gpt-4o-mini",
    "text-embedding-3-large",
    "text-embedding-3-small",
    "text-embedding-ada-002",
)

Kind = Literal["chat.completion", "text_completion"]


@dataclass(slots=True)
class Choice:
    """What one choice says; `finish_reason` None: it just stops.

    prompt: what a text completion was asked to say first (`echo`), no part of what it is charged for.
    """

    text: str = ""
    finish_reason: str | None = "stop"
    prompt: str = ""
    refusal: str | None = None
    reasoning: str | None = None
    tool_calls: list[Json] = field(default_factory=list)
    function_call: Json | None = None
    annotations: list[Json] = field(default_factory=list)
    audio: Json | None = None

    @property
    def silent(self) -> bool:
        """Whether its content is null: it calls, refuses or speaks aloud instead."""
        return bool(self.tool_calls or self.function_call or self.refusal is not None or self.audio)

    @property
    def tokens(self) -> int:
        """What it counts as, reasoning included."""
        called = [call["function"] for call in self.tool_calls] + ([self.function_call] if self.function_call else [])
        texts = [self.text, self.refusal or "", self.reasoning or "", *(one["arguments"] for one in called)]
        return sum(map(count_tokens, texts))


@dataclass(slots=True, kw_only=True)
class Reply:
    """One answer; `usage` None leaves it out. logprobs: how many alternatives beside each token, None: none at all."""

    id: str
    kind: Kind
    model: str
    choices: list[Choice]
    usage: Json | None
    logprobs: int | None = None
    service_tier: str | None = None
    system_fingerprint: str = "fp_demo"
    created: int = field(default_factory=lambda: int(time.time()))


def usage_block(prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0, reasoning_tokens: int = 0) -> Json:
    """OpenAI's usage of a chat or text completion."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def fingerprint(body: Json) -> str:
    """The backend's name, which a seed shows in: `fp_demo`, `fp_demo_7`."""
    return "fp_demo" if body.get("seed") is None else f"fp_demo_{body['seed']}"
