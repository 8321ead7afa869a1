"""The parameters, headers and refusals of an operation in /openapi.json."""

from collections.abc import Iterable
from typing import Any

from api import openapi_gateway as gateway
from api.openapi_routes import Documented
from api.wire.media import EVENTS

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "string", "pattern": "^[0-9]+$"}

HEADERS: dict[str, tuple[str, Schema]] = {
    "X-Request-ID": ("The request's own id, else a new one; it is in our log lines.", TEXT),
    "WWW-Authenticate": ("`Bearer`.", TEXT),
    "Retry-After": ("When to come again, in seconds.", NUMBER),
    "rate_limit_type": ("Which limit refused.", {"enum": ["requests", "tokens"]}),
    "Link": ("The next page, when more follows.", TEXT),
    "X-Total-Count": ("How many match, on all pages.", NUMBER),
    "ETag": ("A strong tag of this body, for If-None-Match.", TEXT),
    "Location": ("Where the thing that was made is read.", TEXT),
    "X-Call-Id": ("The call that was made, also when it failed.", TEXT),
    "Idempotent-Replayed": ("`true` on an answer that an earlier request with this Idempotency-Key was given.", TEXT),
    "Preference-Applied": ("What of `Prefer` was honoured.", TEXT),
    "Vary": ("`Prefer`, where it was honoured.", TEXT),
    "X-RateLimit-Limit": ("Requests a minute.", NUMBER),
    "X-RateLimit-Remaining": ("Requests left in this minute.", NUMBER),
    "X-RateLimit-Reset": ("When all are there again, in unix seconds.", NUMBER),
    "RateLimit": ("What is left of each limit.", TEXT),
    "RateLimit-Policy": ("The limits of the team.", TEXT),
    "Cache-Control": ("How long it may be kept.", TEXT),
    "Accept-Ranges": ("`bytes`: parts of it can be asked for.", TEXT),
    "Content-Range": ("Which part this is, and of how many bytes.", TEXT),
    "Content-Disposition": ("The name to save it under.", TEXT),
    "X-Next-After": ("The `after` that goes on behind the last line of this answer.", NUMBER),
    "X-Accel-Buffering": ("`no`: proxies pass events on as they come.", TEXT),
    **gateway.HEADERS,
}
"""Every response header we send, and what it says."""

ALWAYS_SENT = (
    "X-Request-ID", "WWW-Authenticate", "Retry-After", "X-Total-Count", "ETag", "Cache-Control", *gateway.EVERYWHERE,
)  # fmt: skip
"""Headers that are never lacking where they are named; `Retry-After?` is the one that may be."""
WITH_STATUS = {401: ("WWW-Authenticate",), 409: ("Retry-After?",), 429: ("Retry-After",), 503: ("Retry-After",)}
COUNTED_FIRST = (402, 403, 404, 409, 422, 429)
"""What a request may be refused with after it was counted against rate limits."""
RATE_LIMIT = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "RateLimit", "RateLimit-Policy")

REFUSALS = {
    400: ("BadRequest", "A business rule refuses it: a duplicate, an unknown word, a bad date."),
    401: ("Unauthorized", "No credential, or one we do not know."),
    403: ("Forbidden", "The caller may not do this, or lacks credits (only then the text has the word `credit`)."),
    404: ("NotFound", "Unknown or malformed id."),
    408: ("Stalled", "The client stopped sending its body."),
    409: ("Conflict", "The thing is in a state that forbids this, or the Idempotency-Key is in use."),
    410: ("Gone", "It was there and is kept no longer."),
    413: ("TooLarge", "The body is over the limit."),
    422: ("Invalid", "The request does not validate; the list says where."),
    429: ("TooManyRequests", "A limit is reached, or the team is paused."),
    500: ("InternalError", "Our bug; the log has the request id."),
    502: ("ProviderFailed", "The call was accepted and the provider failed it."),
    503: ("Unavailable", "A dependency is down, or the backlog is long."),
    504: ("TimedOut", "The call was accepted and ran out of time."),
}

SECURITY_SCHEMES: Schema = {
    "virtualKey": {"type": "http", "scheme": "bearer", "description": "A team's virtual key, `sk-…`."},
    "virtualKeyHeader": {
        "type": "apiKey",
        "in": "header",
        "name": "x-api-key",
        "description": "A team's virtual key on the gateway; also as `API-Key`, `x-goog-api-key`, "
        "`Ocp-Apim-Subscription-Key` or `x-litellm-api-key`.",
    },
    "adminKey": {"type": "apiKey", "in": "header", "name": "X-Admin-Key", "description": "The admin key."},
    "adminSession": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "The token of an admin user's session, or the admin key.",
    },
}
SECURITY = {
    "none": [],
    "team": ["virtualKey"],
    "any": ["virtualKey", "adminKey", "adminSession"],
    "any:w": ["virtualKey", "adminKey", "adminSession"],
    "admin:r": ["adminKey", "adminSession"],
    "admin:w": ["adminKey", "adminSession"],
    "owner": ["adminKey", "adminSession"],
    "session": ["adminSession"],
}

CALLERS = {
    "none": "No credential is needed.",
    "team": "Callers: the team, by its virtual key.",
    "any": "Callers: the team, by its virtual key; any admin.",
    "any:w": "Callers: the team, by its virtual key; admins of role owner or admin.",
    "admin:r": "Callers: any admin.",
    "admin:w": "Callers: admins of role owner or admin.",
    "owner": "Callers: the admin key, or an admin user of role owner.",
    "session": "Callers: an admin user who logged in, of any role.",
}


