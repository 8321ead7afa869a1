"""What streamed calls say, to all who follow them in this process.

Redis, a stream per call -> one connection, one blocking XREAD over all of them -> a bounded buffer per follower

A follower whose buffer is full is passed by; he reads Redis by himself from where he is until he has caught up, and so
does one who comes late. Nobody's slowness costs another follower, or memory.
"""

import asyncio
import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import redis
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection

from api.waiting import woken
from shared import chunks, log, redis_keys, tasks
from shared.chunks import Chunks, Entry

logger = log.get(__name__)

Position = tuple[int, int]
"""The id of an entry: attempt and number."""

BLOCK_S = 5.0
LATE_S = 2.0
"""An answer that is this much later than Redis promised does not come any more."""
RECONNECT_S = 0.3
READ_AGAIN_S = 0.3
BELL_LIFE_S = 60
MOST_ENTRIES = 100
"""Per stream and read, and in a follower's buffer."""
MOST_READ = 16
"""Of one who reads by himself; an entry has 32 kB at most."""
MOST_BYTES = 256 * 1024
"""In a follower's buffer; one entry may be longer."""
PAUSE_PER_STREAM_S = 0.0001
MOST_PAUSE_S = 0.03
"""With many streams a read is dear and answers for many; nobody waits 100 ms for a chunk."""

