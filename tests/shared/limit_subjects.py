"""Teams and keys with limits, and a Redis whose counted requests grow older."""

from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis

from shared import redis_keys
from shared.errors import TooManyRequests
from shared.limits import Limits, take

US = 1_000_000

KEYS = KEY, OTHER_KEY = UUID(int=1), UUID(int=2)
Bounds = tuple[int | None, int | None]


def limits(rpm: int | None = None, tpm: int | None = None, team: str = "acme") -> list[Limits]:
    """A team's, without a key's."""
    return [Limits(team_id=team, rpm=rpm, tpm=tpm)]


def both(*, of: Bounds = (None, None), key: Bounds, key_id: UUID = KEY, team: str = "acme") -> list[Limits]:
    """(rpm, tpm) of a team and of one of its keys."""
    return [*limits(*of, team=team), Limits(team_id=team, key_id=key_id, rpm=key[0], tpm=key[1])]


def one(tokens: int = 0) -> list[tuple[str, int]]:
    return [(str(uuid4()), tokens)]


async def pass_time(redis: Redis, seconds: int, team: str = "acme") -> None:
    """Redis's clock cannot be moved, so what was counted is made older."""
    for key in [made(team, key) for made in (redis_keys.request_log, redis_keys.token_log) for key in (None, *KEYS)]:
        for member, _ in await redis.zrange(key, 0, -1, withscores=True):
            await redis.zincrby(key, -seconds * US, member)


async def refusal(redis: Redis, limits: list[Limits], requests: list[tuple[str, int]]) -> TooManyRequests:
    with pytest.raises(TooManyRequests) as caught:
        await take(redis, limits, requests=requests)
    return caught.value
