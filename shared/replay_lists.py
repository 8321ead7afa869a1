"""Replays as they are listed: what was asked for and how far it is; what became of the deliveries each one tells."""

from typing import Any
from uuid import UUID

from shared.db import Tx, hot

PAGE = """
select id, endpoint_id, state, rate_per_s, matched, created_at, finished_at from replays
 where endpoint_id = %s order by created_at desc, id desc limit %s offset %s
"""

COUNT = "select count(*) as total from replays where endpoint_id = %s"


async def page(tx: Tx, endpoint_id: UUID, *, limit: int, offset: int) -> list[Any]:
    """Rows of an endpoint's replays, newest first."""
    return await hot(tx, PAGE, (endpoint_id, limit, offset))


async def count(tx: Tx, endpoint_id: UUID) -> int:
    """How many replays an endpoint has had."""
    total: int = (await hot(tx, COUNT, (endpoint_id,)))[0].total
    return total
