"""Answers that are not JSON, named where a route says what it answers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Media:
    """A body of this media type, such as `text/html`; clients get it as it is. example: what one may look like."""

    type: str
    example: str | None = None


EVENTS = Media("text/event-stream")
"""Server-sent events: chunks of a call."""
LINES = Media("application/x-ndjson")
"""JSON objects, one a line."""
