"""When virtual keys were last used: remembered in memory, written every half minute; no request waits for it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import UUID

from shared import clock, keys, log, tasks
from shared.db import Database, DatabaseDown

logger = log.get(__name__)

WRITE_S = 30.0


class LastActive:
    """What this process saw since it last wrote. A crash loses half a minute of it, which nothing depends on."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._seen: dict[UUID, datetime] = {}

    def saw(self, key_id: UUID) -> None:
        """The key is used now."""
        self._seen[key_id] = clock.now()

    async def write(self) -> None:
        """Write what was seen. What cannot be written now, because its key is being changed, is kept for later."""
        seen, self._seen = self._seen, {}
        if not seen:
            return
        noted: set[UUID] = set()
        try:
            async with self._db.hot_statement() as tx:
                noted = await keys.saw(tx, seen)
        finally:
            self._seen = {id_: at for id_, at in seen.items() if id_ not in noted} | self._seen

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Write every half minute, and at the end."""
        task = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            await tasks.end([task])
            await self._try()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(WRITE_S)
            await self._try()

    async def _try(self) -> None:
        try:
            await self.write()
        except DatabaseDown as error:
            logger.warning("last_active_not_written", error=type(error).__name__)
        except Exception:
            logger.exception("last_active_not_written")
