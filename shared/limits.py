"""Request and token limits of teams and keys: exact over all processes, in Redis, closed when Redis is not there.

take ──► hold refused? ──► give_back        call ends ──► settle_tokens
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from shared import log, redis_keys
from shared.errors import TooManyRequests, Unavailable

logger = log.get(__name__)

WINDOW_S = 60
US = 1_000_000
SCRIPT = (Path(__file__).parent / "lua" / "limits.lua").read_text(encoding="utf-8")
SCRIPT_SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
RedisTrouble = (RedisError, OSError, TimeoutError)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a team (no key_id), or one of its keys, may do in any 60 s: None is no limit, 0 denies."""

    team_id: str
    key_id: UUID | None = None
    rpm: int | None
    tpm: int | None

    @property
    def is_set(self) -> bool:
        """Whether there is anything to count."""
        return self.rpm is not None or self.tpm is not None

    @property
    def keys(self) -> list[str]:
        """The Redis keys of its logs, in the script's order."""
        made = (redis_keys.request_log, redis_keys.token_log, redis_keys.tokens_taken)
        return [key(self.team_id, self.key_id) for key in made]


def subjects(
    team_id: str,
    key_id: UUID | None,
    *,
    rpm: int | None = None,
    tpm: int | None = None,
    key_rpm: int | None = None,
    key_tpm: int | None = None,
) -> tuple[Limits, ...]:
    """Whose limits count for a request of this key (None: of no key): the team's, and those of the key itself."""
    team = Limits(team_id=team_id, rpm=rpm, tpm=tpm)
    return (team,) if key_id is None else (team, Limits(team_id=team_id, key_id=key_id, rpm=key_rpm, tpm=key_tpm))


NOBODY = Limits(team_id="?", rpm=US, tpm=None)
"""No team has this id."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """One limit as it stands: what is left of it, and when some of what was used comes back."""

    name: str
    limit: int
    remaining: int
    reset_in_s: int
    reset_at_s: int

    @property
    def is_of_tokens(self) -> bool:
        """Whether it limits tokens; else requests."""
        return self.name.endswith("-tpm")

    @property
    def is_of_team(self) -> bool:
        """Whether it is the team's; else its key's."""
        return self.name.startswith("team")

    @property
    def policy(self) -> str:
        """Its item of `RateLimit-Policy`."""
        unit = ';qu="tokens"' if self.is_of_tokens else ""
        return f'"{self.name}";q={self.limit};w={WINDOW_S}{unit}'

    @property
    def state(self) -> str:
        """Its item of `RateLimit`."""
        return f'"{self.name}";r={self.remaining};t={self.reset_in_s}'


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What was counted, and by whom; `headers` belong on the answer. Nothing is set for a caller without limits."""

    ids: tuple[str, ...]
    by: tuple[Limits, ...] = ()
    windows: tuple[Window, ...] = ()

    @property
    def headers(self) -> dict[str, str]:
        """`X-RateLimit-*` (the tightest limit on requests), `RateLimit-Policy` (all) and `RateLimit` (the tightest)."""
        return headers_of(self.windows)


