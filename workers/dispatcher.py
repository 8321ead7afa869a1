"""The dispatcher: rings waiting calls and the lines of batches, team by team, as workers take what was rung.

look ─► read the heads ─► choose by turns ─► take rate limits ─► mark ─► ring        calls first, then lines

It runs in the one timer that leads and keeps in memory only what may be lost: whose turn it is and who is held. A crash
between two steps loses nothing: what is marked and not rung is a lost bell, what a limit counted leaves it in a minute.
"""

import math
from collections.abc import Mapping, Sequence
from uuid import UUID

from shared import clock, dispatching, provider_slowdowns
from shared.dispatching import Flow, Waiting, queues
from shared.messages import RunCalls, RunLines
from shared.runtime import Runtime
from shared.turns import Turns
from workers.line_limits import LineLimits

CALLS_WINDOW = 256
"""Rung calls that may wait for a worker; the rest stays in Postgres, where teams take turns."""
LEAST_WINDOW, MOST_WINDOW = 32, 1024
"""The same for lines: as many as were claimed lately in WINDOW_S, so that who comes next waits for seconds at most."""
WINDOW_S = 0.5
BUSY_S = 0.05
"""How soon it looks again while there is work to ring."""
MOST_ROUNDS = 8
RESTS = 1
"""It rests for at least so many times as long as its last look took."""


class LineWindow:
    """How many lines may be rung and not claimed, from how fast they are claimed."""

    def __init__(self) -> None:
        self.size = LEAST_WINDOW
        self._rung = 0
        self._at = clock.monotonic()

    def saw(self, rung: int) -> None:
        """So many of what was rung at the end of the last look are not claimed yet."""
        now = clock.monotonic()
        since_s = max(now - self._at, 0.001)
        # Twice what was claimed since the last look, at least: who claims all that is rung finds more the next time.
        claimed = max(0, self._rung - rung) * max(WINDOW_S / since_s, 2)
        self.size = max(LEAST_WINDOW, min(MOST_WINDOW, math.ceil(max(claimed, self.size * 0.8))))
        self._rung, self._at = rung, now

    def rang(self, lines: int) -> None:
        """So many more were rung."""
        self._rung += lines


class Dispatcher:
    """One leader's; a new one begins with nobody ahead and nobody held. pause_s: how long it rests before a `tick`."""

    def __init__(self, rt: Runtime) -> None:
        self._rt = rt
        self._calls = Turns()
        self._lines = Turns()
        self._slowed: dict[str, Turns] = {}
        self._window = LineWindow()
        self._limits = LineLimits(rt.redis)
        self._is_full = False
        self.pause_s = rt.settings.dispatch_s

    async def tick(self) -> int:
        """Ring what may run now. Returns how many calls and lines."""
        began = clock.monotonic()
        async with self._rt.db.hot_statement() as tx:
            seen = await dispatching.look(tx, calls=CALLS_WINDOW, lines=MOST_WINDOW)
        self._window.saw(seen.lines_rung)
        calls = await self._ring_calls(CALLS_WINDOW - seen.calls_rung) if seen.calls_wait else 0
        self._is_full = seen.lines_wait and seen.lines_rung >= self._window.size
        lines = await self._ring_lines(self._window.size - seen.lines_rung) if seen.lines_wait else 0
        least_s = self._rt.settings.dispatch_s
        is_busy = calls or lines or self._is_full
        self.pause_s = max(min(BUSY_S, least_s) if is_busy else least_s, RESTS * (clock.monotonic() - began))
        return calls + lines

    async def _ring_calls(self, room: int) -> int:
        total = 0
        for _ in range(MOST_ROUNDS):
            if room <= total:
                break
            async with self._rt.db.hot_statement() as tx:
                flows = await dispatching.waiting_calls(tx, room=room - total)
            chosen, is_cut = self._calls.choose(queues(flows), room - total)
            rung = await self._marked(chosen)
            self._calls.charge(rung)
            self._rt.ring(RunCalls(ids=tuple(call.id for call in rung)))
            total += len(rung)
            if not is_cut:
                break
        return total

    async def _ring_lines(self, room: int) -> int:
        total = 0
        for _ in range(MOST_ROUNDS):
            if room <= total:
                break
            flows, rooms = await self._read_lines(room - total)
            chosen, is_cut = self._lines.choose(queues(self._offered(flows, rooms)), room - total)
            admitted = await self._limits.take(chosen)
            rung = await self._marked(admitted)
            await self._limits.give_back({line.id for line in admitted} - {line.id for line in rung})
            self._charge_lines(rung)
            self._rt.ring(RunLines(ids=tuple(line.id for line in rung)))
            total += len(rung)
            if not is_cut and len(admitted) == len(chosen):
                break
        self._window.rang(total)
        return total

    async def _read_lines(self, room: int) -> tuple[list[Flow], dict[str, int]]:
        """Lines that may be rung, and how many more each provider takes that was slowed and is not paused any more."""
        teams, keys = self._limits.held()
        async with self._rt.db.hot_statement() as tx:
            slowed = await provider_slowdowns.known(tx)
            may_run = {slow.scope: slow.may_run for slow in slowed if not slow.is_paused}
            running = await provider_slowdowns.running(tx, may_run)
            rooms = {scope: most - running.get(scope, 0) for scope, most in may_run.items()}
            closed = [slow.scope for slow in slowed if rooms.get(slow.scope, 0) <= 0]
            flows = await dispatching.waiting_lines(tx, room=room, teams=teams, keys=keys, scopes=closed)
        self._slowed = {slow.scope: self._slowed.get(slow.scope) or Turns() for slow in slowed}
        # What waits for a place, and not for a moment that is known, is looked at again soon.
        self._is_full |= any(flow.room == 0 for flow in flows) or any(room <= 0 for room in rooms.values())
        return flows, rooms

    def _offered(self, flows: Sequence[Flow], rooms: Mapping[str, int]) -> list[Flow]:
        """The flows, those at a slowed provider cut to what has a place there: its teams take turns for it first."""
        placed: set[UUID] = set()
        for scope, room in rooms.items():
            there = queues([flow for flow in flows if flow.scope == scope])
            placed.update(line.id for line in self._slowed[scope].choose(there, max(0, room))[0])
        return [flow.only(placed) if flow.scope in rooms else flow for flow in flows]

    async def _marked(self, chosen: Sequence[Waiting]) -> list[Waiting]:
        if not chosen:
            return []
        async with self._rt.db.hot_statement() as tx:
            still = await dispatching.mark(tx, chosen)
        return [call for call in chosen if call.id in still]

    def _charge_lines(self, rung: Sequence[Waiting]) -> None:
        self._lines.charge(rung)
        for scope, turns in self._slowed.items():
            turns.charge(line for line in rung if line.scope == scope)
