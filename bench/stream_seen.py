"""What a reader of streams notes down, the same for the bare litellm loop and for HTTP."""

import time
from dataclasses import dataclass, field

from bench.loop import percentile
from bench.stream_question import Kind


class Damaged(RuntimeError):
    """A stream had a gap, a repeat, or no proper end."""


@dataclass(kw_only=True)
class Seen:
    """One run's streams. first_ms: from the request to the first word, less the provider's pause before it.

    age_ms: of each chunk when it was read.
    """

    seconds: float = 0.0
    streams: int = 0
    first_ms: list[float] = field(default_factory=list)
    age_ms: list[float] = field(default_factory=list)

    @property
    def chunks(self) -> int:
        """How many chunks with words came."""
        return len(self.age_ms)

    def first(self, percent: float) -> float:
        """A percentile of the time to the first word."""
        return percentile(self.first_ms, percent)

    def age(self, percent: float) -> float:
        """A percentile of the chunks' age."""
        return percentile(self.age_ms, percent)


class Reading:
    """One stream as it comes: its chunks are numbered, and each says when the provider sent it."""

    def __init__(self, kind: Kind, seen: Seen) -> None:
        self._kind = kind
        self._seen = seen
        self._started = time.perf_counter()
        self.next = 0

    def chunk(self, sent_at: float, number: int) -> None:
        """A chunk was read just now. Raises Damaged when it is not the next one."""
        now = time.time()
        if number != self.next:
            raise Damaged(f"chunk {number} came where {self.next} was due")
        if number == 0:
            self._seen.first_ms.append((time.perf_counter() - self._started - self._kind.every_s) * 1000)
        self._seen.age_ms.append((now - sent_at) * 1000)
        self.next += 1

    def end(self, *, finished: bool) -> None:
        """The stream ended properly or not. Raises Damaged."""
        if self.next != self._kind.chunks or not finished:
            raise Damaged(f"the stream ended after {self.next} of {self._kind.chunks} chunks, finished: {finished}")
        self._seen.streams += 1
