"""From what a client asks of an endpoint to the columns that hold it; what is refused is refused here."""

from collections.abc import Collection
from typing import Any
from uuid import UUID

import orjson

from api.webhook_objects import headers_purpose
from api.wire.webhook_bodies import Terms
from shared import egress, event_types
from shared.errors import BadRequest, Invalid
from shared.runtime import Runtime

AS_THEY_ARE = (
    "events", "description", "signing", "payload", "timeout_s", "retry_schedule_s", "max_rate_per_s", "ordered",
    "verify",
)  # fmt: skip
CONCURRENCY = 5


def check(body: Terms) -> None:
    """Raises BadRequest (event type), Invalid (what this version does not serve)."""
    if body.ordered:
        raise Invalid.not_supported_yet("body", "ordered")
    unknown = event_types.unknown(body.events)
    if unknown is not None:
        raise BadRequest(f"Unknown event type: {unknown[:100]}")


async def check_url(rt: Runtime, url: str) -> None:
    """Resolve the URL, outside of any transaction. Raises BadRequest with the class of what is wrong with it."""
    try:
        await egress.accept(url, rt.settings.webhook_networks, http=rt.settings.webhook_http, lookup=rt.lookup)
    except egress.UrlRefused as refused:
        raise BadRequest(f"webhook_url is not allowed: {refused.reason}") from None


def columns(rt: Runtime, id_: UUID, body: Terms, fields: Collection[str]) -> dict[str, Any]:
    """The columns for these fields of the body; what is secret is sealed for the endpoint's id."""
    found = {name: getattr(body, name) for name in AS_THEY_ARE if name in fields}
    if "metadata" in fields:
        found["metadata"] = body.metadata or {}
    if "max_concurrency" in fields:
        found["max_concurrency"] = body.max_concurrency or CONCURRENCY
    if "auth_header" in fields:
        found["auth_header_sealed"] = _sealed(rt, body.auth_header, f"webhook_endpoints.auth_header:{id_}")
    if "headers" in fields:
        headers = orjson.dumps(body.headers).decode() if body.headers else None
        found["headers_sealed"] = _sealed(rt, headers, headers_purpose(id_))
    return found


def _sealed(rt: Runtime, secret: str | None, purpose: str) -> bytes | None:
    return None if secret is None else rt.sealer.seal(secret, purpose=purpose)