def header_parameters(route: Documented) -> list[Schema]:
    """The request headers that a route reads, besides credentials."""
    found = [_header("X-Request-ID", "An id of your own, 1 to 128 of ASCII 0x21 to 0x7E; it is echoed.")]
    if route.takes_key:
        found.append(_header("Idempotency-Key", "Makes a repeat of this request harmless: quoted or bare, 1..255."))
    if route.waits:
        most_s = "10, of a dry run 60" if route.makes_a_batch else "600"
        found.append(_header("Prefer", f"`wait=N`: wait at most N s (0..{most_s}). `respond-async`: do not wait."))
    if route.is_conditional:
        found.append(_header("If-None-Match", "The ETag you have: 304 when it still is the same."))
    if route.has_ranges:
        found.append(_header("Range", "`bytes=FROM-TO`: only this part."))
        found.append(_header("If-Range", "The ETag you have: the whole when it is another by now."))
    if route.is_of_gateway and route.makes_a_call:
        found.append(_header("X-Job-Id", "An own, unfinished job that the call becomes part of; else it gets one."))
        found.append(_header("x-litellm-call-id", "An id of your own for the call, up to 256; it is echoed and kept."))
    return found


def response_headers(route: Documented, status: int) -> dict[str, Schema]:
    """The headers that a response may have; those it never lacks are `required`."""
    ok = status < 300
    names = list(_standard(status))
    names += ["Link"] * (ok and route.is_list)
    names += ["X-Total-Count"] * (ok and route.is_list and _is_array(route))
    names += ["ETag"] * (route.is_conditional and status in {200, 206, 304})
    names += ["Retry-After?"] * (route.is_conditional and not route.has_ranges and status in {200, 304})
    names += ["Accept-Ranges", "Content-Disposition"] * (route.has_ranges and ok)
    names += ["Content-Range"] * (status in {206, 416})
    names += ["X-Next-After"] * (route.has_lines and ok)
    names += ["Cache-Control"] * (ok and (route.is_page or route.answers.get(status) == EVENTS))
    names += ["X-Accel-Buffering"] * (ok and route.is_stream)
    names += ["Location", "X-Call-Id"] * (
        route.makes_a_call and not route.is_of_gateway and status not in {401, 413, 422}
    )
    names += ["Location", "Retry-After?"] * (status == 202)
    names += ["Idempotent-Replayed"] * (ok and route.takes_key)
    names += ["Preference-Applied", "Vary"] * (ok and route.waits)
    counted = route.is_counted and (ok or status in COUNTED_FIRST)
    names += list(RATE_LIMIT) * (counted or (route.is_limited and status == 429))
    names += ["rate_limit_type"] * (route.is_limited and status == 429)
    names += gateway.names(route, status) if route.is_of_gateway else ()
    return _headers(names)


def refusal(route: Documented, status: int) -> Schema:
    """The response of an error status: the shared one unless this route sends more headers with it."""
    own = response_headers(route, status)
    name, said = _refusal(status, of_gateway=route.is_of_gateway)
    if own == said["headers"]:
        return {"$ref": f"#/components/responses/{name}"}
    return {**said, "headers": own}


def shared_refusals() -> Schema:
    """The responses of errors as components."""
    return dict(
        _refusal(status, of_gateway=of_gateway)
        for of_gateway, refusals in ((False, REFUSALS), (True, gateway.REFUSALS))
        for status in refusals
    )


def shared_headers() -> Schema:
    """The response headers as components."""
    found: Schema = {name: {"description": text, "schema": schema} for name, (text, schema) in HEADERS.items()}
    for name in ALWAYS_SENT:
        found[name]["required"] = True
    found["MaybeRetryAfter"] = {**found["Retry-After"], "required": False}
    return found


def security(route: Documented) -> list[dict[str, list[str]]]:
    """Who may call a route; each entry is one way."""
    ways = SECURITY[route.given.access]
    more = ["virtualKeyHeader"] if route.is_of_gateway and "virtualKey" in ways else []
    return [{name: []} for name in (*ways, *more)]


def _header(name: str, text: str) -> Schema:
    return {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string"}}


def _standard(status: int) -> tuple[str, ...]:
    return ("X-Request-ID", *WITH_STATUS.get(status, ()))


def _headers(names: Iterable[str]) -> dict[str, Schema]:
    component = {"Retry-After?": "MaybeRetryAfter"}
    return {name.rstrip("?"): {"$ref": f"#/components/headers/{component.get(name, name)}"} for name in names}


def _refusal(status: int, *, of_gateway: bool) -> tuple[str, Schema]:
    """The name and the text of the shared response of a status."""
    name, text = gateway.REFUSALS[status] if of_gateway else REFUSALS[status]
    body = "GatewayError" if of_gateway else "ValidationErrors" if status == 422 else "Error"
    extra = [*gateway.EVERYWHERE, *(["x-should-retry"] if status in {402, 409} else [])] if of_gateway else []
    return name, {
        "description": text,
        "headers": _headers([*_standard(status), *extra]),
        "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{body}"}}},
    }


def _is_array(route: Documented) -> bool:
    return getattr(route.answers.get(200), "__origin__", None) is list
