"""What an endpoint's team asks about it: does it take an example now, and how did it do."""

import math
from datetime import timedelta
from typing import Any
from uuid import UUID

from api import webhook_samples
from api.auth import Caller
from api.desk import Desk
from api.http import endpoint
from api.once import Once
from api.webhook_access import find_endpoint
from api.webhook_objects import rounded
from api.wire.webhook_bodies import SendTest, StatsQuery
from api.wire.webhooks import TestedOut, WebhookStatsOut
from shared import audit, clock, event_types, ids, sample_deliveries, webhook_endpoints, webhook_stats
from shared.errors import BadRequest, NotFound, TooManyRequests
from shared.runtime import Runtime
from shared.webhook_endpoints import Endpoint
from shared.webhook_stats import Stats

STATS_OF = timedelta(days=1)
"""Without `since`."""
NOT_SENT = "nobody has sent it yet; its delivery shows how it ends"


@endpoint("any:w", answers=TestedOut)
async def send_test(
    rt: Runtime, desk: Desk, caller: Caller, webhook_id: str, body: SendTest, once: Once
) -> dict[str, Any]:
    """Send the example of a type now, whatever the endpoint's status, and wait for the answer.

    One attempt, at most ten a minute. A 2xx to `webhook.test` makes an endpoint active that waits to be verified.
    """
    if body.type not in (*event_types.ALL, event_types.TEST):
        raise BadRequest(f"Unknown event type: {body.type}")
    if once.delivery_id is not None:
        async with rt.db.hot_statement() as tx:
            found = await find_endpoint(tx, caller, webhook_id)
        return await _ended(rt, desk, found, once.delivery_id)
    async with rt.db.transaction() as tx:
        found = await find_endpoint(tx, caller, webhook_id)
        if not await webhook_endpoints.lock(tx, found.id):
            raise NotFound("Webhook not found")
        wait_s = await sample_deliveries.wait_s(tx, found.id)
        if wait_s is not None:
            raise TooManyRequests("Too many tests of this webhook", retry_after_s=math.ceil(wait_s))
        id_ = await webhook_samples.create(tx, found.id, found.team_id, body.type)
        await audit.record(tx, caller.admin, "tested_webhook", "webhook", webhook_id, {"type": body.type})
        await once.take(tx, delivery_id=id_)
    webhook_samples.ring(rt, found.id)
    return await _ended(rt, desk, found, id_)


@endpoint("any", answers=WebhookStatsOut)
async def get_stats(rt: Runtime, caller: Caller, webhook_id: str, query: StatsQuery) -> dict[str, Any]:
    """How the endpoint did since a moment, without one in the last 24 hours."""
    async with rt.db.hot_statement() as tx:
        found = await find_endpoint(tx, caller, webhook_id)
        stats = await webhook_stats.since(tx, found.id, query.since_at or clock.now() - STATS_OF)
    return _stats(stats)


async def _ended(rt: Runtime, desk: Desk, endpoint: Endpoint, id_: UUID) -> dict[str, Any]:
    """How the test ended, of which the repeat of a request hears too; waits for it."""
    timeout_s = rt.settings.webhook_timeout_s if endpoint.timeout_s is None else endpoint.timeout_s
    received = await webhook_samples.received(rt, desk, id_, timeout_s=timeout_s)
    return {**_shown(received), "delivery_id": ids.prefixed("dlv", id_)}


def _shown(received: sample_deliveries.Received | None) -> dict[str, Any]:
    if received is None:
        return {"ok": False, "status_code": None, "latency_ms": None, "response_head": None, "error": NOT_SENT}
    return dict(vars(received))


def _stats(stats: Stats) -> dict[str, Any]:
    return {
        "success_rate": round(stats.delivered / stats.tried, 4) if stats.tried else None,
        "deliveries": stats.deliveries,
        "delivered": stats.delivered,
        "failing": stats.failing,
        "exhausted": stats.exhausted,
        "oldest_undelivered_age_s": rounded(stats.oldest_undelivered_age_s),
        "first_attempt_p50_ms": rounded(stats.first_attempt_p50_ms),
        "first_attempt_p95_ms": rounded(stats.first_attempt_p95_ms),
    }
