"""Reading a provider's stream to its end: what is said is passed on at once, silence and early ends are failures.

first_s          from the question to the first chunk (comments, headers and connecting are none)
between_s        from chunk to chunk
LAST_WORDS_S     after every choice has ended, for the usage; its lack loses no answer
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Protocol

from workers.answers import Assembly
from workers.provider import Sink
from workers.sse import Events, Garbled, InBandError
from workers.tool_calls import Json

LAST_WORDS_S = 5.0
DRAIN_S = 0.5
"""After `[DONE]`: a connection whose body was read to the end can be used again."""
CLOSE_S = 1.0


class Stalled(Exception):
    """The provider was silent for longer than it may be."""


class Interrupted(Exception):
    """The stream ended, without an error, before the answer did."""


class SinkFailed(Exception):
    """What was said could not be passed on: no fault of the provider."""


class Source(Protocol):
    """A provider's stream. done: the provider said that this was all. trouble: why nothing follows."""

    @property
    def done(self) -> bool: ...

    @property
    def trouble(self) -> Garbled | InBandError | None: ...

    def reads(self) -> AsyncGenerator[list[Json]]:
        """The chunks of each read, in OpenAI's form. Raises what the wire and the library raise."""

    async def aclose(self) -> None:
        """Make the provider stop."""


class OpenAISource:
    """The body of an answer on OpenAI's wire, decoded here: the library would lose ends, usage and two thirds CPU."""

    def __init__(self, response: Any, close: Callable[[], Awaitable[None]]) -> None:
        self._response = response
        self._close = close
        self._events = Events()

    @property
    def done(self) -> bool:
        """See Source."""
        return self._events.done

    @property
    def trouble(self) -> Garbled | InBandError | None:
        """See Source."""
        return self._events.trouble

    async def reads(self) -> AsyncGenerator[list[Json]]:
        """See Source."""
        async for block in self._response.aiter_bytes():
            yield self._events.feed(block)
        yield self._events.feed(b"\n\n")

    async def aclose(self) -> None:
        """See Source."""
        await self._close()


class LibrarySource:
    """A stream that the library translates from another wire. It raises by itself when one ends too early."""

    def __init__(self, wrapper: Any) -> None:
        self._wrapper = wrapper
        self.done = False
        self.trouble: Garbled | InBandError | None = None

    async def reads(self) -> AsyncGenerator[list[Json]]:
        """See Source. The usage of the last chunk may be the library's guess; what it collected is the provider's."""
        async for chunk in self._wrapper:
            yield [chunk.model_dump(mode="json", exclude={"usage"}, exclude_none=True)]
        self.done = True
        usages = [usage for chunk in self._wrapper.chunks if (usage := getattr(chunk, "usage", None)) is not None]
        yield [{"usage": usage.model_dump(mode="json", exclude_none=True)} for usage in usages]

    async def aclose(self) -> None:
        """See Source."""
        await self._wrapper.aclose()


async def read_stream(
    opened: Awaitable[Source], assembly: Assembly, sink: Sink | None, *, first_s: float, between_s: float
) -> None:
    """Take the whole answer in and tell it to `sink` on the way; the stream is closed on every way out.

    Raises Stalled, Interrupted, Garbled, InBandError, SinkFailed, and what opening and reading raise.
    """
    source: Source | None = None
    limit = asyncio.timeout(first_s)
    try:
        async with limit:
            source = await opened
            await _read(source, assembly, sink, limit, between_s)
    except (Garbled, InBandError, SinkFailed):
        raise
    except Exception:
        # A cut after the last word took nothing of the answer.
        if not assembly.is_whole(done=source is not None and source.done):
            if limit.expired():
                raise Stalled from None
            raise
    finally:
        if source is not None:
            await _close(source)
    if not assembly.is_whole(done=source is not None and source.done):
        raise Interrupted


async def _read(
    source: Source, assembly: Assembly, sink: Sink | None, limit: asyncio.Timeout, between_s: float
) -> None:
    now = asyncio.get_running_loop().time
    async with contextlib.aclosing(source.reads()) as reads:
        async for chunks in reads:
            if chunks:
                # Telling may wait for Postgres: that is no silence of the provider.
                limit.reschedule(None)
                for chunk in chunks:
                    await _tell(sink, assembly.take(chunk))
            if source.trouble is not None:
                raise source.trouble
            if chunks or source.done:
                limit.reschedule(now() + _patience(source, assembly, between_s))


def _patience(source: Source, assembly: Assembly, between_s: float) -> float:
    if source.done:
        return DRAIN_S
    return min(LAST_WORDS_S, between_s) if assembly.is_whole(done=False) else between_s


async def _tell(sink: Sink | None, pieces: list[Json]) -> None:
    if sink is None or not pieces:
        return
    try:
        await sink.send(pieces)
    except Exception as error:
        raise SinkFailed from error


async def _close(source: Source) -> None:
    """Within a second, even for a task that is being cancelled; trouble with it is nobody's."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CLOSE_S):
            await source.aclose()
