"""Turns: teams one after the other, and within a team its queues; nobody's many queues come before another's one."""

from collections import OrderedDict
from collections.abc import Callable
from uuid import UUID


class QueueTurns:
    """Queues that may have something to send. A queue is in it once."""

    def __init__(self) -> None:
        self._teams: OrderedDict[str, OrderedDict[UUID, None]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._teams)

    def add(self, team_id: str, queue_id: UUID) -> None:
        """Put a queue at the end of its team's; it keeps the place it has."""
        self._teams.setdefault(team_id, OrderedDict()).setdefault(queue_id)

    def next(self, may: Callable[[str], bool] = lambda _: True) -> UUID | None:
        """Take the queue whose turn it is. A team that may not (`may` is given its id) keeps its place."""
        team_id = next((team_id for team_id in self._teams if may(team_id)), None)
        if team_id is None:
            return None
        queues = self._teams.pop(team_id)
        queue_id, _ = queues.popitem(last=False)
        if queues:
            self._teams[team_id] = queues
        return queue_id
