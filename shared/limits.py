"""Request and token limits of a team: exact over all processes, in Redis, closed when Redis is not there.

take ──► hold refused? ──► give_back        call ends ──► settle_tokens
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from shared import log, redis_keys
from shared.errors import TooManyRequests, Unavailable

logger = log.get(__name__)

WINDOW_S = 60
US = 1_000_000
SCRIPT = (Path(__file__).parent / "lua" / "limits.lua").read_text(encoding="utf-8")
REFUSED_BY = ("", "requests", "tokens")
RedisTrouble = (RedisError, OSError, TimeoutError)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a team may do in any 60 s: None is no limit, 0 denies."""

    team_id: str
    rpm: int | None
    tpm: int | None


@dataclass(frozen=True, kw_only=True)
class Window:
    """One limit as it stands: what is left of it, and when some of what was used comes back."""

    name: str
    limit: int
    remaining: int
    reset_in_s: int
    reset_at_s: int

    @property
    def policy(self) -> str:
        unit = ';qu="tokens"' if self.name == "team-tpm" else ""
        return f'"{self.name}";q={self.limit};w={WINDOW_S}{unit}'

    @property
    def state(self) -> str:
        return f'"{self.name}";r={self.remaining};t={self.reset_in_s}'


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What was counted; `headers` belong on the answer. Both windows are None for a team without limits."""

    team_id: str
    ids: tuple[str, ...]
    requests: Window | None = None
    tokens: Window | None = None

    @property
    def headers(self) -> dict[str, str]:
        """`X-RateLimit-*` (requests only), `RateLimit-Policy` (each limit) and `RateLimit` (requests, else tokens)."""
        return _headers(self.requests, self.tokens)


async def take(redis: Redis, limits: Limits, *, requests: Sequence[tuple[str, int]]) -> Taken:
    """Count these requests (a fresh id and its estimated tokens, each) against both limits: all, or none.

    Raises TooManyRequests when one limit has no room, Unavailable when Redis cannot tell; after the latter the
    requests may have been counted, for a minute. A team without limits never waits for Redis.
    """
    ids = tuple(id_ for id_, _ in requests)
    if limits.rpm is None and limits.tpm is None:
        return Taken(team_id=limits.team_id, ids=ids)
    asked = [part for id_, tokens in requests for part in (id_, max(0, tokens))]
    bounds = [-1 if limit is None else limit for limit in (limits.rpm, limits.tpm)]
    try:
        by, wait_us, now_us, *counted = await _run(redis, limits.team_id, "take", *bounds, *asked)
    except RedisTrouble as error:
        logger.warning("limits_unavailable", error=type(error).__name__)
        raise Unavailable from error
    of_requests = _window("team-rpm", limits.rpm, now_us, *counted[:2])
    of_tokens = _window("team-tpm", limits.tpm, now_us, *counted[2:])
    if by:
        _refuse(REFUSED_BY[by], wait_us, of_requests, of_tokens)
    return Taken(team_id=limits.team_id, ids=ids, requests=of_requests, tokens=of_tokens)


async def give_back(redis: Redis, taken: Taken) -> None:
    """Uncount what a later check refused. A repeat changes nothing; with Redis down it is logged and expires."""
    if taken.requests or taken.tokens:
        await _try(redis, taken.team_id, "give_back", *taken.ids)


async def settle_tokens(redis: Redis, team_id: str, id_: str, actual_tokens: int) -> None:
    """Put what a call really used in place of its estimate, still at the time it was taken.

    Changes nothing once the id has left the window, or was never counted; never raises for Redis.
    """
    await _try(redis, team_id, "settle", id_, max(0, actual_tokens))


async def _try(redis: Redis, team_id: str, operation: str, *arguments: str | int) -> None:
    try:
        await _run(redis, team_id, operation, *arguments)
    except RedisTrouble as error:
        logger.warning("limits_not_corrected", operation=operation, error=type(error).__name__)


async def _run(redis: Redis, team_id: str, operation: str, *arguments: str | int) -> list[int]:
    keys = [redis_keys.request_log(team_id), redis_keys.token_log(team_id), redis_keys.tokens_taken(team_id)]
    script = AsyncScript(redis, SCRIPT)
    answer: list[int] = await script(keys=keys, args=[operation, WINDOW_S * US, *arguments])
    return answer


def _window(name: str, limit: int | None, now_us: int, used: int, oldest_leaves_us: int) -> Window | None:
    if limit is None:
        return None
    return Window(
        name=name,
        limit=limit,
        remaining=max(0, limit - used),
        reset_in_s=math.ceil((oldest_leaves_us - now_us) / US),
        reset_at_s=math.ceil(oldest_leaves_us / US),
    )


def _refuse(kind: str, wait_us: int, of_requests: Window | None, of_tokens: Window | None) -> None:
    headers = {"rate_limit_type": kind, **_headers(of_requests, of_tokens)}
    if kind == "tokens" and of_tokens:
        headers["RateLimit"] = of_tokens.state
    raise TooManyRequests("Rate limit exceeded", retry_after_s=math.ceil(wait_us / US), headers=headers)


def _headers(of_requests: Window | None, of_tokens: Window | None) -> dict[str, str]:
    windows = [window for window in (of_requests, of_tokens) if window]
    if not windows:
        return {}
    found = {"RateLimit-Policy": ", ".join(window.policy for window in windows), "RateLimit": windows[0].state}
    if of_requests:
        found["X-RateLimit-Limit"] = str(of_requests.limit)
        found["X-RateLimit-Remaining"] = str(of_requests.remaining)
        found["X-RateLimit-Reset"] = str(of_requests.reset_at_s)
    return found
