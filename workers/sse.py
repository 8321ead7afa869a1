"""Server-sent events of a provider that speaks OpenAI's wire: from bytes as they come to the JSON objects in them."""

from typing import Any

import orjson

Json = dict[str, Any]

DONE = b"[DONE]"
MAX_EVENT_BYTES = 16 * 1024 * 1024
"""A larger one is no chunk of an answer; nothing bounds it otherwise."""


class Garbled(Exception):
    """What came is not a stream of JSON objects."""


class InBandError(Exception):
    """The provider put an error into its stream. said: the error object, or whatever stood in its place."""

    def __init__(self, said: Any) -> None:
        super().__init__("the provider's stream carries an error")
        self.said = said


class Events:
    """Decodes one stream. `trouble` is what ended it early, to be raised once the chunks before it were passed on."""

    def __init__(self) -> None:
        self.done = False
        """Whether the provider said that this was all."""
        self.trouble: Garbled | InBandError | None = None
        self._rest: list[bytes] = []
        self._data: list[bytes] = []
        self._name = b""
        self._size = 0

    def feed(self, block: bytes) -> list[Json]:
        """The chunks that this block completes; none for comments, and none after the end."""
        self._size += len(block)
        if self._size > MAX_EVENT_BYTES:
            self.trouble = Garbled()
        if b"\n" not in block:
            self._rest.append(block)
            return []
        lines = b"".join((*self._rest, block)).split(b"\n")
        self._rest = [lines.pop()]
        self._size = len(self._rest[0]) + sum(map(len, self._data))
        chunks: list[Json] = []
        for line in lines:
            self._take(line.rstrip(b"\r"), chunks)
        return chunks

    def _take(self, line: bytes, chunks: list[Json]) -> None:
        if line.startswith(b"data:"):
            self._data.append(line[5:].strip())
        elif line.startswith(b"event:"):
            self._name = line[6:].strip()
        elif not line and self._data:
            data, name = b"\n".join(self._data), self._name
            self._data, self._name = [], b""
            if not self.done and self.trouble is None:
                self._dispatch(data, name, chunks)

    def _dispatch(self, data: bytes, name: bytes, chunks: list[Json]) -> None:
        if data.startswith(DONE):
            self.done = True
            return
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError:
            chunk = None
        if not isinstance(chunk, dict):
            self.trouble = Garbled()
        elif chunk.get("error") or name == b"error" or chunk.get("object") == "error":
            self.trouble = InBandError(chunk.get("error") or chunk)
        else:
            chunks.append(chunk)
