"""The timer's step for replays and for news of jobs on their way: one look says whether there are any."""

import asyncio

from shared import background
from shared.runtime import Runtime
from workers import replays
from workers.progress import Progress

EVERY_S = 0.5
"""Between two steps of a replay, and between two news of a job at least."""
QUIET_S = 0.5
"""So much longer while there is neither."""


class Background:
    """One per leader."""

    def __init__(self, rt: Runtime) -> None:
        self._rt = rt
        self._progress = Progress(rt)

    async def run(self) -> None:
        """Go on with what there is. Neither of the two is kept from its step by trouble of the other."""
        async with self._rt.db.hot_statement() as tx:
            found = await background.look(tx)
        steps = []
        if found.replays:
            steps.append(replays.advance(self._rt))
        if found.progress:
            steps.append(self._progress.run())
        if not steps:
            await asyncio.sleep(QUIET_S)
        for ended in await asyncio.gather(*steps, return_exceptions=True):
            if isinstance(ended, BaseException):
                raise ended
