"""GET /webhooks/event-types: the catalogue, with a JSON Schema and an example of each type."""

from functools import cache

from api.http import endpoint
from api.replies import JSON, rendered
from api.wire.event_types import EventTypesOut, catalogue


@endpoint("any", answers=EventTypesOut)
async def list_event_types() -> JSON:
    """Every type of event, what it says and how it looks."""
    return JSON(_written())


@cache
def _written() -> bytes:
    return rendered(catalogue())
