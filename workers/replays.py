"""The timer's step for replays: deliveries made of events at the rate asked for, while the endpoint keeps up."""

from uuid import UUID

from shared import ids, log, replays
from shared.db import is_down
from shared.messages import Deliver
from shared.runtime import Runtime

logger = log.get(__name__)

AT_ONCE = 200
"""Replays that one step goes on with."""
MOST_LOOKS = 10
"""Pieces of the log that one step looks at for one replay, as long as nothing in them matches."""


async def advance(rt: Runtime) -> int:
    """Go on with the running replays and ring their queues. Returns how many deliveries were made.

    Done by two timers, or twice, nothing is made twice: a replay is locked, and its deliveries are unique.
    """
    async with rt.db.hot_statement() as tx:
        running = await replays.running(tx, limit=AT_ONCE)
    return sum([await _advance_alone(rt, id_) for id_ in running])


async def _advance_alone(rt: Runtime, id_: UUID) -> int:
    try:
        for _ in range(MOST_LOOKS):
            made, goes_on = await _step(rt, id_)
            if made or not goes_on:
                return made
    except Exception as error:
        if is_down(error):
            raise
        logger.exception("replay_failed", replay_id=ids.prefixed("rpl", id_))
    return 0


async def _step(rt: Runtime, id_: UUID) -> tuple[int, bool]:
    """Deliveries made, and whether another look may make more at once."""
    async with rt.db.hot_transaction() as tx:
        held = await replays.hold(tx, id_)
        if held is None:
            return 0, False
        if held.endpoint_status == "disabled":
            await replays.cancel(tx, id_)
            named = {"replay_id": ids.prefixed("rpl", id_), "webhook_id": ids.prefixed("whe", held.endpoint_id)}
            logger.info("replay_cancelled", **named)
            return 0, False
        if held.endpoint_status != "active" or held.is_full or not held.has_room or held.allowed < 1:
            return 0, False
        made = await replays.make(tx, held)
    if made:
        rt.ring(Deliver(ids=(held.endpoint_id,)))
    return made, True
