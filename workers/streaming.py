"""Streaming: what a provider says goes to the call's chunks on Redis while it comes, and to nobody twice.

provider -> Relay (one per attempt: makes and keeps the chunks) -> Chunkwriter (one per process) -> Redis -> api

While the first chunk is written `attempts.first_chunk_at` is committed, before the second is: from then on the call is
never tried again. Where a worker dies in between, the chunk on Redis tells the next attempt.
The worker waits for no reader, and Redis away or wiped stops no call: what is not there yet is written when it is back.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import redis

from shared import attempts, chunks, log, redis_keys
from shared.attempt_reports import Report
from shared.calls import Claimed
from shared.db import is_down
from shared.ids import Fence
from shared.runtime import Runtime
from shared.team_commit import TeamCommit
from workers.relay import Relay

logger = log.get(__name__)

PACE_S = 0.010
"""Chunks that come faster than this share a write; the first of a stream does not wait."""
PAUSE_S = 0.2
"""After Redis or Postgres failed."""
END_S = 5.0
"""How long a finished call waits for Redis to take its end; the stored result is there all the same."""
MOST_PIPELINE_BYTES = 1024 * 1024
"""Of one write, which Redis has to answer within its client's timeout; the other streams are next."""
NOT_ABOVE = "equal or smaller"
"""In Redis's words, an id that is not above the last one of the stream."""

Stop = Callable[[Fence, str], None]


@dataclass
class _Queued:
    """What a pipeline holds of a stream: commands, the number of the last chunk (0: none), and whether its end."""

    last: int = 0
    commands: int = 0
    size: int = 0
    has_end: bool = False


