"""What one call says to one client: numbered, from where the client is, to the end; never a gap, never a fork.

Redis tells it while the call runs and for a while afterwards. Where Redis has nothing, the call's row decides: a
failure is told, and the stored answer stands for chunks of which none was told.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import redis

from api.call_failures import failure, last_provider
from api.desk import Desk
from api.stored_chunks import stored_chunks, stored_end
from shared import calls, clock
from shared.calls import Call
from shared.chunks import Chunks, End, Entry
from shared.errors import BadRequest, CallFailed, CallGoesOn, Gone, NotFound
from shared.failures import FAILURES
from shared.runtime import Runtime
from shared.states import CallState

MOMENT_S = 0.05
"""Ends are told twice: here most come on the stream itself, right after the call's end was heard of."""
LOOK_S = 0.05

AHEAD = "Invalid Last-Event-ID"
GONE = "Stream no longer available"
LOST = "LLM call failed: stream interrupted. The call goes on; read it at {path}"
LOST_OF_COMPLETED = "LLM call failed: stream interrupted. The call has completed; read it at {path}"
CLOSING = "The server is closing. The call goes on: resume the stream"


class CallStream:
    """The entries of a call from chunk `after + 1`. Close it in the end.

    finished: the future of a call that was accepted just now. needs_texts: an answer whose texts are erased is Gone,
        not told without them.
    """

    def __init__(
        self,
        rt: Runtime,
        desk: Desk,
        *,
        job_id: UUID,
        call_id: UUID,
        after: int = 0,
        finished: "asyncio.Future[None] | None" = None,
        needs_texts: bool = False,
    ) -> None:
        self.sent = after
        """The number of the last chunk that the client has."""
        self._rt, self._desk = rt, desk
        self._job_id, self.call_id = job_id, call_id
        self._needs_texts = needs_texts
        self._has_told = False
        self._attempt: int | None = None
        self._gap_until: float | None = None
        self._ended: Call | None = None
        self._look_until = 0.0
        self._is_cut = False
        self.follower = desk.streams.follow(call_id, is_new=finished is not None)
        self._finished = finished or desk.waiters.expect(call_id)
        self._finished.add_done_callback(self._wake)

    async def look_up(self) -> None:
        """See whether the call is over already. Raises NotFound; BadRequest for a client ahead of a live call."""
        call = await self._row()
        if call.completed_at is not None:
            self._ended = call
        elif self.sent:
            with contextlib.suppress(redis.RedisError, OSError):
                there = await self.follower.last()
                # Nothing there is no proof: Redis may have been emptied, and is written to again.
                if there is not None and self.sent > there[1]:
                    raise BadRequest(AHEAD)

    def close(self) -> None:
        """Nobody wants to hear more."""
        self.follower.leave()
        self._finished.remove_done_callback(self._wake)
        self._desk.waiters.forget(self.call_id, self._finished)

    async def next(self, timeout_s: float) -> list[Entry]:
        """What was said since; the last entry of all is an End. Empty when nothing was in this time, or sooner.

        Raises CallFailed (also when chunks are lost), Gone, NotFound, CallGoesOn (this process is closing).
        """
        if self._ended is not None or self._finished.done():
            return await self._rest()
        if self._gap_until is not None:
            await asyncio.sleep(LOOK_S)
        return self._fitting(await self.follower.take(timeout_s))

    async def failure(self, end: End) -> CallFailed:
        """The error for a call whose stream ended so."""
        call = await self._row()
        if call.completed_at is not None and call.state != CallState.COMPLETED:
            return await self._failure(call)
        return self.told_failure(end)

    def told_failure(self, end: End) -> CallFailed:
        """The same, from the end alone."""
        error = end.error or {"code": "internal_error"}
        failed = FAILURES[error["code"]]
        text = error.get("message") or failed.text
        provider = error.get("provider")
        return CallFailed(failed.http_status, text, headers={}, failure=error["code"], provider=provider)

    def _wake(self, _: "asyncio.Future[None]") -> None:
        self.follower.wake()

    async def _rest(self) -> list[Entry]:
        """What Redis still has of a call that is over, then what its row says."""
        if self._ended is None:
            entries = [] if self._is_cut else self._fitting(await self.follower.take(MOMENT_S))
            self._is_cut = self._desk.waiters.is_closed
            if entries:
                return entries
            if self._is_cut:
                raise CallGoesOn(CLOSING)
            # Before the row is read: an end that comes between the two is heard.
            self._expect_again()
            call = await self._row()
            if call.completed_at is None:
                return []
            self._ended = call
            self.follower.leave()
        if self._ended.stream:
            entries = await self._look(self._ended)
            if entries:
                return entries
        return await self._decided(self._ended)

    async def _look(self, call: Call) -> list[Entry]:
        """The next entries on Redis, which may still be written where the call has just ended; it may be away.

        While the client has nothing he is told all or nothing: the stored answer is better than a part.
        """
        if not self._look_until:
            age_s = (clock.now() - (call.completed_at or call.created_at)).total_seconds()
            # Of a failure that nobody has heard a word of the row says all.
            is_worth_it = self._has_told or call.state == CallState.COMPLETED
            self._look_until = clock.monotonic() + max(0.0, self._desk.pace.end_s - age_s) * is_worth_it
        while True:
            try:
                is_readable = self._has_told or call.state != CallState.COMPLETED or await self.follower.has_end()
                there = await self.follower.read() if is_readable else []
            except (redis.RedisError, OSError):
                return []
            entries = self._fitting(there)
            if entries or (not there and clock.monotonic() >= self._look_until):
                return entries
            if not there or self._gap_until is not None:
                await asyncio.sleep(LOOK_S)

    async def _decided(self, call: Call) -> list[Entry]:
        if call.state != CallState.COMPLETED:
            raise await self._failure(call)
        if call.stream and self.sent:
            if self.sent == call.chunks:
                # The client has all of it; only what Redis did not take is missing.
                return [stored_end(call, first=self.sent + 1)]
            raise self._lost(call) if self._has_told else Gone(GONE)
        if call.response is None and self._needs_texts:
            raise Gone(GONE)
        return self._fitting(stored_chunks(call))

    def _fitting(self, entries: Sequence[Entry]) -> list[Entry]:
        """Of these entries what the client does not have yet; up to a gap, which is read again."""
        found: list[Entry] = []
        for entry in entries:
            if not self._follows(entry):
                self._reread()
                break
            self._gap_until = None
            if isinstance(entry, End):
                known = max(0, self.sent + 1 - entry.first)
                if known > len(entry.finishes):
                    raise BadRequest(AHEAD)
                found.append(replace(entry, first=entry.first + known, finishes=entry.finishes[known:]))
                break
            if entry.last > self.sent:
                found.append(_from(entry, self.sent + 1))
                self.sent, self._attempt, self._has_told = entry.last, entry.attempt, True
        return found

    def _follows(self, entry: Entry) -> bool:
        """Whether the entry joins what the client has. Raises CallFailed for one of another attempt."""
        if isinstance(entry, End) and entry.state != CallState.COMPLETED:
            return True
        if self._attempt not in (None, entry.attempt):
            raise self._lost()
        return entry.first <= self.sent + 1

    def _reread(self) -> None:
        now = clock.monotonic()
        if self._gap_until is None:
            self._gap_until = now + self._desk.pace.gap_s
        if now > self._gap_until:
            raise self._lost()
        self.follower.rewind((0, 0) if self._attempt is None else (self._attempt, self.sent))

    def _lost(self, call: Call | None = None) -> CallFailed:
        path = f"/api/jobs/{self._job_id}/calls/{self.call_id}"
        text = (LOST if call is None else LOST_OF_COMPLETED).format(path=path)
        return CallFailed(502, text, headers={}, failure="stream_interrupted")

    def _expect_again(self) -> None:
        self._finished = self._desk.waiters.expect(self.call_id)
        self._finished.add_done_callback(self._wake)

    async def _row(self) -> Call:
        async with self._rt.db.hot_statement() as tx:
            call = await calls.get(tx, self._job_id, self.call_id)
        if call is None:
            raise NotFound("Call not found")
        return call

    async def _failure(self, call: Call) -> CallFailed:
        async with self._rt.db.hot_statement() as tx:
            provider = await last_provider(tx, call.id)
        return failure(call, {}, provider)


def _from(entry: Chunks, number: int) -> Chunks:
    """The chunks of an entry from this number on."""
    return entry if entry.first >= number else replace(entry, texts=entry.texts[number - entry.first :])