class RateLimited(TooManyRequests):
    """One of the team's limits, or of its key's, has no room. window: that one; windows: all, as they stand."""

    def __init__(
        self,
        team_id: str,
        window: Window,
        windows: Sequence[Window],
        *,
        retry_after_s: int,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__("Rate limit exceeded", retry_after_s=retry_after_s, headers=headers)
        self.team_id = team_id
        self.window = window
        self.windows = windows
        self.retry_after_s = max(1, retry_after_s)


async def take(redis: Redis, subjects: Sequence[Limits], *, requests: Sequence[tuple[str, int]]) -> Taken:
    """Count these requests (a fresh id and its estimated tokens, each) against all limits: all, or none.

    Raises RateLimited when one limit has no room, Unavailable when Redis cannot tell; after the latter the
    requests may have been counted, for a minute. Without limits it never waits for Redis. All subjects are of one team.
    """
    ids, limited = tuple(id_ for id_, _ in requests), tuple(subject for subject in subjects if subject.is_set)
    if not limited:
        return Taken(ids=ids)
    bounds = [-1 if limit is None else limit for subject in limited for limit in (subject.rpm, subject.tpm)]
    asked = [part for id_, tokens in requests for part in (id_, max(0, tokens))]
    try:
        by, wait_us, now_us, *counted = await _run(redis, limited, "take", *bounds, *asked)
    except RedisTrouble as error:
        logger.warning("limits_unavailable", error=type(error).__name__)
        raise Unavailable from error
    windows = _windows(limited, now_us, counted)
    if by:
        raise _refusal(limited[(by - 1) // 2], by % 2 == 0, wait_us, windows)
    return Taken(ids=ids, by=limited, windows=windows)


async def give_back(redis: Redis, taken: Taken) -> tuple[Window, ...]:
    """Uncount what a later check refused; returns the limits as they stand without it.

    A repeat changes nothing. With Redis down it is logged, what was counted expires, and nothing is returned.
    """
    answer = await _try(redis, taken.by, "give_back", *taken.ids) if taken.by else None
    if answer is None:
        return ()
    _, now_us, *counted = answer
    return _windows(taken.by, now_us, counted)


async def settle_tokens(redis: Redis, subjects: Sequence[Limits], id_: str, actual_tokens: int) -> None:
    """Put what a call really used in place of its estimate, still at the time it was taken.

    Changes nothing once the id has left the window, or was never counted; never raises for Redis, and asks it only
    when one of the subjects limits tokens.
    """
    limited = [subject for subject in subjects if subject.tpm is not None]
    if limited:
        await _try(redis, limited, "settle", id_, max(0, actual_tokens))


async def free_tokens(redis: Redis, *, team_id: str, key_id: UUID | None, ids: Sequence[str]) -> None:
    """Calls of this team and key ended before they ran: no token of what was reserved for them was used.

    For callers that do not know whether there is a limit. Never raises for Redis.
    """
    await _try(redis, subjects(team_id, key_id), "settle", *(part for id_ in ids for part in (id_, 0)))


async def is_active(redis: Redis) -> bool:
    """Whether limits can be checked: the script runs, and Redis takes its writes."""
    try:
        await take(redis, [NOBODY], requests=[("check", 0)])
    except Unavailable:
        return False
    return True


async def _try(redis: Redis, subjects: Sequence[Limits], operation: str, *arguments: str | int) -> Sequence[int] | None:
    try:
        return await _run(redis, subjects, operation, *arguments)
    except RedisTrouble as error:
        logger.warning("limits_not_corrected", operation=operation, error=type(error).__name__)
        return None


async def _run(redis: Redis, subjects: Sequence[Limits], operation: str, *arguments: str | int) -> list[int]:
    keys = [key for subject in subjects for key in subject.keys]
    given = (len(keys), *keys, operation, WINDOW_S * US, *arguments)
    try:
        answer: list[int] = await redis.execute_command("EVALSHA", SCRIPT_SHA, *given)
    except NoScriptError:
        answer = await redis.execute_command("EVAL", SCRIPT, *given)
    return answer


def _windows(limited: Sequence[Limits], now_us: int, counted: Sequence[int]) -> tuple[Window, ...]:
    found = []
    for n, subject in enumerate(limited):
        requests, first_leaves_us, tokens, tokens_leave_us = counted[4 * n : 4 * n + 4]
        if subject.rpm is not None:
            found.append(_window(_name(subject, tokens=False), subject.rpm, now_us, requests, first_leaves_us))
        if subject.tpm is not None:
            found.append(_window(_name(subject, tokens=True), subject.tpm, now_us, tokens, tokens_leave_us))
    return tuple(found)


def _window(name: str, limit: int, now_us: int, used: int, oldest_leaves_us: int) -> Window:
    return Window(
        name=name,
        limit=limit,
        remaining=max(0, limit - used),
        reset_in_s=math.ceil((oldest_leaves_us - now_us) / US),
        reset_at_s=math.ceil(oldest_leaves_us / US),
    )


def _name(subject: Limits, *, tokens: bool) -> str:
    return f"{'team' if subject.key_id is None else 'key'}-{'tpm' if tokens else 'rpm'}"


def _refusal(subject: Limits, of_tokens: bool, wait_us: int, windows: Sequence[Window]) -> RateLimited:
    name = _name(subject, tokens=of_tokens)
    refusing = next(window for window in windows if window.name == name)
    kind = "tokens" if of_tokens else "requests"
    headers = {"rate_limit_type": kind, **headers_of(windows), "RateLimit": refusing.state}
    return RateLimited(subject.team_id, refusing, windows, retry_after_s=math.ceil(wait_us / US), headers=headers)


def headers_of(windows: Sequence[Window]) -> dict[str, str]:
    """The headers that tell of these limits; none without a limit."""
    if not windows:
        return {}
    of_requests = [window for window in windows if not window.is_of_tokens]
    tightest = min(of_requests or windows, key=lambda window: (window.remaining, -window.reset_in_s))
    found = {"RateLimit-Policy": ", ".join(window.policy for window in windows), "RateLimit": tightest.state}
    if of_requests:
        found["X-RateLimit-Limit"] = str(tightest.limit)
        found["X-RateLimit-Remaining"] = str(tightest.remaining)
        found["X-RateLimit-Reset"] = str(tightest.reset_at_s)
    return found
