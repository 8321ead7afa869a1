"""Deliveries as clients read them, found for a caller who may see them, and the words by which they are chosen."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from api.auth import Caller
from shared import delivery_lists, event_types, ids
from shared.clock import iso
from shared.db import Tx
from shared.errors import BadRequest, Forbidden, NotFound
from shared.states import DUE_DELIVERY, DeliveryState

UNDELIVERED = "undelivered"
STATE_WORDS = (*DeliveryState, UNDELIVERED)
SEEN_TYPES = (*event_types.ALL, event_types.TEST)


async def find_delivery(tx: Tx, caller: Caller, delivery_id: str) -> Any:
    """The row of a delivery, when the caller may see it. Raises NotFound, Forbidden."""
    id_ = ids.parse_prefixed("dlv", delivery_id)
    found = None if id_ is None else await delivery_lists.one(tx, id_)
    if found is None:
        raise NotFound("Delivery not found")
    if not caller.may_see(found.team_id):
        raise Forbidden("Delivery does not belong to your team")
    return found


def delivery_object(row: Any) -> dict[str, Any]:
    """The delivery of a row of `delivery_lists`."""
    return {
        "delivery_id": ids.prefixed("dlv", row.id),
        "event_id": ids.prefixed("evt", row.event_id),
        "event_type": row.event_type,
        "webhook_id": _prefixed("whe", row.endpoint_id),
        "url": row.url,
        "job_id": None if row.job_id is None else str(row.job_id),
        "status": row.state,
        "trigger": row.trigger,
        "attempt_count": row.attempt_count,
        "last_status": row.last_status,
        "last_error": row.last_error,
        "next_attempt_at": iso(row.next_try_at) if row.state in DUE_DELIVERY else None,
        "created_at": iso(row.created_at),
        "delivered_at": iso(row.delivered_at),
        "replay_id": _prefixed("rpl", row.replay_id),
    }


def attempt_object(row: Any) -> dict[str, Any]:
    """The attempt of a row of `delivery_lists.attempts`."""
    return {
        "attempt": row.number,
        "trigger": row.trigger,
        "started_at": iso(row.started_at),
        "duration_ms": row.duration_ms,
        "dns_ms": row.dns_ms,
        "connect_ms": row.connect_ms,
        "first_byte_ms": row.first_byte_ms,
        "status_code": row.status_code,
        "error_class": row.error_class,
        "error": row.error,
        "response_headers": row.response_headers,
        "response_head": row.response_head,
        "redirect_target": row.redirect_target,
    }


def states(words: Iterable[str]) -> list[DeliveryState]:
    """The states that these words mean, in any case. Raises BadRequest."""
    found: dict[DeliveryState, None] = {}
    for word in (given.strip().lower() for given in words):
        if word not in STATE_WORDS:
            raise BadRequest(f"Invalid status: {word[:100]}. Must be one of: {', '.join(STATE_WORDS)}")
        found |= dict.fromkeys(delivery_lists.UNDELIVERED if word == UNDELIVERED else [DeliveryState(word)])
    return list(found)


def seen_types(names: Iterable[str]) -> list[str]:
    """The types to look at: here a glob means every type that begins so. Raises BadRequest."""
    found: dict[str, None] = {}
    for name in (given.strip() for given in names):
        meant = [type_ for type_ in SEEN_TYPES if _means(name, type_)]
        if not meant:
            raise BadRequest(f"Unknown event type: {name[:100]}")
        found |= dict.fromkeys(meant)
    return list(found)


def _means(name: str, type_: str) -> bool:
    return name in {type_, "*"} or (name.endswith(".*") and type_.startswith(name[:-1]))


def _prefixed(prefix: str, id_: UUID | None) -> str | None:
    return None if id_ is None else ids.prefixed(prefix, id_)
