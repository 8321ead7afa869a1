"""Requests and tokens per minute of the teams and keys whose lines are dispatched: taken when a line is rung.

What a limit refuses is held until the moment the limit named, and nobody looks at it before.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from uuid import UUID

from redis.asyncio import Redis

from shared import clock, limits
from shared.dispatching import Waiting
from shared.errors import Unavailable
from shared.limits import Limits, RateLimited, Taken, Window

REDIS_DOWN_S = 1.0
"""Without Redis nobody can tell whether a limited team has room: its lines wait."""


class LineLimits:
    """Who is held, and until when by this process's clock: teams by their id, keys by theirs."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._held: dict[str | UUID, float] = {}
        self._taken: dict[UUID, Taken] = {}

    def held(self) -> tuple[list[str], list[UUID]]:
        """The teams and the keys that are held now."""
        now = clock.monotonic()
        self._held = {who: until for who, until in self._held.items() if until > now}
        return [who for who in self._held if isinstance(who, str)], [who for who in self._held if isinstance(who, UUID)]

    async def take(self, chosen: Sequence[Waiting]) -> list[Waiting]:
        """Count these against their limits; those without room are left out, and who has none is held."""
        self._taken.clear()
        admitted: set[UUID] = set()
        for _, lines in groupby(sorted(chosen, key=_subject), key=_subject):
            admitted |= await self._take(list(lines))
        return [line for line in chosen if line.id in admitted]

    async def give_back(self, line_ids: Iterable[UUID]) -> None:
        """Lines of the last `take` that were not rung after all."""
        for line_id in line_ids:
            taken = self._taken.get(line_id)
            if taken is not None:
                await limits.give_back(self._redis, Taken(ids=(str(line_id),), by=taken.by))

    async def _take(self, lines: list[Waiting]) -> set[UUID]:
        """Lines of one team and key: all, or as many as fit. A line larger than a limit takes all of that limit."""
        subjects, most = _limits(lines[0])
        while lines:
            asked = [(str(line.id), line.tokens if most is None else min(line.tokens, most)) for line in lines]
            try:
                taken = await limits.take(self._redis, subjects, requests=asked)
            except RateLimited as refused:
                if len(lines) == 1:
                    self._hold(lines[0], refused.window, refused.retry_after_s)
                lines = lines[: min(len(lines) - 1, max(1, _fitting(asked, refused.windows)))]
            except Unavailable:
                self._held[lines[0].team_id] = clock.monotonic() + REDIS_DOWN_S
                return set()
            else:
                self._taken |= {line.id: taken for line in lines if taken.by}
                return {line.id for line in lines}
        return set()

    def _hold(self, line: Waiting, window: Window, seconds: float) -> None:
        who = line.team_id if window.is_of_team or line.key_id is None else line.key_id
        self._held[who] = clock.monotonic() + seconds


def _subject(line: Waiting) -> tuple[str, str]:
    return line.team_id, str(line.key_id)


def _limits(line: Waiting) -> tuple[list[Limits], int | None]:
    """Who is asked for a line, and the most tokens that any of them admits at once."""
    subjects = [
        Limits(team_id=line.team_id, rpm=line.rpm, tpm=line.tpm),
        Limits(team_id=line.team_id, key_id=line.key_id, rpm=line.key_rpm, tpm=line.key_tpm),
    ]
    bounds = [subject.tpm for subject in subjects if subject.tpm]
    return subjects, min(bounds, default=None)


def _fitting(asked: Sequence[tuple[str, int]], windows: Sequence[Window]) -> int:
    """How many of the first of these fit into what is left of every window."""
    requests = min((window.remaining for window in windows if not window.is_of_tokens), default=len(asked))
    tokens = min((window.remaining for window in windows if window.is_of_tokens), default=None)
    if tokens is None:
        return requests
    fitting = 0
    for _, wanted in asked[:requests]:
        tokens -= wanted
        if tokens < 0:
            break
        fitting += 1
    return fitting
