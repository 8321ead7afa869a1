"""The routes decided within the last second: most calls ask for what the call before them asked for."""

import time
from typing import NamedTuple

from shared.keys import Key
from shared.models import Route

KEEP_S = 0.9
"""A change of models, groups or credentials is in effect within a second."""
MOST = 10_000


class Question(NamedTuple):
    """What decides a route: the team, the name it asks for (None: its default), the names its key is narrowed to."""

    team_id: str
    name: str | None
    only: tuple[str, ...] | None


def question(key: Key, asked: str | None) -> Question:
    """What has to be decided for a call that asks for this name, which may be one of the key's own (`aliases`).

    A key that is narrowed to a name of its own may use what that stands for.
    """
    name = None if asked is None else key.aliases.get(asked, asked)
    only = tuple(key.models) if key.models else None
    if only is not None and name is not None and name != asked and asked in only:
        only = (*only, name)
    return Question(key.team_id, name, only)


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
