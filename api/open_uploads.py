"""How many bodies each team sends this process as files right now: each keeps up to 1 MiB in memory meanwhile."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from shared.errors import TooManyRequests

MOST_AT_ONCE = 16
"""Of a team, in this process."""
AGAIN_S = 5


class TooManyUploads(TooManyRequests):
    """The team is sending as many files as it may at a time."""

    def __init__(self) -> None:
        super().__init__(f"At most {MOST_AT_ONCE} uploads at a time: wait for one to end", retry_after_s=AGAIN_S)


class OpenUploads:
    """One in each process."""

    def __init__(self) -> None:
        self._of_team: Counter[str] = Counter()

    @contextmanager
    def one(self, team_id: str) -> Iterator[None]:
        """Around the receiving of one body. Raises TooManyUploads."""
        if self._of_team[team_id] >= MOST_AT_ONCE:
            raise TooManyUploads
        self._of_team[team_id] += 1
        try:
            yield
        finally:
            self._of_team[team_id] -= 1
            if not self._of_team[team_id]:
                del self._of_team[team_id]
