"""The database's clock moved on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import text

from shared.db import Database
from shared.runtime import Runtime


@asynccontextmanager
async def later(rt: Runtime, seconds: float) -> AsyncIterator[Runtime]:
    """The same runtime, its database's clock moved on from now and standing still there."""
    async with rt.db.statement() as tx:
        now: datetime = (await tx.execute(text("select app_now()"))).scalar_one()
    at = (now + timedelta(seconds=seconds)).isoformat()
    db = Database(rt.settings.database_url, pool=2, name="waybill-later", session={"app.now": at})
    yield replace(rt, db=db)
    await db.close()
