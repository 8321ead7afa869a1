"""The demo provider's desk: the scripts, pace and hold it was told of, and its log of what it was asked."""

import asyncio
import itertools
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

import orjson
from pydantic import BaseModel, ConfigDict

from cli.demo_faults import Fault, Pace, Script, Step
from cli.demo_texts import Json

LOG_ENTRIES = 20_000
KEPT_BODY_BYTES = 4096
SHOWN_HEADERS = {b"accept", b"content-type", b"user-agent", b"idempotency-key", b"traceparent", b"authorization"}

Outcome = Literal["pending", "held", "answered", "disconnected", "cut"]


class Which(BaseModel):
    """Which entries of the log are meant."""

    model_config = ConfigDict(extra="forbid")

    match: str | None = None
    since: int = 0
    outcome: Outcome | None = None

    def has(self, entry: "Entry") -> bool:
        return entry.seq > self.since and entry.matches(self.match) and self.outcome in (None, entry.outcome)


@dataclass(slots=True, eq=False)
class Entry:
    """One request as it arrived and what became of it."""

    seq: int
    path: str
    model: str
    message: str
    body: bytes | None
    headers: list[tuple[bytes, bytes]]
    arrived_at: float
    outcome: Outcome = "pending"
    fault: Fault | None = None
    status: int | None = None
    usage: Json | None = None
    finished_at: float | None = None
    chunks: int = 0

    def matches(self, part: str | None) -> bool:
        return part is None or part in self.message or part in self.model

    def shown(self) -> Json:
        """As /_control/requests shows it. chunks: events of a stream that were written, `[DONE]` included."""
        return {
            "seq": self.seq, "path": self.path, "model": self.model, "message": self.message,
            "body": _parsed(self.body), "headers": _shown_headers(self.headers),
            "arrived_at": self.arrived_at, "outcome": self.outcome, "fault": self.fault, "status": self.status,
            "usage": self.usage, "finished_at": self.finished_at, "chunks": self.chunks,
        }  # fmt: skip


def _parsed(raw: bytes | None) -> object:
    try:
        return None if raw is None else orjson.loads(raw)
    except orjson.JSONDecodeError:
        return raw.decode(errors="replace") if raw else ""


def _shown_headers(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    shown = {}
    for name, value in headers:
        if name in SHOWN_HEADERS or name.startswith(b"x-"):
            text = value.decode("latin-1")
            shown[name.decode("latin-1")] = f"...{text[-4:]}" if name == b"authorization" else text
    return shown


@dataclass(eq=False)
class Waiter:
    """Somebody waiting for `missing` more entries."""

    which: Which
    missing: int
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def see(self, entry: Entry) -> None:
        if self.which.has(entry):
            self.missing -= 1
            if self.missing <= 0:
                self.done.set()


class Desk:
    """Scripts, pace, hold and log of one demo provider."""

    def __init__(self, pace: Pace | None = None, log_entries: int = LOG_ENTRIES) -> None:
        self.pace = self._first_pace = pace or Pace()
        self.scripts: list[Script] = []
        self.entries: deque[Entry] = deque(maxlen=log_entries)
        self._seq = itertools.count(1)
        self._waiters: set[Waiter] = set()
        self._hold: Which | None = None
        self._held: set[asyncio.Timeout] = set()

    def record(self, path: str, model: str, message: str, raw: bytes, headers: list[tuple[bytes, bytes]]) -> Entry:
        kept = raw if len(raw) <= KEPT_BODY_BYTES else None
        entry = Entry(next(self._seq), path, model, message, kept, headers, time.time())
        self.entries.append(entry)
        self._tell(entry)
        return entry

    def close(self, entry: Entry, outcome: Outcome) -> None:
        entry.outcome, entry.finished_at = outcome, time.time()
        self._tell(entry)

    def _tell(self, entry: Entry) -> None:
        for waiter in self._waiters:
            # Those who asked for no outcome count arrivals only, or each change would count again.
            if waiter.which.outcome is not None or entry.outcome == "pending":
                waiter.see(entry)

    def next_step(self, entry: Entry) -> Step | None:
        """The next step of the first script that is for this request and has one left."""
        for script in self.scripts:
            if entry.matches(script.match) and (step := script.take()) is not None:
                entry.fault = step.fault
                return step
        return None

    def hold(self, match: str | None) -> None:
        self._hold = Which(match=match)

    def release(self) -> None:
        self._hold = None
        now = asyncio.get_running_loop().time()
        for limit in self._held:
            limit.reschedule(now)
        self._held.clear()

    def held(self, entry: Entry) -> asyncio.Timeout | None:
        """The wait this request is in for when answers are held: endless until `release`."""
        return None if self._hold is None or not self._hold.has(entry) else self.keep(entry)

    def keep(self, entry: Entry) -> asyncio.Timeout:
        """A wait that is endless until `release`, for the caller to sit out and `let_go`."""
        entry.outcome = "held"
        self._tell(entry)
        limit = asyncio.timeout(None)
        self._held.add(limit)
        return limit

    def let_go(self, entry: Entry, limit: asyncio.Timeout) -> None:
        """The wait is over, one way or the other."""
        self._held.discard(limit)
        entry.outcome = "pending"

    def select(self, which: Which) -> list[Entry]:
        return [entry for entry in self.entries if which.has(entry)]

    async def wait(self, which: Which, count: int, timeout_s: float) -> int:
        """Wait until `count` entries are as asked; returns how many are."""
        waiter = Waiter(which, count - len(self.select(which)))
        if waiter.missing > 0:
            self._waiters.add(waiter)
            try:
                async with asyncio.timeout(timeout_s):
                    await waiter.done.wait()
            except TimeoutError:
                pass
            finally:
                self._waiters.discard(waiter)
        return count - waiter.missing

    def reset(self) -> None:
        """Forget scripts, pace, hold and log; `seq` goes on, so that `since` keeps its meaning."""
        self.release()
        self.pace = self._first_pace
        self.scripts.clear()
        self.entries.clear()
