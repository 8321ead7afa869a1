"""Text completions of models that only chat: the prompt is a user's message, the answer's content is the text."""

from collections.abc import Mapping
from typing import Any

from shared import estimate
from workers.answers import ChatAssembly
from workers.tool_calls import Json

MISSING = ("echo", "suffix")
ONE_PROMPT = "This model chats only: it takes one prompt per request."
NO_TOKENS = "This model chats only: it takes a prompt of text, not of tokens."
NO_BEST_OF = "This model chats only: 'best_of' above 'n' is not supported."


class Unsupported(Exception):
    """The request asks for what a chat model cannot do. The text is for the client."""


def as_chat(request: Mapping[str, Any]) -> Json:
    """The chat that answers this completion. Raises Unsupported: the model would answer something else."""
    prompt = request["prompt"]
    if len(estimate.items(prompt)) != 1:
        raise Unsupported(ONE_PROMPT)
    text = prompt if isinstance(prompt, str) else prompt[0]
    if not isinstance(text, str):
        raise Unsupported(NO_TOKENS)
    for name in MISSING:
        if request.get(name):
            raise Unsupported(f"This model chats only: '{name}' is not supported.")
    if (request.get("best_of") or 1) > (request.get("n") or 1):
        raise Unsupported(NO_BEST_OF)
    chat = {name: value for name, value in request.items() if name not in {"prompt", "best_of", "logprobs", *MISSING}}
    if request.get("logprobs") is not None:
        chat |= {"logprobs": True, "top_logprobs": request["logprobs"]}
    return chat | {"messages": [{"role": "user", "content": text}]}


class ConvertedAssembly(ChatAssembly):
    """A chat answer that is told and stored as a text completion. What is no content is left out."""

    def __init__(self, expected: int, prompt: str) -> None:
        super().__init__(expected)
        self._starts_at = len(prompt)
        self._offsets: dict[int, int] = {}

    def _pieces(self, said: Json, index: int) -> list[Json]:
        pieces = []
        for piece in super()._pieces(said, index):
            text = piece["delta"].get("content") or ""
            told: Json = {"index": index, "text": text}
            if "logprobs" in piece:
                told["logprobs"] = self._logprobs(piece["logprobs"], index)
            if text or "logprobs" in told:
                pieces.append(told)
        return pieces

    def _stored(self) -> list[Json]:
        self._offsets.clear()
        return [
            {
                "index": choice["index"],
                "text": choice["message"]["content"] or "",
                "finish_reason": choice["finish_reason"],
                "logprobs": self._logprobs(choice["logprobs"], choice["index"]) if "logprobs" in choice else None,
            }
            for choice in super()._stored()
        ]

    def _logprobs(self, logprobs: Json, index: int) -> Json:
        """From a list of tokens to lists side by side; offsets are characters of prompt and text."""
        tokens = [token for token in logprobs.get("content") or () if isinstance(token, dict)]
        at, offsets = self._offsets.get(index, self._starts_at), []
        for token in tokens:
            offsets.append(at)
            at += len(token["token"])
        self._offsets[index] = at
        return {
            "tokens": [token["token"] for token in tokens],
            "token_logprobs": [token["logprob"] for token in tokens],
            "top_logprobs": [
                {one["token"]: one["logprob"] for one in token.get("top_logprobs") or ()} for token in tokens
            ],
            "text_offset": offsets,
        }
