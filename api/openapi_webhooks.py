"""The requests that we send: the `webhooks` of /openapi.json, and the callbacks of jobs and calls."""

from typing import Any

from api.openapi_routes import CLAUSE_END
from api.wire.event_examples import EXAMPLES
from api.wire.events import WHEN
from shared import event_types

Schema = dict[str, Any]

SIGNED = """Signed by the rules of Standard Webhooks 1.0.0: compare signatures in constant time, and refuse a timestamp
more than 300 s off. It is sent at least once: repeats have the same `webhook-id`."""
SIGNATURES = (
    "Space-separated: `v1,<base64>` of HMAC-SHA256, `v1a,<base64>` of ed25519, each over "
    "`{id}.{timestamp}.{body}`, one for each key that is valid now."
)
OPT_IN = "Sent only to endpoints and callbacks that name this type exactly; no glob matches it."

HEADERS: dict[str, tuple[str, bool]] = {
    "webhook-id": ("The event's id; the same in every try and at every endpoint.", True),
    "webhook-timestamp": ("Unix seconds of this try.", True),
    "webhook-signature": (SIGNATURES, True),
    "waybill-delivery-id": ("`dlv_…`: the event on its way to this endpoint.", True),
    "waybill-attempt": ("1, 2, 3 …", True),
    "waybill-replay": ("The replay that sends it; on replays only.", False),
    "Authorization": ("The endpoint's `auth_header`, where it has one.", False),
}

RESPONSES: Schema = {
    "2XX": {
        "description": "Delivered.",
        "headers": {
            "webhook-delivery": {
                "description": "`abort-message` with any status: this event is not to be tried again.",
                "schema": {"enum": ["abort-message"]},
            }
        },
    },
    "410": {"description": "The endpoint is gone: it is disabled at once."},
    "429": {
        "description": "Tried again later, as after 502, 503, 504 and a timeout: not before 60 s.",
        "headers": {"Retry-After": {"description": "Honoured up to twice the wait.", "schema": {"type": "string"}}},
    },
    "default": {"description": "Tried again by the endpoint's schedule; redirects are not followed."},
}


def webhook(type_: str, schema: Schema) -> Schema:
    """The request of an event of this type to an endpoint."""
    said = [WHEN[type_], *([OPT_IN] if type_ in event_types.OPT_IN else []), SIGNED]
    return _request(
        CLAUSE_END.split(WHEN[type_], maxsplit=1)[0], "\n\n".join(said), {"schema": schema, "example": EXAMPLES[type_]}
    )


def callback(schema: Schema) -> Schema:
    """The request of one of several events to a callback."""
    return _request("event", SIGNED, {"schema": schema})


def _request(summary: str, description: str, content: Schema) -> Schema:
    headers = [
        {"name": name, "in": "header", "required": required, "description": text, "schema": {"type": "string"}}
        for name, (text, required) in HEADERS.items()
    ]
    return {
        "summary": summary,
        "description": description,
        "tags": ["webhooks"],
        "parameters": headers,
        "requestBody": {"required": True, "content": {"application/json": content}},
        "responses": RESPONSES,
    }
