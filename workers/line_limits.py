"""Requests and tokens per minute of the teams and keys whose lines are dispatched: taken when a line is rung.

What a limit refuses is looked at again when the limit said so, or a little sooner where it may be wrong by then. A line
that is larger than a limit holds up nobody else: it waits for a minute without use, and after a minute it takes what
is left.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TypeVar
from uuid import UUID

from redis.asyncio import Redis

from shared import clock, limits
from shared.dispatching import Waiting
from shared.errors import Unavailable
from shared.limits import WINDOW_S, Limits, RateLimited, Taken, Window

Who = TypeVar("Who", bound=str | UUID)

REDIS_DOWN_S = 1.0
"""Without Redis nobody can tell whether a limited team has room: its lines wait."""
TOKENS_AGAIN_S = 2.0
"""Tokens come back sooner than a limit can say: a call that ends has mostly used less than was estimated."""


class LineLimits:
    """Who pauses, and until when by this process's clock: teams by their id, keys and lines by theirs."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._paused: dict[str | UUID, float] = {}
        self._lines: dict[UUID, float] = {}
        self._taken: dict[UUID, Taken] = {}

    def paused(self) -> tuple[list[str], list[UUID]]:
        """The teams and the keys that pause now."""
        self._paused = _not_over(self._paused)
        teams = [who for who in self._paused if isinstance(who, str)]
        return teams, [who for who in self._paused if isinstance(who, UUID)]

    def paused_lines(self) -> set[UUID]:
        """The lines that pause now, each by itself."""
        self._lines = _not_over(self._lines)
        return set(self._lines)

    async def take(self, chosen: Sequence[Waiting]) -> list[Waiting]:
        """Count these against their limits; those without room are left out, and who has none pauses."""
        self._taken.clear()
        admitted: set[UUID] = set()
        for _, lines in groupby(sorted(chosen, key=_subject), key=_subject):
            admitted |= await self._take(list(lines))
        return [line for line in chosen if line.id in admitted]

    async def give_back(self, line_ids: Iterable[UUID]) -> None:
        """Lines of the last `take` that were not rung after all."""
        back: dict[tuple[Limits, ...], list[str]] = {}
        for line_id in line_ids:
            if line_id in self._taken:
                back.setdefault(self._taken[line_id].by, []).append(str(line_id))
        for by, ids in back.items():
            await limits.give_back(self._redis, Taken(ids=tuple(ids), by=by))

    async def _take(self, lines: list[Waiting]) -> set[UUID]:
        """Lines of one team and key, in their order, until there is no room; of those too large for a limit one."""
        small, large = [line for line in lines if not _is_large(line)], [line for line in lines if _is_large(line)]
        before = lines.index(large[0]) if large else len(lines)
        admitted: set[UUID] = set()
        try:
            admitted.update(await self._take_fitting(small[:before]))
            if len(admitted) == before and large:
                admitted.update(await self._take_large(large))
                admitted.update(await self._take_fitting(small[before:]))
        except Unavailable:
            self._paused[lines[0].team_id] = clock.monotonic() + REDIS_DOWN_S
        except RateLimited as refused:
            self._pause(lines[0], refused)
        return admitted

    async def _take_fitting(self, lines: list[Waiting]) -> list[UUID]:
        """As many of the first of these as fit. Raises RateLimited when not one does, Unavailable."""
        while lines:
            try:
                return await self._count(lines, [line.tokens for line in lines])
            except RateLimited as refused:
                if len(lines) == 1:
                    raise
                lines = lines[: min(len(lines) - 1, max(1, _fitting(lines, refused.windows)))]
        return []

    async def _take_large(self, lines: list[Waiting]) -> list[UUID]:
        """The first of these: with all of the limit, where nothing is used, and after a minute with what is left of it.

        The others pause, and the first too when it has to wait. Raises RateLimited when nobody has room, Unavailable.
        """
        first = lines[0]
        self._lines |= dict.fromkeys((line.id for line in lines), clock.monotonic() + TOKENS_AGAIN_S)
        try:
            return await self._count([first], [_most_at_once(first)])
        except RateLimited as refused:
            if not refused.window.is_of_tokens:
                raise
            if first.waited_s < WINDOW_S:
                return []
            left = min(window.remaining for window in refused.windows if window.is_of_tokens)
        return await self._count([first], [max(1, left)])

    async def _count(self, lines: Sequence[Waiting], tokens: Sequence[int]) -> list[UUID]:
        asked = [(str(line.id), most) for line, most in zip(lines, tokens, strict=True)]
        taken = await limits.take(self._redis, _limits(lines[0]), requests=asked)
        if taken.by:
            self._taken |= {line.id: taken for line in lines}
        return [line.id for line in lines]

    def _pause(self, line: Waiting, refused: RateLimited) -> None:
        who = line.team_id if refused.window.is_of_team or line.key_id is None else line.key_id
        self._paused[who] = clock.monotonic() + _again_s(refused)


def _not_over(paused: dict[Who, float]) -> dict[Who, float]:
    now = clock.monotonic()
    return {who: until for who, until in paused.items() if until > now}


def _subject(line: Waiting) -> tuple[str, str]:
    return line.team_id, str(line.key_id)


def _limits(line: Waiting) -> list[Limits]:
    """Who is asked for a line."""
    return [
        Limits(team_id=line.team_id, rpm=line.rpm, tpm=line.tpm),
        Limits(team_id=line.team_id, key_id=line.key_id, rpm=line.key_rpm, tpm=line.key_tpm),
    ]


def _most_at_once(line: Waiting) -> int:
    """The most tokens that all limits of a line admit at once, and no more than it has."""
    return min([line.tokens, *(subject.tpm for subject in _limits(line) if subject.tpm)])


def _is_large(line: Waiting) -> bool:
    return _most_at_once(line) < line.tokens


def _again_s(refused: RateLimited) -> float:
    """How long not to ask again."""
    return min(refused.retry_after_s, TOKENS_AGAIN_S) if refused.window.is_of_tokens else refused.retry_after_s


def _fitting(lines: Sequence[Waiting], windows: Sequence[Window]) -> int:
    """How many of the first of these fit into what is left of every window."""
    requests = min((window.remaining for window in windows if not window.is_of_tokens), default=len(lines))
    tokens = min((window.remaining for window in windows if window.is_of_tokens), default=None)
    if tokens is None:
        return requests
    fitting = 0
    for line in lines[:requests]:
        tokens -= line.tokens
        if tokens < 0:
            break
        fitting += 1
    return fitting
