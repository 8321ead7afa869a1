"""Server-sent events of a call, in two dialects: bytes around the chunks as their worker wrote them, never parsed."""

from collections.abc import Sequence
from typing import Any, Protocol

import orjson

from api.gateway.envelope import problem
from shared.chunks import Chunks, End
from shared.errors import CallFailed, WaybillError

DONE = b"data: [DONE]\n\n"
CHOICES = b'"choices":'
"""What follows the head of a chunk; inside a string its quotes would be escaped."""


class Dialect(Protocol):
    """How frames are written. A frame ends with a blank line."""

    keepalive: bytes
    """A comment, which no client takes for data."""

    def chunks(self, entry: Chunks) -> bytes:
        """A frame per chunk."""

    def end(self, entry: End) -> bytes:
        """Finish chunks, usage and `[DONE]`."""

    def error(self, error: WaybillError) -> bytes:
        """What went wrong, and `[DONE]`."""


class Jobs:
    """The job API: frames are numbered, usage is in the last finish chunk."""

    keepalive = b": keepalive\n\n"

    def chunks(self, entry: Chunks) -> bytes:
        """`id: n` and the chunk."""
        return b"".join([b"id: %d\ndata: %b\n\n" % (n, text) for n, text in enumerate(entry.texts, entry.first)])

    def end(self, entry: End) -> bytes:
        """The last of the finish chunks carries the usage."""
        if not entry.finishes:
            return DONE
        *others, last = entry.finishes
        texts = [*others, _with(last, b"usage", entry.usage) if entry.usage is not None else last]
        return self.chunks(Chunks(attempt=entry.attempt, last=entry.first + len(texts) - 1, texts=texts)) + DONE

    def error(self, error: WaybillError) -> bytes:
        """`message`, `type` and `code`."""
        said = problem(error)
        code = error.failure if isinstance(error, CallFailed) else said.code
        return _error({"error": {"message": said.message, "type": said.type, "code": code}})


class OpenAI:
    """OpenAI's own: no numbers. tells_usage: in a chunk of its own at the end, and null in all others."""

    keepalive = b": ping\n\n"

    def __init__(self, *, tells_usage: bool) -> None:
        self._tells_usage = tells_usage

    def chunks(self, entry: Chunks) -> bytes:
        """The chunk alone."""
        return self._frames(entry.texts)

    def end(self, entry: End) -> bytes:
        """Finish chunks, then usage with its cost."""
        if not (self._tells_usage and entry.finishes and entry.usage is not None):
            return self._frames(entry.finishes) + DONE
        usage = entry.usage if entry.cost_usd is None else _with(entry.usage, b"cost", entry.cost_usd)
        head = entry.finishes[0].partition(CHOICES)[0]
        return self._frames(entry.finishes) + b'data: %b"choices":[],"usage":%b}\n\n' % (head, usage) + DONE

    def error(self, error: WaybillError) -> bytes:
        """The envelope of the gateway's errors."""
        return _error(problem(error).body)

    def _frames(self, texts: Sequence[bytes]) -> bytes:
        if self._tells_usage:
            return b"".join([b'data: %b,"usage":null}\n\n' % text[:-1] for text in texts])
        return b"".join([b"data: %b\n\n" % text for text in texts])


JOBS: Dialect = Jobs()
OPENAI: Dialect = OpenAI(tells_usage=False)
OPENAI_WITH_USAGE: Dialect = OpenAI(tells_usage=True)


def _with(text: bytes, name: bytes, value: bytes) -> bytes:
    """A JSON object with one more member."""
    return b'%b,"%b":%b}' % (text[:-1], name, value)


def _error(body: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(body) + DONE
