"""The webhook endpoint as clients read it, with what its queue and its keys say of it."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson

from shared import delivery_queues, ids, webhook_endpoints, webhook_keys
from shared.clock import iso
from shared.db import Tx
from shared.delivery_queues import QueueCircuit
from shared.errors import NotFound
from shared.runtime import Runtime
from shared.sealer import CannotOpen, Sealer
from shared.webhook_endpoints import Endpoint

AS_THEY_ARE = (
    "team_id", "status", "disabled_reason", "description", "metadata", "signing", "payload", "has_auth_header",
    "max_rate_per_s", "max_concurrency", "ordered", "verify", "last_status",
)  # fmt: skip
TIMES = ("failing_since", "created_at", "updated_at", "last_triggered_at")


async def show_webhook(rt: Runtime, tx: Tx, id_: UUID) -> dict[str, Any]:
    """The endpoint object. Raises NotFound."""
    found = await webhook_endpoints.get(tx, id_)
    if found is None:
        raise NotFound("Webhook not found")
    return (await show_webhooks(rt, tx, [found]))[0]


async def show_webhooks(rt: Runtime, tx: Tx, found: Sequence[Endpoint]) -> list[dict[str, Any]]:
    """Endpoint objects."""
    wanted = [endpoint.id for endpoint in found]
    circuits = await delivery_queues.circuits(tx, wanted)
    public_keys = await webhook_keys.public_keys(tx, wanted)
    return [
        {
            **_shown(rt, endpoint),
            **_circuit(circuits.get(endpoint.id, QueueCircuit())),
            "public_key": None if endpoint.signing == "v1" else public_keys.get(endpoint.id),
        }
        for endpoint in found
    ]


def _shown(rt: Runtime, endpoint: Endpoint) -> dict[str, Any]:
    id_ = ids.prefixed("whe", endpoint.id)
    settings = rt.settings
    schedule = settings.webhook_retry_schedule_s if endpoint.retry_schedule_s is None else endpoint.retry_schedule_s
    return {
        "webhook_id": id_,
        "id": id_,
        "webhook_url": endpoint.url,
        "url": endpoint.url,
        "events": list(endpoint.events),
        "is_active": endpoint.status == "active",
        "header_names": _header_names(rt.sealer, endpoint),
        "timeout_s": settings.webhook_timeout_s if endpoint.timeout_s is None else endpoint.timeout_s,
        "retry_schedule_s": list(schedule),
        **{name: getattr(endpoint, name) for name in AS_THEY_ARE},
        **{name: iso(getattr(endpoint, name)) for name in TIMES},
    }


def _circuit(circuit: QueueCircuit) -> dict[str, Any]:
    return {"circuit": circuit.state, "circuit_until": iso(circuit.until)}


def _header_names(sealer: Sealer, endpoint: Endpoint) -> list[str]:
    """Of headers that no key of ours opens nothing is known; the log of deliveries says so, a list must not fail."""
    if endpoint.headers_sealed is None:
        return []
    try:
        return sorted(orjson.loads(sealer.open(endpoint.headers_sealed, purpose=headers_purpose(endpoint.id))))
    except CannotOpen:
        return []


def headers_purpose(id_: UUID) -> str:
    """What an endpoint's own headers are sealed for."""
    return f"webhook_endpoints.headers:{id_}"


def rounded(value: float | None) -> float | None:
    """Seconds or milliseconds as they are shown; clocks that disagree make none negative."""
    return None if value is None else round(max(0.0, value), 3)
