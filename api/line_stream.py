"""The answer that streams the ended lines of a batch: those that there are, or on until the last one of all.

A line's place among the ended ones is its number, so that a client knows where to go on: behind the last whole line
that it has.
"""

import asyncio
from collections.abc import Mapping

from api.followed_stream import BrokenOff, FollowedStream
from api.line_waiting import LineFollower
from api.streams import Pace
from api.wire.media import LINES
from shared import ids, log
from shared.db import is_down

logger = log.get(__name__)

READ_AGAIN_S = 0.5


class LineStream(FollowedStream):
    """One line after the other, and a blank one in silence, which readers of JSON lines pass over.

    after: the number of the line it begins behind. until: the number of its last line; None to follow the batch to its
    end.
    """

    media_type = LINES.type
    still_here = b"\n"

    def __init__(
        self, follower: LineFollower, pace: Pace, *, after: int, until: int | None, headers: Mapping[str, str]
    ) -> None:
        super().__init__(follower, pace, headers, {"batch": ids.batch(follower.batch_id)})
        self._follower = follower
        self._after = after
        self._until = until

    async def next(self, wait_s: float) -> tuple[bytes, bool]:
        """The next lines, as many as are read at a time."""
        is_over = self._is_over
        if self._after >= self._last and not is_over:
            await self._follower.wait(wait_s)
        text = await self._page()
        return text, is_over and self._after >= self._last

    @property
    def _last(self) -> int:
        """The number of the last line that is to be sent, as far as we know."""
        ended = self._follower.progress.ended
        return ended if self._until is None else self._until

    @property
    def _is_over(self) -> bool:
        """Whether nothing comes after that line, or nothing that this process waits for."""
        return self._until is not None or self._follower.progress.is_over or self._follower.is_over

    async def _page(self) -> bytes:
        """One who follows waits for a database that is in trouble; for the others it is the end."""
        if self._after >= self._last:
            return b""
        try:
            page = await self._follower.page(self._after, self._last - self._after)
        except Exception as error:
            if not is_down(error):
                raise
            if self._until is not None:
                raise BrokenOff("the database is away") from error
            logger.info("line_read_failed", error=type(error).__name__)
            await asyncio.sleep(READ_AGAIN_S)
            return b""
        self._after = page.last or self._last
        return page.text
