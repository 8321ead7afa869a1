"""The stream of one attempt: what its provider says, as numbered chunks, and how it ended."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Protocol

import orjson

from shared import chunk_shapes, estimate, money
from shared.attempt_reports import Report, Usage
from shared.calls import Claimed
from shared.chunks import Chunks, End
from shared.failures import message
from shared.ids import Fence
from shared.states import CallState, Endpoint

KEPT_BYTES = 8 * 1024 * 1024
"""Of a stream's chunks, so that a Redis that was emptied gets them again. A longer stream forgets what is written."""
MOST_ENTRY_BYTES = 32 * 1024
"""Of one entry on Redis, so that no write and no read of one stream keeps the others waiting."""
MOST_UNWRITTEN_BYTES = 64 * 1024 * 1024
MOST_SAID_BYTES = 16 * 1024 * 1024
"""A longer answer, or one that Redis does not take for so long, is broken off: no model says so much."""


class Writer(Protocol):
    """Takes relays to Redis."""

    async def begin(self, relay: "Relay") -> bool:
        """Put on record that the attempt delivers. False, and the call is stopped: the attempt no longer holds it."""

    def may_go_ahead(self, relay: "Relay") -> bool:
        """Whether nobody else can have the call yet, so that the first chunk need not wait for the record."""

    def wake(self, relay: "Relay") -> None:
        """The relay has something to write."""

    def stop(self, fence: Fence, reason: str) -> None:
        """Stop the call."""


class Relay:
    """A `Sink` for a provider. Chunks are numbered from 1; those up to `written` are on Redis."""

    def __init__(self, call: Claimed, writer: Writer) -> None:
        self.call = call
        self.since = time.monotonic()
        self.written = 0
        self.end: End | None = None
        self.ended: asyncio.Event = asyncio.Event()
        """Set when nothing more is to be written."""
        self.has_begun = False
        """Clients may have heard of this attempt."""
        self.is_over = False
        """A later attempt writes this stream now, or it cannot be completed any more: the call's row tells the rest."""
        self.said_bytes = 0
        self._texts: list[bytes] = []
        self._first = 1
        self._size = 0
        self._writer = writer
        self._record: asyncio.Task[bool] | None = None
        self._endpoint = Endpoint(call.endpoint)
        self._head = chunk_shapes.head(call.id, self._endpoint, call.created_at, call.model)

    @property
    def last(self) -> int:
        """The number of the last chunk."""
        return self._first + len(self._texts) - 1

    @property
    def said_tokens(self) -> int:
        """About how many tokens the provider has said."""
        return estimate.tokens(self.said_bytes)

    async def send(self, choices: Sequence[dict[str, Any]]) -> None:
        """Pass on what a provider chunk said. Raises CancelledError when the call is no longer this worker's.

        The first chunk goes out while it is put on record that there is one, the second when it is.
        """
        text = self._chunk([self._told(choice) for choice in choices])
        is_first = self._record is None
        if self._record is None:
            self._record = asyncio.create_task(self._writer.begin(self))
        if not (is_first and self._writer.may_go_ahead(self)) and not await self.recorded():
            raise asyncio.CancelledError
        self.has_begun = True
        self._texts.append(text)
        self.said_bytes += sum(map(_said, choices))
        self._size += len(text)
        self._writer.wake(self)
        if self.said_bytes > MOST_SAID_BYTES or self._size > MOST_UNWRITTEN_BYTES:
            self._writer.stop(self.call.fence, "oversized")
            raise asyncio.CancelledError

    async def recorded(self) -> bool:
        """Wait until it is on record that there are chunks, where there are any. False: the call is another's."""
        if self._record is None:
            return True
        return self._record.result() if self._record.done() else await asyncio.shield(self._record)

    def unwritten(self) -> Chunks | None:
        """What is to be written next: as many chunks as one entry may have."""
        start = stop = self.written + 1 - self._first
        size = 0
        while stop < len(self._texts) and (stop == start or size + len(self._texts[stop]) <= MOST_ENTRY_BYTES):
            size += len(self._texts[stop])
            stop += 1
        if stop == start:
            return None
        return Chunks(attempt=self.call.number, last=self._first + stop - 1, texts=self._texts[start:stop])

    def wrote(self, number: int) -> None:
        """Redis has the chunks up to this one."""
        self.written = number
        if self._size > KEPT_BYTES:
            del self._texts[: number + 1 - self._first]
            self._first, self._size = number + 1, sum(map(len, self._texts))

    def begin_again(self) -> bool:
        """Redis lost what was written. False: so did we, and nothing more is to be written."""
        self.written = 0
        if self._first > 1:
            self.give_up()
        return not self.is_over

    def give_up(self) -> None:
        """Write nothing more."""
        self.is_over = True
        self.ended.set()

    def close(self, report: Report, provider: str | None) -> None:
        """Say how the call ended; it is committed."""
        if report.state == CallState.COMPLETED and report.response is not None:
            choices = orjson.loads(report.response)["choices"]
            if not self.has_begun and self._endpoint == Endpoint.CHAT:
                self._texts.extend(map(self._opening, choices))
            self.end = self._completed(report, choices)
        else:
            self.end = self._failed(report, provider)

    def _completed(self, report: Report, choices: Sequence[dict[str, Any]]) -> End:
        return End(
            attempt=self.call.number,
            first=self.last + 1,
            state=report.state,
            finishes=[self._chunk([chunk_shapes.finish(self._endpoint, choice)]) for choice in choices],
            usage=orjson.dumps(_usage(report.usage)),
            cost_usd=orjson.dumps(money.usd(report.client_cost_nanousd)),
        )

    def _failed(self, report: Report, provider: str | None) -> End:
        code = report.error_code or "internal_error"
        error = {"code": code, "message": message(code, report.error_message), "provider": provider}
        return End(attempt=self.call.number, first=self.last + 1, state=report.state, error=error)

    def _told(self, choice: dict[str, Any]) -> dict[str, Any]:
        """A text completion's choices have their logprobs in every chunk, be it null."""
        always = {"logprobs": choice.get("logprobs")} if self._endpoint == Endpoint.COMPLETION else {}
        return {**choice, **always, "finish_reason": None}

    def _opening(self, choice: dict[str, Any]) -> bytes:
        """A chunk that says nothing, of an answer without any words."""
        delta = {"role": "assistant", "content": ""}
        return self._chunk([{"index": choice["index"], "delta": delta, "finish_reason": None}])

    def _chunk(self, choices: list[dict[str, Any]]) -> bytes:
        return chunk_shapes.chunk(self._head, choices)


def _usage(usage: Usage) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
    if usage.cached_tokens:
        shown["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    if usage.reasoning_tokens:
        shown["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return shown


def _said(choice: dict[str, Any]) -> int:
    """Bytes of text in what one choice said; of anything but plain words, the JSON of it."""
    if "text" in choice:
        return len(choice["text"].encode())
    delta = choice["delta"]
    content = delta.get("content")
    if isinstance(content, str) and len(delta) <= 2:
        return len(content.encode())
    return sum(estimate.said_bytes(value) for name, value in delta.items() if name != "role")
