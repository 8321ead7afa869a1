"""A second api beside a scene's, with other settings: on servers that are not there, for one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx

from api.app import create_app
from shared.db import Database
from shared.runtime import redis_client
from tests.api import conform
from tests.scene import Scene

NO_POSTGRES = "postgresql://waybill@127.0.0.1:1/nothing"
NO_REDIS = "redis://127.0.0.1:1/0"


@asynccontextmanager
async def served(scene: Scene, **changed: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of it."""
    settings = scene.rt.settings.model_copy(update=changed)
    db, redis = Database(settings.database_url, pool=2, name="waybill-another"), redis_client(settings.redis_url)
    app = create_app(replace(scene.rt, settings=settings, db=db, redis=redis))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://waybill", event_hooks={"response": [conform.check]}
        ) as client,
    ):
        yield client
    await redis.aclose()
    await db.close()
