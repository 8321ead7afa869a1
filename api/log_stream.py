"""The answer that streams a team's event log: what is there, then what comes, a comment in silence.

Nothing is sent before the first read: what goes wrong until then is an ordinary refusal. After it the database may be
away: the stream stays open and goes on where it was.
"""

import asyncio
import random
from collections.abc import Callable, Iterable

from api.followed_stream import FollowedStream
from api.log_waiting import LogFollower
from api.streams import Pace
from shared import ids, log
from shared.db import is_down
from shared.event_log import Entry

logger = log.get(__name__)

RETRY_MS = (1000, 3000)
"""When to come again, as a process that closes says: not all at once."""
READ_AGAIN_S = 1.0


def frame(entry: Entry) -> bytes:
    """One event; its body is one line of JSON."""
    return f"id: {ids.prefixed('evt', entry.id)}\nevent: {entry.type}\ndata: {entry.body}\n\n".encode()


class LogStream(FollowedStream):
    """One event after the other.

    first: what the first read found. is_told, is_last: of an event, whether the client gets it, and whether the stream
    ends with it.
    """

    media_type = "text/event-stream"
    still_here = b": ping\n\n"

    def __init__(
        self,
        follower: LogFollower,
        first: Iterable[Entry],
        pace: Pace,
        *,
        is_told: Callable[[Entry], bool] = lambda _: True,
        is_last: Callable[[Entry], bool] = lambda _: False,
    ) -> None:
        super().__init__(follower, pace, {}, {"team_id": follower.team_id})
        self._follower = follower
        self._first: Iterable[Entry] | None = first
        self._is_told = is_told
        self._is_last = is_last

    async def next(self, wait_s: float) -> tuple[bytes, bool]:
        """The next events; when this process closes, word of when to come again."""
        if self._first is not None:
            first, self._first = self._first, None
            return self._told(first)
        frames, is_over = self._told(await self._taken(wait_s))
        if not frames and not is_over and self._follower.is_over:
            return b"retry: %d\n\n" % random.randint(*RETRY_MS), True  # noqa: S311 - spreads clients
        return frames, is_over

    async def _taken(self, timeout_s: float) -> list[Entry]:
        """What comes next. Trouble with the database passes, and the follower reads on from where he is."""
        try:
            async with asyncio.timeout(max(0.0, timeout_s) + READ_AGAIN_S):
                return await self._follower.take(timeout_s)
        except Exception as error:
            if not is_down(error):
                raise
            logger.info("log_read_failed", error=type(error).__name__)
            await asyncio.sleep(min(READ_AGAIN_S, max(0.0, timeout_s)))
            return []

    def _told(self, entries: Iterable[Entry]) -> tuple[bytes, bool]:
        """The frames of these, and whether the last event of the stream is among them."""
        frames = []
        for entry in entries:
            if self._is_told(entry):
                frames.append(frame(entry))
            if self._is_last(entry):
                return b"".join(frames), True
        return b"".join(frames), False
