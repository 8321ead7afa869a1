"""A unit's room for deliveries, and who may have how much of it.

all of it          queues whose attempts were quick lately
three quarters     slow queues and those new to this unit (none of their attempts has ended here)
half               the slow ones
a quarter, or 50   a team
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self
from uuid import UUID


class Pace(StrEnum):
    """How long a queue's attempts take; NEW: none has ended here yet."""

    QUICK = "quick"
    NEW = "new"
    SLOW = "slow"


@dataclass(slots=True)
class KnownQueue:
    """A queue as this unit knows it. waits: it may have more, to be looked at when one of its attempts ends.

    ended: how many of its attempts have, so far.
    alarm: when it is looked at again by itself; one at a time, however often it is rung meanwhile.
    """

    id: UUID
    team_id: str
    pace: Pace = Pace.NEW
    typical_s: float = 0.0
    in_flight: int = 0
    ended: int = 0
    waits: bool = False
    alarm: asyncio.TimerHandle | None = None


TEAM_LEAST = 50
"""So many a team may have even of a small room."""


@dataclass
class Room:
    """Attempts under way, by pace and team; `limit` at most."""

    limit: int
    by_pace: Counter[Pace] = field(default_factory=Counter)
    by_team: Counter[str] = field(default_factory=Counter)

    def copy(self) -> Self:
        """To reckon with."""
        return type(self)(self.limit, self.by_pace.copy(), self.by_team.copy())

    def free(self, pace: Pace) -> int:
        """How many more attempts of queues of this pace may be under way."""
        quick, new, slow = (self.by_pace[each] for each in (Pace.QUICK, Pace.NEW, Pace.SLOW))
        room = self.limit - quick - new - slow
        if pace != Pace.QUICK:
            room = min(room, self.limit - self.limit // 4 - new - slow)
        if pace == Pace.SLOW:
            room = min(room, self.limit // 2 - slow)
        return max(0, room)

    def free_of(self, team_id: str) -> int:
        """How many more a team may have under way."""
        return max(0, max(TEAM_LEAST, self.limit // 4) - self.by_team[team_id])

    def take(self, queue: KnownQueue, count: int) -> None:
        """So many more of this queue are under way; fewer when it is negative."""
        self.by_pace[queue.pace] += count
        self.by_team[queue.team_id] += count
        if not self.by_team[queue.team_id]:
            del self.by_team[queue.team_id]

    def mark(self, queue: KnownQueue, pace: Pace) -> None:
        """A queue turns out to be quick or slow, with all of it that is under way."""
        self.by_pace[queue.pace] -= queue.in_flight
        queue.pace = pace
        self.by_pace[pace] += queue.in_flight
