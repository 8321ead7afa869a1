"""What a use case needs from its process: settings, database, Redis, the bell, the sealer, prices, the resolver."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from redis import DriverInfo
from redis.asyncio import Redis
from redis.maint_notifications import MaintNotificationsConfig

from shared.db import Database
from shared.egress import Lookup, system_lookup
from shared.prices import PriceMap
from shared.queue import Bell, Ring
from shared.sealer import Sealer
from shared.settings import Settings

DRIVER = DriverInfo()
"""Made once: the client would read its package's metadata anew for every connection."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Made once in each `main` and passed on; holds no state of its own.

    lookup: resolves the hosts of URLs that customers give.
    """

    settings: Settings
    db: Database
    redis: Redis
    ring: Ring
    sealer: Sealer
    prices: PriceMap
    lookup: Lookup = system_lookup


def redis_client(url: str, *, timeout_s: float = 1.0) -> Redis:
    """An asyncio Redis client whose every wait is bounded."""
    client: Redis = Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=None,
        driver_info=DRIVER,
        # With these on, the pool hands out connections that a restarted server has closed.
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )
    return client


@asynccontextmanager
async def open_runtime(settings: Settings, *, name: str, pool: int | None = None) -> AsyncIterator[Runtime]:
    """Open the runtime of a process and close it at the end. name: how the process is seen in `pg_stat_activity`."""
    bell = Bell(settings.redis_url)
    rt = Runtime(
        settings=settings,
        db=Database(settings.database_url, pool=pool or settings.database_pool, name=name),
        redis=redis_client(settings.redis_url),
        ring=bell.ring,
        sealer=Sealer(settings.encryption_key.get_secret_value()),
        prices=PriceMap.load(settings.price_map),
    )
    await bell.open()
    try:
        yield rt
    finally:
        await bell.close()
        await rt.redis.aclose()
        await rt.db.close()
