"""The dispatcher: rings waiting calls and the lines of batches, team by team, as workers take what was rung.

look ─► read the heads ─► choose by turns ─► take rate limits ─► mark ─► ring        calls first, then lines

It runs in the one timer that leads and keeps in memory only what may be lost: whose turn it is and who pauses. A crash
between two steps loses nothing: what is marked and not rung is a lost bell, what a limit counted leaves it in a minute.
"""

import math
from collections.abc import Sequence

from shared import clock, dispatching, log
from shared.db import is_down
from shared.dispatching import Waiting, queues
from shared.messages import RunCalls, RunLines
from shared.runtime import Runtime
from shared.team_turns import TeamTurns
from workers.line_heads import LineHeads
from workers.line_limits import LineLimits

logger = log.get(__name__)

CALLS_WINDOW = 256
"""Rung calls that may wait for a worker; the rest stays in Postgres, where teams take turns."""
LEAST_WINDOW, MOST_WINDOW = 32, 1024
"""The same for lines: as many as are claimed in WINDOW_S, so that who comes next has not long to wait."""
WINDOW_S = 0.3
SMOOTHED_S = 1.0
"""Over so long the speed of claims is taken: a unit claims several at an instant."""
LINES_DOWN_S = 2.0
"""Lines are let alone for so long after a look at them failed: calls are looked at first and often."""
BUSY_S = 0.05
"""How soon it looks again while there is work to ring."""
MOST_ROUNDS = 8
RESTS = 1
"""It rests for at least so many times as long as its last look took."""


class LineWindow:
    """How many lines may be rung and not claimed, from how many are claimed in a second."""

    def __init__(self) -> None:
        self.size = LEAST_WINDOW
        self._per_s = 0.0
        self._rung = 0
        self._at = clock.monotonic()

    def saw(self, rung: int) -> None:
        """So many of what was rung at the end of the last look are not claimed yet."""
        now = clock.monotonic()
        since_s = max(now - self._at, 0.001)
        claimed_per_s = max(0, self._rung - rung) / since_s
        self._per_s += (claimed_per_s - self._per_s) * -math.expm1(-since_s / SMOOTHED_S)
        # Twice what is claimed between two looks, at least: who claims all that is rung finds more the next time.
        wanted = self._per_s * max(WINDOW_S, 2 * since_s)
        self.size = max(LEAST_WINDOW, min(MOST_WINDOW, math.ceil(wanted)))
        self._rung, self._at = rung, now

    def rang(self, lines: int) -> None:
        """So many more were rung."""
        self._rung += lines


class Dispatcher:
    """One leader's; a new one begins with nobody ahead and nobody paused.

    pause_s: how long it rests before a `tick`.
    """

    def __init__(self, rt: Runtime) -> None:
        self._rt = rt
        self._calls = TeamTurns()
        self._lines = TeamTurns()
        self._heads = LineHeads(rt.db)
        self._window = LineWindow()
        self._limits = LineLimits(rt.redis)
        self._is_full = False
        self._lines_from = 0.0
        self.pause_s = rt.settings.dispatch_s

    async def tick(self) -> int:
        """Ring what may run now. Returns how many calls and lines."""
        began = clock.monotonic()
        async with self._rt.db.hot_transaction() as tx:
            seen = await dispatching.look(tx, calls=CALLS_WINDOW, lines=MOST_WINDOW)
        self._window.saw(seen.lines_rung)
        calls = await self._ring_calls(CALLS_WINDOW - seen.calls_rung) if seen.calls_wait else 0
        self._is_full = seen.lines_wait and seen.lines_rung >= self._window.size
        lines = await self._ring_lines_apart(self._window.size - seen.lines_rung) if seen.lines_wait else 0
        least_s = self._rt.settings.dispatch_s
        is_busy = calls or lines or self._is_full
        self.pause_s = max(min(BUSY_S, least_s) if is_busy else least_s, RESTS * (clock.monotonic() - began))
        return calls + lines

    async def _ring_calls(self, room: int) -> int:
        total = 0
        for _ in range(MOST_ROUNDS):
            if room <= total:
                break
            async with self._rt.db.hot_transaction() as tx:
                heads = await dispatching.waiting_calls(tx, room=room - total)
            chosen, is_cut = self._calls.choose(queues(heads), room - total)
            rung = await self._mark(chosen)
            self._calls.count(rung)
            self._rt.ring(RunCalls(ids=tuple(call.id for call in rung)))
            total += len(rung)
            if not is_cut:
                break
        return total

    async def _ring_lines_apart(self, room: int) -> int:
        """The same for lines, in whose trouble calls have no part."""
        if clock.monotonic() < self._lines_from:
            return 0
        try:
            return await self._ring_lines(room)
        except Exception as error:
            if not is_down(error):
                raise
            logger.warning("lines_not_dispatched", error=type(error).__name__)
            self._lines_from = clock.monotonic() + LINES_DOWN_S
            return 0

    async def _ring_lines(self, room: int) -> int:
        total = 0
        idle: set[str] = set()
        for _ in range(MOST_ROUNDS):
            if room <= total:
                break
            teams, keys = self._limits.paused()
            paused = self._limits.paused_lines()
            heads = await self._heads.read(room - total, teams=[*teams, *idle], keys=keys, lines=paused)
            self._is_full |= self._heads.waits_for_a_place
            # Who has nothing that may run takes no share of the next look.
            idle |= {head.team_id for head in heads if not head.calls}
            chosen, is_cut = self._lines.choose(queues(heads), room - total)
            admitted = await self._limits.take(chosen)
            rung = await self._mark_taken(admitted)
            self._lines.count(rung)
            self._heads.count(rung)
            self._rt.ring(RunLines(ids=tuple(line.id for line in rung)))
            total += len(rung)
            if not chosen or (not is_cut and len(admitted) == len(chosen)):
                break
        self._window.rang(total)
        return total

    async def _mark_taken(self, admitted: Sequence[Waiting]) -> list[Waiting]:
        """The same for lines; what a limit counted for those that are not rung after all is given back."""
        rung: list[Waiting] = []
        try:
            rung = await self._mark(admitted)
        finally:
            await self._limits.give_back({line.id for line in admitted} - {line.id for line in rung})
        return rung

    async def _mark(self, chosen: Sequence[Waiting]) -> list[Waiting]:
        """Those of these that still waited; they count as rung from now on."""
        if not chosen:
            return []
        async with self._rt.db.hot_transaction() as tx:
            still = await dispatching.mark(tx, chosen)
        return [call for call in chosen if call.id in still]
