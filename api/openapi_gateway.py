"""What /openapi.json says of the gateway's routes besides what their signatures say: headers and refusals."""

from collections.abc import Iterator
from typing import Any

from api.openapi_routes import Documented

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "string", "pattern": "^[0-9]+$"}
DECIMAL: Schema = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?$"}

EVERYWHERE: dict[str, tuple[str, Schema]] = {
    "X-Olla-Request-ID": ("The same as `X-Request-ID`.", TEXT),
    "X-Olla-Endpoint": ("`litellm-gateway`.", {"enum": ["litellm-gateway"]}),
    "X-Olla-Backend-Type": ("`litellm`.", {"enum": ["litellm"]}),
    "X-Olla-Response-Time": (
        "Seconds until the first byte.", {"type": "string", "pattern": r"^[0-9]+\.[0-9]{3}s$"},
    ),
    "X-Served-By": ("Ours, with its version.", TEXT),
    "Via": ("As `X-Served-By`, in the words of RFC 9110.", TEXT),
}  # fmt: skip
"""On every answer of a route."""
OF_A_CALL: dict[str, tuple[str, Schema]] = {
    "X-Olla-Model": ("The name that was asked for.", TEXT),
    "X-Olla-Routing-Strategy": ("`strict`: the name decides.", {"enum": ["strict"]}),
    "X-Olla-Routing-Decision": ("How the choice of a model went.", {"enum": ["routed", "fallback", "rejected"]}),
    "X-Olla-Routing-Reason": (
        "Why.", {"enum": ["model_found", "model_not_found", "model_found_fallback", "model_unavailable"]},
    ),
    "X-Job-Id": ("The job of the call or batch that was made, also when it failed.", TEXT),
    "X-Call-Id": ("The call that was made, also when it failed.", TEXT),
    "x-litellm-call-id": ("The client's own id of the call, else its id.", TEXT),
    "x-litellm-model-group": ("The name that was asked for.", TEXT),
    "x-litellm-key-spend": ("What the key's budget has spent, in USD.", DECIMAL),
    "x-litellm-key-max-budget": ("The key's budget, in USD.", DECIMAL),
    "x-litellm-key-rpm-limit": ("Requests a minute that the key may make.", WHOLE),
    "x-litellm-key-tpm-limit": ("Tokens a minute that the key may use.", WHOLE),
    "x-ratelimit-limit-requests": ("Requests a minute, by the tightest limit.", WHOLE),
    "x-ratelimit-remaining-requests": ("Requests left of it.", WHOLE),
    "x-ratelimit-reset-requests": ("When some come back.", {"type": "string", "pattern": "^[0-9]+s$"}),
    "x-ratelimit-limit-tokens": ("Tokens a minute, by the tightest limit.", WHOLE),
    "x-ratelimit-remaining-tokens": ("Tokens left of it.", WHOLE),
    "x-ratelimit-reset-tokens": ("When some come back.", {"type": "string", "pattern": "^[0-9]+s$"}),
}  # fmt: skip
"""On the answers of a route that makes a call, as soon as they are known."""
OF_AN_END: dict[str, tuple[str, Schema]] = {
    "x-litellm-response-cost": ("What the call cost, in USD; on a success that is not streamed.", DECIMAL),
    "x-litellm-attempted-retries": ("Tries after the first.", WHOLE),
    "x-litellm-attempted-fallbacks": ("Models that were tried before the one that answered.", WHOLE),
    "x-litellm-response-duration-ms": ("Of this request.", DECIMAL),
    "x-litellm-overhead-duration-ms": ("Of it what was not the provider's.", DECIMAL),
    "Server-Timing": ("Where the time went: `queue`, `provider`, `total`.", TEXT),
}
"""On the answer of a call that ended while its client waited for the whole of it."""
OF_A_REFUSAL: dict[str, tuple[str, Schema]] = {
    "x-should-retry": ("`false`: stock clients do not try again.", {"enum": ["false"]}),
    "reset_at": ("When the limit has room again.", TEXT),
}
OF_A_KEY = tuple(name for name in OF_A_CALL if name.startswith("x-litellm-key-"))
OF_LIMITS = (*OF_A_KEY, *(name for name in OF_A_CALL if name.startswith("x-ratelimit-")))
HEADERS = {**EVERYWHERE, **OF_A_CALL, **OF_AN_END, **OF_A_REFUSAL}

REFUSALS = {
    400: ("GatewayBadRequest", "The request does not validate (`param` says where), or the provider refused it."),
    401: ("GatewayUnauthorized", "No key, or one that is unknown, expired (`expired_key`) or blocked (`key_blocked`)."),
    402: ("GatewayNoMoney", "Credits or the key's budget are used up; never worth another try."),
    403: ("GatewayForbidden", "The caller may not do this, or may not use this model."),
    404: ("GatewayNotFound", "What was named is not there."),
    408: ("GatewayStalled", "The client stopped sending its body."),
    409: ("GatewayConflict", "The Idempotency-Key is in use, the job has ended, or the call was cancelled."),
    410: ("GatewayGone", "It was there and is kept no longer."),
    413: ("GatewayTooLarge", "The body is over the limit, or the team's files have no room for it."),
    416: ("GatewayNoRange", "The thing has no such part."),
    422: ("GatewayReused", "The Idempotency-Key was used with another request."),
    429: ("GatewayTooManyRequests", "A limit is reached, here or at the provider, or the team is paused."),
    500: ("GatewayInternalError", "Our bug; the log has the request id."),
    502: ("GatewayProviderFailed", "The call was accepted and the provider failed it."),
    503: ("GatewayUnavailable", "A dependency is down, or the backlog is long."),
    504: ("GatewayTimedOut", "The call was accepted and ran out of time."),
}  # fmt: skip


def names(route: Documented, status: int) -> Iterator[str]:
    """The headers of an answer, besides those that all routes have."""
    yield from EVERYWHERE
    if route.makes_a_call:
        yield from OF_A_CALL
        yield from OF_AN_END
    elif route.makes_a_batch:
        yield from OF_LIMITS if status == 429 else OF_A_KEY
        yield from ("X-Job-Id",) * (status == 402)
    if status in {402, 409}:
        yield "x-should-retry"
    if status == 402:
        yield "Retry-After?"
    if status == 429 and route.is_limited:
        yield "reset_at"
