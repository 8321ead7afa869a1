"""A team's place in the queue: how many of its calls may wait, and which new ones are rung at once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from shared import clock, waiting_calls
from shared.db import Tx
from shared.errors import TooManyRequests
from shared.new_calls import NewCall

RUNG_DIRECTLY = 64
"""A team's first unfinished calls are rung at once; the rest wait for the dispatcher: no team fills the queue."""

MAX_QUEUED_CALLS = 100_000
"""The limit of a team that has none of its own."""

COUNTED_EXACTLY = 1000
"""Limits up to this are counted behind a lock on the team; larger ones are looked at once a second."""

DEPTH_S = 1.0
UNFINISHED_S = 5.0
"""Longer, since it only spares a count: RUNG_DIRECTLY calls at most are rung on one count of a process."""


class Submitted(Protocol):
    """What intake was given: new calls, and the limits of their team as its key knew them."""

    @property
    def team_id(self) -> str: ...
    @property
    def calls(self) -> Sequence[NewCall]: ...
    @property
    def max_parallel_calls(self) -> int | None: ...
    @property
    def max_queued_calls(self) -> int | None: ...


class _Counts:
    """Counts of calls by team; one serves for `serves_s`, with what this process accepted since."""

    def __init__(self, serves_s: float) -> None:
        self._serves_s = serves_s
        self._counted: dict[str, tuple[float, int]] = {}

    def known(self) -> dict[str, int]:
        """The counts that are not too old."""
        fresh = clock.monotonic() - self._serves_s
        self._counted = {team: counted for team, counted in self._counted.items() if counted[0] > fresh}
        return {team: calls for team, (_, calls) in self._counted.items()}

    def keep(self, counted: Mapping[str, int]) -> None:
        """These were counted now."""
        at = clock.monotonic()
        self._counted |= {team: (at, calls) for team, calls in counted.items()}

    def grow(self, team_id: str, calls: int) -> None:
        """So many more were accepted."""
        if team_id in self._counted:
            at, counted = self._counted[team_id]
            self._counted[team_id] = at, counted + calls


class Depths:
    """What this process knows of the queues: calls that wait in deep ones, and calls that have not ended."""

    def __init__(self) -> None:
        self.waiting = _Counts(DEPTH_S)
        self.unfinished = _Counts(UNFINISHED_S)

    def grow(self, team_id: str, calls: int) -> None:
        """So many more were accepted."""
        self.waiting.grow(team_id, calls)
        self.unfinished.grow(team_id, calls)


@dataclass(kw_only=True)
class TeamQueue:
    """One team while a group is accepted. unfinished: counted up to RUNG_DIRECTLY; most None: far from full."""

    unfinished: int
    directly: int
    waiting: int = 0
    most: int | None = None


@dataclass(kw_only=True)
class Queues:
    """The teams of one group."""

    teams: dict[str, TeamQueue] = field(default_factory=dict)
    depths: Depths = field(default_factory=Depths)

    def check(self, team_id: str, new: int) -> None:
        """Raises TooManyRequests when so many new calls are more than may wait."""
        team = self.teams.get(team_id)
        if new and team is not None and team.most is not None and team.waiting + new > team.most:
            raise TooManyRequests("Queue limit exceeded", retry_after_s=1 if team.most <= COUNTED_EXACTLY else 5)

    def add(self, team_id: str, new: int) -> None:
        """So many were accepted."""
        if new:
            self.teams[team_id].waiting += new
            self.depths.grow(team_id, new)

    def rung(self, new: Iterable[NewCall]) -> list[UUID]:
        """Those of the accepted calls that are rung at once."""
        chosen = []
        for call in new:
            team = self.teams[call.team_id]
            if team.unfinished < team.directly:
                chosen.append(call.id)
            team.unfinished += 1
        return chosen


async def look(tx: Tx, submissions: Iterable[Submitted], depths: Depths) -> Queues:
    """Count the queues these submissions go to; locks teams, so it comes after jobs and before calls and accounts."""
    of_team: dict[str, Submitted] = {}
    new: dict[str, int] = {}
    for submission in submissions:
        if submission.calls:
            of_team[submission.team_id] = submission
            new[submission.team_id] = new.get(submission.team_id, 0) + len(submission.calls)
    if not of_team:
        return Queues(depths=depths)
    directly = {team_id: _directly(s) for team_id, s in of_team.items()}
    exact = await waiting_calls.lock_queues(
        tx, (team_id for team_id, s in of_team.items() if _most(s) <= COUNTED_EXACTLY)
    )
    # What is known serves while all of these are rung with it: a count that is too high makes no call wait.
    known = {t: calls for t, calls in depths.unfinished.known().items() if t in new and calls + new[t] <= directly[t]}
    unfinished = await waiting_calls.unfinished_of_teams(
        tx, (team_id for team_id in of_team if team_id not in known), most=RUNG_DIRECTLY
    )
    depths.unfinished.keep(unfinished)
    unfinished |= known
    deep = {team_id: _most(s) for team_id, s in of_team.items() if unfinished[team_id] >= RUNG_DIRECTLY} | exact
    waiting = {team_id: calls for team_id, calls in depths.waiting.known().items() if team_id not in exact}
    counted = await waiting_calls.waiting_of_teams(tx, {t: most + 1 for t, most in deep.items() if t not in waiting})
    depths.waiting.keep({team_id: calls for team_id, calls in counted.items() if team_id not in exact})
    waiting |= counted
    queues = {
        team_id: TeamQueue(
            unfinished=unfinished[team_id],
            directly=directly[team_id],
            waiting=waiting.get(team_id, 0),
            most=deep.get(team_id),
        )
        for team_id in of_team
    }
    return Queues(teams=queues, depths=depths)


def _most(submission: Submitted) -> int:
    return MAX_QUEUED_CALLS if submission.max_queued_calls is None else submission.max_queued_calls


def _directly(submission: Submitted) -> int:
    most = submission.max_parallel_calls
    return RUNG_DIRECTLY if most is None else min(RUNG_DIRECTLY, most)
