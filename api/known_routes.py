"""The routes decided within the last second: most calls ask for what the call before them asked for."""

import time

from shared.models import Route
from shared.routing import Question

KEEP_S = 0.9
"""A change of models, groups or credentials is in effect within a second."""
MOST = 10_000


class KnownRoutes:
    """Of one process; refusals are not kept, so that what an admin has just allowed works at once."""

    def __init__(self) -> None:
        self._found: dict[Question, tuple[float, Route]] = {}

    def get(self, question: Question) -> Route | None:
        """The route, if it is still known."""
        found = self._found.get(question)
        return found[1] if found is not None and time.monotonic() < found[0] else None

    def keep(self, question: Question, route: Route, *, read_at: float) -> None:
        """Know it for a while. read_at: `time.monotonic()` before the database was asked."""
        if len(self._found) >= MOST:
            self._found.clear()
        self._found[question] = (read_at + KEEP_S, route)
