"""The chunks of a streamed call on Redis: written once by its worker, read by every api process that somebody asks.

One Redis stream per call. Redis refuses an id that is not above the last one, so a worker that lost the call to a later
attempt cannot write any more, and what was written cannot be written twice.

id                 fields
<attempt>-<n>      c: chunks up to number n, JSON texts joined by newlines
<attempt>-<END>    n: number of the first finish chunk; f: the finish chunks, like c; u: usage; k: cost in USD;
                   x: how the call ended (JSON: `{"state": …}` or `{"state": …, "error": {…}}`)

A chunk has everything but a finish_reason; the finish chunks wait until the result is committed. Chunk numbers begin at
1 and have no gaps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

END = 2**32
"""Above every chunk number, so that the end is the last entry of its attempt."""


@dataclass(frozen=True, kw_only=True)
class Chunks:
    """One entry: chunks numbered `first` to `last` of an attempt."""

    attempt: int
    last: int
    texts: Sequence[bytes]

    @property
    def first(self) -> int:
        """The number of the first of them."""
        return self.last - len(self.texts) + 1


@dataclass(frozen=True, kw_only=True)
class End:
    """How the call ended. finishes: its finish chunks, numbered from `first`; usage and cost only when it completed.

    usage: JSON text in OpenAI's words. cost_usd: JSON text. error: `{"code", "message", "provider"}` of a failed call.
    """

    attempt: int
    first: int
    state: str
    finishes: Sequence[bytes] = ()
    usage: bytes | None = None
    cost_usd: bytes | None = None
    error: Mapping[str, Any] | None = None


Entry = Chunks | End


def written(entry: Entry) -> tuple[str, dict[str, bytes]]:
    """The id and the fields of an entry, for XADD."""
    if isinstance(entry, Chunks):
        return f"{entry.attempt}-{entry.last}", {"c": b"\n".join(entry.texts)}
    fields = {
        "n": str(entry.first).encode(),
        "x": orjson.dumps({"state": entry.state} | ({"error": entry.error} if entry.error else {})),
    }
    if entry.finishes:
        fields["f"] = b"\n".join(entry.finishes)
    if entry.usage is not None:
        fields["u"] = entry.usage
    if entry.cost_usd is not None:
        fields["k"] = entry.cost_usd
    return f"{entry.attempt}-{END}", fields


def read(id_: bytes, fields: Mapping[bytes, bytes]) -> Entry:
    """The entry that Redis returned."""
    attempt, _, number = id_.partition(b"-")
    if b"x" not in fields:
        return Chunks(attempt=int(attempt), last=int(number), texts=fields[b"c"].split(b"\n"))
    ended = orjson.loads(fields[b"x"])
    return End(
        attempt=int(attempt),
        first=int(fields[b"n"]),
        state=ended["state"],
        finishes=fields[b"f"].split(b"\n") if b"f" in fields else (),
        usage=fields.get(b"u"),
        cost_usd=fields.get(b"k"),
        error=ended.get("error"),
    )
