"""Health: `/health` and liveness do no I/O; readiness asks Postgres, the migrations and Redis, each within a second."""

import asyncio
from typing import Any, Literal

from api.desk import Desk
from api.door import Door
from api.http import endpoint
from api.replies import JSON, Reply
from api.wire.health import DatabaseOut, EndingOut, HealthOut, NoDatabaseOut, NotReadyOut, ReadinessOut
from shared import limits, schema
from shared.db import DatabaseDown
from shared.runtime import Runtime
from shared.settings import VERSION

CHECK_S = 1.0
LATER = {"Retry-After": "1"}
READ_ONLY = "database takes no writes"


@endpoint("none", answers=HealthOut)
async def health() -> dict[str, str]:
    """The process answers."""
    return {"status": "healthy", "service": "waybill", "version": VERSION}


@endpoint("none", answers=Literal["I'm alive!"])
async def liveness() -> JSON:
    """The process answers, in the words of the LiteLLM proxy."""
    return JSON("I'm alive!")


@endpoint("none", answers={200: DatabaseOut, 503: NoDatabaseOut})
async def database(rt: Runtime) -> Reply:
    """Whether Postgres answers within a second."""
    if await _database(rt) == "database unreachable":
        return Reply(body={"status": "unhealthy", "database": "disconnected"}, status=503, headers=LATER)
    return Reply(body={"status": "healthy", "database": "connected"})


@endpoint("none", answers={200: ReadinessOut, 503: NotReadyOut | EndingOut})
async def readiness(rt: Runtime, desk: Desk) -> Reply:
    """Whether work can be accepted: 503 without Postgres or its migrations.

    `degraded` without Redis, far behind, or where Postgres takes no writes.
    """
    if desk.door.is_closed:
        return Reply(body={"status": "shutting_down"}, status=503, headers=LATER)
    postgres, redis = await asyncio.gather(_database(rt), _redis(rt))
    backlog = None if redis or postgres else _backlog(desk.door)
    reasons = [reason for reason in (postgres, redis, backlog) if reason]
    is_unhealthy = postgres is not None and postgres != READ_ONLY
    body: dict[str, Any] = {
        "status": "unhealthy" if is_unhealthy else "degraded" if reasons else "healthy",
        "db": "disconnected" if postgres == "database unreachable" else "connected",
        "redis": "disconnected" if redis == "redis unreachable" else "connected",
        "queue": "backlog" if backlog else "unknown" if reasons else "ok",
        "reasons": reasons,
    }
    return Reply(body=body, status=503 if is_unhealthy else 200, headers=LATER if is_unhealthy else {})


async def _database(rt: Runtime) -> str | None:
    try:
        async with asyncio.timeout(CHECK_S), rt.db.statement() as tx:
            if not await schema.is_current(tx):
                return "migrations missing"
            return None if await schema.takes_writes(tx) else READ_ONLY
    except DatabaseDown:
        return "database unreachable"


async def _redis(rt: Runtime) -> str | None:
    try:
        async with asyncio.timeout(CHECK_S):
            await rt.redis.ping()
            return None if await limits.is_active(rt.redis) else "rate limits cannot be checked"
    except Exception:  # noqa: BLE001 - whatever it is, Redis is not there
        return "redis unreachable"


def _backlog(door: Door) -> str | None:
    if not door.is_backlogged:
        return None
    return f"backlog: the oldest call has waited {round(door.age_s)} s for a worker"
