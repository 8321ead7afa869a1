"""The catalogue of event types as clients read it."""

from typing import Any

from pydantic import Field

from api.openapi_schemas import Plain
from api.wire.answers import Answer
from api.wire.event_examples import EXAMPLES
from api.wire.events import EVENTS, WHEN
from shared import event_types


class EventTypeOut(Answer):
    """A type of event. opt_in: no glob matches it. is_subscribable: an endpoint may name it in its `events`."""

    type: str
    description: str
    schema_: dict[str, Any] = Field(alias="schema", description="JSON Schema (2020-12) of the whole event object.")
    example: dict[str, Any]
    opt_in: bool
    is_subscribable: bool


class EventTypesOut(Answer):
    """All types of events."""

    event_types: list[EventTypeOut]


def catalogue() -> dict[str, Any]:
    """The types in the order of the documentation."""
    return {"event_types": [_shown(type_) for type_ in EVENTS]}


def _shown(type_: str) -> dict[str, Any]:
    return {
        "type": type_,
        "description": WHEN[type_],
        "schema": _open(EVENTS[type_].model_json_schema(mode="serialization", schema_generator=Plain)),
        "example": EXAMPLES[type_],
        "opt_in": type_ in event_types.OPT_IN,
        "is_subscribable": type_ in event_types.ALL,
    }


def _open(schema: Any) -> Any:
    """The schema without its word that there is no other key: keys may be added, and receivers have to bear them."""
    if isinstance(schema, dict):
        return {name: _open(part) for name, part in schema.items() if (name, part) != ("additionalProperties", False)}
    return [_open(part) for part in schema] if isinstance(schema, list) else schema
