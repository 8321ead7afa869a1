"""Whose turn it is: weighted deficit round robin over teams by estimated tokens, at its finest, a token at a time.

A team stands where the tokens it was given have brought it, each counted as 1 / weight; whoever stands furthest back is
next. Nobody stands behind the front, where the last one started: a team that had nothing to run, or was held by a limit
of its own, begins there and has nothing to catch up.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """A call that waits for its team's turn. tokens: estimated, prompt and answer, at least 1."""

    id: UUID
    team_id: str
    weight: int
    tokens: int


Call = TypeVar("Call", bound=Turn)


@dataclass(frozen=True, kw_only=True)
class Queue(Generic[Call]):
    """A team's calls in its own order. is_cut: there are more of them, not read yet."""

    turns: Sequence[Call]
    is_cut: bool = False


class TeamTurns:
    """Where the teams stand, in the memory of the one process that dispatches.

    `choose` looks, `count` moves the teams whose calls were rung: what is chosen and then refused costs nothing.
    """

    def __init__(self) -> None:
        self._front = 0.0
        self._stands: dict[str, float] = {}

    def choose(self, queues: Mapping[str, Queue[Call]], room: int) -> tuple[list[Call], bool]:
        """Up to `room` calls in the order of their turns, and whether it stopped at a team whose queue was cut."""
        chosen: list[Call] = []
        heap = [(self._start(team), n, 0, queue) for n, (team, queue) in enumerate(queues.items()) if queue.turns]
        heapq.heapify(heap)
        while heap and len(chosen) < room:
            start, n, place, queue = heap[0]
            if place == len(queue.turns):
                return chosen, True
            turn = queue.turns[place]
            chosen.append(turn)
            if place + 1 < len(queue.turns) or queue.is_cut:
                heapq.heapreplace(heap, (start + turn.tokens / turn.weight, n, place + 1, queue))
            else:
                heapq.heappop(heap)
        return chosen, False

    def count(self, rung: Iterable[Turn]) -> None:
        """These had their turns, in the order they were chosen in."""
        for turn in rung:
            self._front = self._start(turn.team_id)
            self._stands[turn.team_id] = self._front + turn.tokens / turn.weight
        self._stands = {team: stands for team, stands in self._stands.items() if stands > self._front}

    def _start(self, team_id: str) -> float:
        return max(self._stands.get(team_id, 0.0), self._front)
