"""The response headers of the gateway. A handler says what it has learned, as soon as it knows; errors carry it too.

    with headers.deciding(request, body.model):            # X-Olla-Model; on a refusal also why there is no route
        route = await submission.resolve(...)
    headers.put(request, headers.of_key(key))              # x-litellm-key-*
    headers.put(request, headers.of_limits(windows))       # x-ratelimit-* and X-RateLimit-*; a 429 has them by itself
    headers.put(request, headers.accepted(call))           # X-Job-Id, X-Call-Id, x-litellm-call-id, -model-group
    headers.put(request, headers.answered(request, call))  # not for streams: cost, retries, durations, Server-Timing

`put` is enough: api/gateway/dress.py adds all of it, and what every answer has, when the answer's first byte leaves;
also to errors that are raised, and to streams. What is put twice has the later value.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol
from uuid import UUID

from starlette.requests import Request
from starlette.types import Scope

from api.request_id import began_at
from shared.calls import Call
from shared.errors import BadRequest, Forbidden, Unavailable, UnknownModel, Unpriced, WaybillError
from shared.keys import Key
from shared.limits import Window, headers_of
from shared.money import NANOUSD_PER_USD
from shared.settings import VERSION
from shared.states import CallState

SERVED_BY = {"X-Served-By": f"waybill/{VERSION}", "Via": f"1.1 waybill/{VERSION}"}
FOUND = {"X-Olla-Endpoint": "litellm-gateway", "X-Olla-Backend-Type": "litellm"}
STRATEGY = "strict"
NO_ROUTE = (Forbidden, BadRequest, Unpriced, Unavailable)
"""What the choice of a model is refused with."""
LEARNED = "waybill.gateway_headers"

NAMES = (
    "RateLimit", "RateLimit-Policy", "Retry-After", "Server-Timing", "Via", "X-Call-Id", "X-Job-Id",
    "X-Olla-Backend-Type", "X-Olla-Endpoint", "X-Olla-Model", "X-Olla-Request-ID", "X-Olla-Response-Time",
    "X-Olla-Routing-Decision", "X-Olla-Routing-Reason", "X-Olla-Routing-Strategy", "X-RateLimit-Limit",
    "X-RateLimit-Remaining", "X-RateLimit-Reset", "X-Served-By", "rate_limit_type", "reset_at",
    "x-litellm-attempted-fallbacks", "x-litellm-attempted-retries", "x-litellm-call-id", "x-litellm-key-max-budget",
    "x-litellm-key-rpm-limit", "x-litellm-key-spend", "x-litellm-key-tpm-limit", "x-litellm-model-group",
    "x-litellm-overhead-duration-ms", "x-litellm-response-cost", "x-litellm-response-duration-ms",
    "x-ratelimit-limit-requests", "x-ratelimit-limit-tokens", "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens", "x-ratelimit-reset-requests", "x-ratelimit-reset-tokens", "x-should-retry",
)  # fmt: skip
"""All that an answer of the gateway may carry; browsers may read them."""


class Accepted(Protocol):
    """A call that was accepted, as it is stored or about to be: both rows have these."""

    @property
    def id(self) -> UUID:
        """Its id."""

    @property
    def job_id(self) -> UUID:
        """The job it belongs to."""

    @property
    def model(self) -> str:
        """The name the client asked for."""

    @property
    def client_call_id(self) -> str | None:
        """The client's own name for it."""


def put(request: Request, more: Mapping[str, str]) -> None:
    """Let the answer to this request carry these, whatever it will be."""
    learned(request.scope).update({name.lower(): value for name, value in more.items()})


def learned(scope: Scope) -> dict[str, str]:
    """What was put so far, by lower-case name."""
    found: dict[str, str] = scope.setdefault(LEARNED, {})
    return found


@contextmanager
def deciding(request: Request, model: str) -> Iterator[None]:
    """Around the choice of the model that was asked for: says which it was, and how the choice went."""
    put(request, asked(model))
    try:
        yield
    except NO_ROUTE as error:
        put(request, _decision("rejected", _reason(error)))
        raise
    put(request, _decision("routed", "model_found"))


def asked(model: str) -> dict[str, str]:
    """`X-Olla-Model`; nothing for a name that no header can hold."""
    return {"X-Olla-Model": model} if _is_printable(model) else {}


