"""How webhooks do over all teams, for who runs Waybill."""

from typing import Any

from api.http import endpoint
from api.webhook_objects import rounded
from api.wire.webhook_health import WebhookHealthOut
from shared import clock, delivery_health, delivery_lists
from shared.runtime import Runtime
from shared.snapshot import snapshot


@endpoint("admin:r", answers=WebhookHealthOut)
async def read_webhook_health(rt: Runtime) -> dict[str, Any]:
    """Deliveries by outcome, what waits and for how long, how soon news arrive, circuits and disabled endpoints."""
    async with snapshot(rt.db) as tx:
        found = await delivery_lists.summary(tx, None)
        health = await delivery_health.find(tx)
    return {
        "counted_since": clock.iso(found.counted_since),
        "deliveries": {str(state): count for state, count in found.outcomes.items()},
        "waiting": health.waiting,
        "oldest_undelivered_age_s": rounded(found.oldest_undelivered_age_s),
        "first_attempt_p50_ms": rounded(found.first_attempt_p50_ms),
        "first_attempt_p95_ms": rounded(found.first_attempt_p95_ms),
        "circuits": {"open": health.open, "half_open": health.half_open},
        "full_queues": health.full_queues,
        "endpoints": health.endpoints,
        "disabled_by_reason": health.disabled,
    }
