"""Recording attempts in groups: what somebody has locked of one team delays no other team's record."""

import asyncio

from shared.db import hot
from shared.runtime import Runtime
from tests.shared.webhook_rows import Rows
from tests.workers.delivering import claim
from tests.workers.queues import busy, ended
from workers.delivery_records import Records


async def test_a_delivery_that_somebody_has_locked_holds_up_no_other_team(runtime: Runtime):
    sent = []
    for rows in (Rows(runtime), Rows(runtime)):
        await rows.create_team()
        sent.extend((await claim(runtime, await busy(rows, 1))).deliveries)
    records = Records(runtime)
    async with runtime.db.hot_transaction() as tx:
        await hot(tx, "select from deliveries where id = %s for update", (sent[0].id,))
        held, free = (asyncio.create_task(records.add(ended(delivery, failed=False))) for delivery in sent)
        async with asyncio.timeout(2.5):
            assert await free
        assert not held.done()
    assert await held