def of_key(key: Key) -> dict[str, str]:
    """What the key has of a budget and of limits: USD as decimals, requests and tokens a minute."""
    found: dict[str, Any] = {"rpm-limit": key.rpm_limit, "tpm-limit": key.tpm_limit}
    if key.max_nanousd is not None:
        found |= {"spend": decimal(key.spent_nanousd), "max-budget": decimal(key.max_nanousd)}
    return {f"x-litellm-key-{name}": str(value) for name, value in found.items() if value is not None}


def of_limits(windows: Sequence[Window]) -> dict[str, str]:
    """The limits as they stand: in OpenAI's words the tightest on requests and on tokens, and in the job API's."""
    found = headers_of(windows)
    for word, of_tokens in (("requests", False), ("tokens", True)):
        same = [window for window in windows if window.is_of_tokens == of_tokens]
        if same:
            tightest = min(same, key=lambda window: (window.remaining, -window.reset_in_s))
            found[f"x-ratelimit-limit-{word}"] = str(tightest.limit)
            found[f"x-ratelimit-remaining-{word}"] = str(tightest.remaining)
            found[f"x-ratelimit-reset-{word}"] = f"{max(0, tightest.reset_in_s)}s"
    return found


def accepted(call: Accepted) -> dict[str, str]:
    """The ids of a call that was accepted, and the name it asked for."""
    named = {"x-litellm-model-group": call.model} if _is_printable(call.model) else {}
    own = call.client_call_id or str(call.id)
    return {"X-Job-Id": str(call.job_id), "X-Call-Id": str(call.id), "x-litellm-call-id": own, **named}


def answered(request: Request, call: Call, *, is_repeat: bool = False) -> dict[str, str]:
    """How a call went that ended while its client waited for the whole answer; its cost when it completed.

    Durations are in milliseconds: `queue` until a worker began, `provider` of the attempt that answered or else of all
    that failed, with the pauses between them, `total` of this request. A repeat waited for none of it.
    """
    total_ms = _since_ms(began_at(request.scope))
    queue_ms, provider_ms = (0.0, 0) if is_repeat else _spent_ms(call)
    found = {
        "x-litellm-attempted-retries": str(max(0, call.attempt - 1 - call.candidate)),
        "x-litellm-attempted-fallbacks": str(call.candidate),
        "x-litellm-response-duration-ms": _ms(total_ms),
        "x-litellm-overhead-duration-ms": _ms(max(0.0, total_ms - provider_ms)),
        "Server-Timing": f"queue;dur={_ms(queue_ms)}, provider;dur={provider_ms}, total;dur={_ms(total_ms)}",
    }
    if call.state == CallState.COMPLETED:
        found["x-litellm-response-cost"] = decimal(call.client_cost_nanousd)
        if call.candidate:
            found |= _decision("fallback", "model_found_fallback")
    return found


def decimal(nanousd: int) -> str:
    """USD without an exponent and without zeros at the end: `0.000123`."""
    whole, rest = divmod(nanousd, NANOUSD_PER_USD)
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".") if rest else str(whole)


def response_time(scope: Scope) -> dict[str, str]:
    """Seconds until now; put on when the first byte leaves."""
    return {"X-Olla-Response-Time": f"{_since_ms(began_at(scope)) / 1000:.3f}s"}


def _decision(decision: str, reason: str) -> dict[str, str]:
    return {
        "X-Olla-Routing-Strategy": STRATEGY,
        "X-Olla-Routing-Decision": decision,
        "X-Olla-Routing-Reason": reason,
    }


def _reason(error: WaybillError) -> str:
    return "model_not_found" if isinstance(error, UnknownModel) else "model_unavailable"


def _spent_ms(call: Call) -> tuple[float, int]:
    """In the queue, and with providers."""
    if call.started_at is None:
        return 0.0, 0
    queue_ms = max(0.0, (call.started_at - call.created_at).total_seconds() * 1000)
    tried_s = ((call.completed_at or call.started_at) - call.started_at).total_seconds()
    return queue_ms, round(tried_s * 1000) if call.latency_ms is None else call.latency_ms


def _since_ms(began: float) -> float:
    return (time.perf_counter() - began) * 1000


def _ms(milliseconds: float) -> str:
    return str(math.floor(milliseconds * 1000) / 1000)


def _is_printable(text: str) -> bool:
    return text.isascii() and text.isprintable()