class Chunkwriter:
    """Writes the chunks of all streams of this process, a pipeline at a time; marks beginnings in group commits."""

    def __init__(self, rt: Runtime, stop: Stop) -> None:
        self._rt = rt
        self._stop = stop
        self._begins: TeamCommit[Fence, bool] = TeamCommit(self._begin_group, patient=rt.db.patient)
        self._waiting: dict[Relay, None] = {}
        self._urgent = asyncio.Event()
        self._written_at = 0.0
        self._task: asyncio.Task[None] | None = None

    async def begin(self, relay: Relay) -> bool:
        """Put on record that the attempt delivers. False, and the call is stopped: the attempt no longer holds it."""
        while True:
            try:
                holds = await self._begins.add(relay.call.fence, relay.call.team_id)
            except Exception as error:
                if not is_down(error):
                    raise
                logger.warning("stream_waits", call_id=str(relay.call.id), error=type(error).__name__)
                await asyncio.sleep(PAUSE_S)
            else:
                break
        if not holds:
            self._stop(relay.call.fence, "lost")
        return holds

    def may_go_ahead(self, relay: Relay) -> bool:
        """Whether nobody else can have the call yet, so that the first chunk need not wait for the record."""
        return time.monotonic() - relay.since < self._rt.settings.lease_s / 2

    async def was_heard(self, call: Claimed) -> bool:
        """Whether an earlier attempt delivered a chunk and died before that was on record."""
        try:
            newest: Any = await self._rt.redis.xrevrange(redis_keys.chunks(call.id), count=1)
        except (redis.RedisError, OSError):
            return False
        return bool(newest) and int(newest[0][0].partition(b"-")[0]) < call.number

    def stop(self, fence: Fence, reason: str) -> None:
        """Stop a call; the reasons are those of `Calls.stop`."""
        self._stop(fence, reason)

    def wake(self, relay: Relay) -> None:
        """The relay has chunks, or its end, to write."""
        if relay.is_over:
            return
        self._waiting[relay] = None
        if not relay.written:
            self._urgent.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="chunkwriter")

    async def end(self, relay: Relay, report: Report, *, provider: str | None) -> None:
        """Write how the committed call ended; waits for Redis, but not for long."""
        if relay.is_over:
            return
        relay.close(report, provider)
        self._urgent.set()
        self.wake(relay)
        try:
            async with asyncio.timeout(END_S):
                await relay.ended.wait()
        except TimeoutError:
            relay.give_up()
            logger.warning("stream_end_not_written", call_id=str(relay.call.id))

    async def _run(self) -> None:
        await self._pace()
        while self._waiting:
            self._urgent.clear()
            try:
                await self._write()
            except (redis.RedisError, OSError) as error:
                logger.warning("chunks_wait", error=type(error).__name__, streams=len(self._waiting))
                await asyncio.sleep(PAUSE_S)
            else:
                # What is waiting by now is the rest of a stream, or came meanwhile: it waits no longer.
                await asyncio.sleep(0)

    async def _pace(self) -> None:
        """Let chunks gather when others were just written, unless one is the first or the last of its stream."""
        wait_s = self._written_at + PACE_S - time.monotonic()
        if wait_s > 0 and not self._urgent.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._urgent.wait()

    async def _write(self) -> None:
        """One pipeline with an entry for each stream in turn; what its answers say is acted on afterwards."""
        pipe = self._rt.redis.pipeline(transaction=False)
        self._written_at = time.monotonic()
        sent: list[tuple[Relay, _Queued]] = []
        size = 0
        while self._waiting and size < MOST_PIPELINE_BYTES:
            relay = next(iter(self._waiting))
            del self._waiting[relay]
            if not relay.is_over:
                sent.append((relay, self._queue(pipe, relay)))
                size += sent[-1][1].size
        try:
            answers = iter(await pipe.execute(raise_on_error=False))
            for relay, queued in sent:
                if not await self._is_taken(relay, queued, [next(answers) for _ in range(queued.commands)]):
                    self.wake(relay)
        except (redis.RedisError, OSError):
            for relay, _ in sent:
                self.wake(relay)
            raise

    def _queue(self, pipe: Any, relay: Relay) -> _Queued:
        """Queue what is next of a stream: an entry of chunks, and with the last of them its end."""
        key, chunk = redis_keys.chunks(relay.call.id), relay.unwritten()
        keep_s, queued = self._rt.settings.stream_retention_s, _Queued()
        if chunk is not None:
            is_first = not relay.written
            id_, fields = chunks.written(chunk)
            pipe.xadd(key, fields, id=id_, nomkstream=not is_first)
            queued = _Queued(last=chunk.last, commands=1, size=len(fields["c"]))
            if is_first:
                pipe.expire(key, int(max(0.0, relay.call.deadline_in_s)) + keep_s)
                queued.commands += 1
        if relay.end is not None and (queued.last or relay.written) == relay.last:
            id_, fields = chunks.written(relay.end)
            pipe.xadd(key, fields, id=id_, nomkstream=relay.last > 0)
            pipe.expire(key, keep_s)
            queued.commands += 2
            queued.has_end = True
        return queued

    async def _is_taken(self, relay: Relay, queued: _Queued, answers: Sequence[Any]) -> bool:
        """Whether nothing more is to be sent of this stream, for now."""
        refused = [answer for answer in answers if isinstance(answer, Exception)]
        if any(NOT_ABOVE not in str(error) for error in refused):
            raise refused[0]
        if refused:
            return await self._is_there(relay)
        if None in answers:
            # Redis was emptied: everything is written again, under the same numbers.
            return not relay.begin_again()
        if queued.last:
            relay.wrote(queued.last)
        if queued.has_end:
            relay.ended.set()
        return relay.written == relay.last and (relay.end is None or queued.has_end)

    async def _is_there(self, relay: Relay) -> bool:
        """After Redis refused an id: whether it has everything, by an earlier write whose answer was lost."""
        newest: Any = await self._rt.redis.xrevrange(redis_keys.chunks(relay.call.id), count=1)
        attempt, _, number = (newest[0][0] if newest else b"0-0").partition(b"-")
        if int(attempt) > relay.call.number:
            logger.info("stream_overtaken", call_id=str(relay.call.id), attempt=relay.call.number)
            relay.give_up()
            return True
        if int(number) == chunks.END:
            relay.ended.set()
        relay.wrote(min(int(number), relay.last))
        return relay.written == relay.last and (relay.end is None or relay.ended.is_set())

    async def _begin_group(self, group: Sequence[Fence], lock_s: float | None) -> list[bool]:
        async with self._rt.db.hot_transaction(lock_s=lock_s) as tx:
            begun = await attempts.begin_streams(tx, group)
        return [fence in begun for fence in group]
