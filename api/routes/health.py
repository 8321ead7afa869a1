"""Health: `/health` and liveness do no I/O; readiness asks Postgres, the migrations and Redis, each within a second."""

import asyncio
from typing import Any

from api.http import endpoint
from api.replies import JSON, Reply
from shared import schema
from shared.db import DatabaseDown
from shared.runtime import Runtime
from shared.settings import VERSION

CHECK_S = 1.0


@endpoint("none")
async def health() -> dict[str, str]:
    """The process answers."""
    return {"status": "healthy", "service": "waybill", "version": VERSION}


@endpoint("none")
async def liveness() -> JSON:
    """The process answers, in the words of the LiteLLM proxy."""
    return JSON("I'm alive!")


@endpoint("none")
async def readiness(rt: Runtime) -> Reply:
    """Whether work can be accepted: 503 without Postgres or its migrations, `degraded` without Redis."""
    database, redis = await asyncio.gather(_database(rt), _redis(rt))
    reasons = [reason for reason in (database, redis) if reason]
    body: dict[str, Any] = {
        "status": "unhealthy" if database else "degraded" if redis else "healthy",
        "db": "disconnected" if database == "database unreachable" else "connected",
        "redis": "disconnected" if redis else "connected",
        "queue": "unknown" if reasons else "ok",
        "reasons": reasons,
    }
    return Reply(body=body, status=503 if database else 200, headers={"Retry-After": "1"} if database else {})


async def _database(rt: Runtime) -> str | None:
    try:
        async with asyncio.timeout(CHECK_S), rt.db.statement() as tx:
            return None if await schema.is_current(tx) else "migrations missing"
    except DatabaseDown:
        return "database unreachable"


async def _redis(rt: Runtime) -> str | None:
    try:
        async with asyncio.timeout(CHECK_S):
            await rt.redis.ping()
    except Exception:  # noqa: BLE001 - whatever it is, Redis is not there
        return "redis unreachable"
    return None