START: Position = (0, 0)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How patient we are with a stream.

    silence_s: after so much of it a client is told that we live. send_s: who takes nothing for so long is dropped.
    end_s: how long the end of a call that has just ended is looked for on Redis. gap_s: how long chunks that are
        lacking there are waited for.
    """

    silence_s: float = 15
    send_s: float = 30
    end_s: float = 6
    gap_s: float = 2


class ChunkFollower:
    """One who follows a call: he gets its entries in order, each once, as long as Redis has them."""

    def __init__(self, streams: "Streams", call_id: UUID) -> None:
        self.key = redis_keys.chunks(call_id).encode()
        self.taken = START
        """The last entry that he was given or that waits for him."""
        self.is_behind = True
        self._streams = streams
        self._waiting: deque[tuple[Entry, int]] = deque()
        self._bytes = 0
        self._woken = asyncio.Event()

    async def take(self, timeout_s: float) -> list[Entry]:
        """What came since; empty when nothing did in this time, or after a `wake`."""
        if not self._waiting and self.is_behind:
            return await self._catch_up(timeout_s)
        await woken(self._woken, 0 if self._waiting else timeout_s)
        return self._out_of_buffer()

    async def read(self) -> list[Entry]:
        """What waits for him, else what Redis has behind that now. For one who left. Raises RedisError, OSError."""
        return self._out_of_buffer() or await self._streams.read(self)

    async def last(self) -> Position | None:
        """The last entry that Redis has of the call. Raises RedisError, OSError."""
        return await self._streams.last(self)

    async def has_end(self) -> bool:
        """Whether Redis has the end of the call. Raises RedisError, OSError."""
        there = await self.last()
        return there is not None and there[1] == chunks.END

    def wake(self) -> None:
        """Let `take` return."""
        self._woken.set()

    def rewind(self, position: Position) -> None:
        """Go on behind this entry, read from Redis again."""
        self.leave()
        self._out_of_buffer()
        self.taken = position

    def leave(self) -> None:
        """Be read for no more; `take` joins again."""
        self._streams.forget(self)
        self.is_behind = True

    def put(self, position: Position, entry: Entry, size: int) -> bool:
        """Keep an entry until it is taken. False: there is no room, and he is behind now."""
        if position <= self.taken:
            return True
        if self._waiting and (len(self._waiting) >= MOST_ENTRIES or self._bytes + size > MOST_BYTES):
            self.is_behind = True
            return False
        self._waiting.append((entry, size))
        self._bytes += size
        self.taken = position
        self._woken.set()
        return True

    def _out_of_buffer(self) -> list[Entry]:
        found = [entry for entry, _ in self._waiting]
        self._waiting.clear()
        self._bytes = 0
        return found

    async def _catch_up(self, timeout_s: float) -> list[Entry]:
        try:
            return await self._streams.catch_up(self)
        except (redis.RedisError, OSError) as error:
            logger.info("stream_read_failed", error=type(error).__name__)
            await asyncio.sleep(max(0.0, min(timeout_s, READ_AGAIN_S)))
            return []


class _Feed:
    """A call that is read for its followers, from behind `last`; what goes to Redis for it is encoded once."""

    def __init__(self, key: bytes, last: Position) -> None:
        self.followers: set[ChunkFollower] = set()
        self.packed_key = _packed(key)
        self.last = last
        self.packed_last = _packed(b"%d-%d" % last)

    def move(self, last: Position) -> None:
        """Read on behind this entry."""
        self.last, self.packed_last = last, _packed(b"%d-%d" % last)


class Streams:
    """All followers of a process, and the one reader. process: a name no other process has."""

    def __init__(self, client: Redis, process: str) -> None:
        self._redis = client
        self._feeds: dict[bytes, _Feed] = {}
        self._bell_key = redis_keys.streams_bell(process).encode()
        self._bell = _Feed(self._bell_key, START)
        self._any = asyncio.Event()
        self._is_blocked = False
        self._has_changed = False
        self._ringing: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Start reading, as soon as somebody follows."""
        self._task = asyncio.create_task(self._run(), name="streams")

    async def close(self) -> None:
        """Stop reading."""
        await tasks.end(task for task in (self._task, self._ringing) if task is not None)

    def follow(self, call_id: UUID, *, is_new: bool) -> ChunkFollower:
        """Follow a call from its first chunk; the follower leaves in the end.

        is_new: it has hardly said anything yet, so that it is read along with all others from the start.
        """
        follower = ChunkFollower(self, call_id)
        if is_new:
            self._join(follower)
        return follower

    def forget(self, follower: ChunkFollower) -> None:
        """Read no more for this one."""
        feed = self._feeds.get(follower.key)
        if feed is not None:
            feed.followers.discard(follower)
            if not feed.followers:
                del self._feeds[follower.key]

    async def read(self, follower: ChunkFollower) -> list[Entry]:
        """The next entries of one who reads by himself. Raises RedisError, OSError."""
        after = f"({follower.taken[0]}-{follower.taken[1]}"
        rows: Any = await self._redis.xrange(follower.key, min=after, max="+", count=MOST_READ)
        found = [chunks.read(id_, fields) for id_, fields in rows]
        if rows:
            follower.taken = max(follower.taken, _position(rows[-1][0]))
        return found

    async def last(self, follower: ChunkFollower) -> Position | None:
        """The last entry of the call. Raises RedisError, OSError."""
        rows: Any = await self._redis.xrevrange(follower.key, count=1)
        return _position(rows[0][0]) if rows else None

    async def catch_up(self, follower: ChunkFollower) -> list[Entry]:
        """The same; one who has read all is read for from now on."""
        feed = self._feeds.get(follower.key)
        read_to = feed.last if feed is not None else START
        found = await self.read(follower)
        if len(found) < MOST_READ:
            feed = self._feeds.get(follower.key)
            is_level = feed is None or feed.last <= follower.taken
            # Others are ahead of what Redis has: it was emptied, and its worker will write all of it again.
            if is_level or (not found and feed is not None and feed.last == read_to):
                self._join(follower)
        return found

    def _join(self, follower: ChunkFollower) -> None:
        follower.is_behind = False
        feed = self._feeds.get(follower.key)
        if feed is None:
            feed = self._feeds[follower.key] = _Feed(follower.key, follower.taken)
            self._any.set()
            self._has_changed = True
            if self._is_blocked and self._ringing is None:
                self._ringing = asyncio.create_task(self._ring(), name="streams_bell")
        feed.followers.add(follower)

    async def _ring(self) -> None:
        """Wake the reader, who is blocked on the calls of before; tried again while that fails and he is."""
        try:
            while self._has_changed and self._is_blocked:
                self._has_changed = False
                try:
                    pipe = self._redis.pipeline(transaction=False)
                    pipe.xadd(self._bell_key, {"b": ""}, maxlen=1, approximate=False)
                    pipe.expire(self._bell_key, BELL_LIFE_S)
                    await pipe.execute()
                except (redis.RedisError, OSError) as error:
                    logger.info("streams_bell_failed", error=type(error).__name__)
                    self._has_changed = True
                    await asyncio.sleep(READ_AGAIN_S)
        finally:
            self._ringing = None

    async def _run(self) -> None:
        connection = self._redis.connection_pool.make_connection()
        try:
            while True:
                if not self._feeds:
                    self._any.clear()
                    await self._any.wait()
                try:
                    answer = await self._read(connection)
                    self._give_out(answer)
                except (redis.RedisError, OSError, TimeoutError) as error:
                    logger.warning("streams_reader_reconnects", error=type(error).__name__)
                    await connection.disconnect(nowait=True)
                    await asyncio.sleep(RECONNECT_S)
                except Exception:
                    logger.exception("streams_reader_failed")
                    await asyncio.sleep(RECONNECT_S)
                else:
                    await self._pause()
        finally:
            await connection.disconnect(nowait=True)

    async def _pause(self) -> None:
        if len(self._feeds) > 1:
            await asyncio.sleep(min(MOST_PAUSE_S, len(self._feeds) * PAUSE_PER_STREAM_S))

    async def _read(self, connection: AbstractConnection) -> Any:
        """One XREAD over all that is followed; None when nothing was said in time."""
        feeds = [self._bell, *self._feeds.values()]
        options = _command(b"XREAD", b"COUNT", b"%d" % MOST_ENTRIES, b"BLOCK", b"%d" % (BLOCK_S * 1000), b"STREAMS")
        count = b"*%d\r\n" % (len(options) + 2 * len(feeds))
        keys, lasts = (feed.packed_key for feed in feeds), (feed.packed_last for feed in feeds)
        self._is_blocked, self._has_changed = True, False
        try:
            async with asyncio.timeout(BLOCK_S + LATE_S):
                await connection.send_packed_command(b"".join([count, *options, *keys, *lasts]))
                return await connection.read_response(timeout=math.inf)
        finally:
            self._is_blocked = False

    def _give_out(self, answer: Any) -> None:
        """To the followers of each call: the entries that came for it."""
        found: Iterable[tuple[bytes, Any]] = answer.items() if isinstance(answer, dict) else answer or ()
        for key, rows in found:
            feed = self._bell if key == self._bell_key else self._feeds.get(key)
            if feed is not None:
                feed.move(_position(rows[-1][0]))
                for id_, row in rows if feed is not self._bell else ():
                    self._give(feed, id_, row)
                if not feed.followers and feed is not self._bell:
                    del self._feeds[key]

    def _give(self, feed: _Feed, id_: bytes, row: Sequence[bytes]) -> None:
        entry = chunks.read(id_, dict(zip(row[::2], row[1::2], strict=True)))
        size = sum(map(len, entry.texts if isinstance(entry, Chunks) else entry.finishes))
        feed.followers = {one for one in feed.followers if one.put(_position(id_), entry, size)}


def _position(id_: bytes) -> Position:
    attempt, _, number = id_.partition(b"-")
    return int(attempt), int(number)


def _packed(word: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(word), word)


def _command(*words: bytes) -> list[bytes]:
    return [_packed(word) for word in words]
