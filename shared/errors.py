"""The errors a use case may raise; `api/http.py` renders them, nothing else knows about HTTP bodies."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class WaybillError(Exception):
    """Base of all errors shown to a client. `detail` is what the client reads; it never holds a secret or an input.

    param: the field of the request it is about, where clients are told. windows: the rate limits of who asked as they
        stand (shared/limits.py), where the request was counted before it was refused.
    """

    status: int = 500
    code: ClassVar[str] = "internal_error"
    windows: Sequence[Any] = ()

    def __init__(
        self,
        detail: str | Sequence[Mapping[str, Any]],
        *,
        headers: Mapping[str, str] | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(detail if isinstance(detail, str) else self.code)
        self.detail = detail
        self.param = param
        self.headers = dict(headers or {})


class BadRequest(WaybillError):
    """A business rule refuses the request: duplicate, unknown word in a documented place."""

    status, code = 400, "bad_request"


class Unauthorized(WaybillError):
    """No credential, or one we do not know."""

    status, code = 401, "unauthorized"


class KeyExpired(Unauthorized):
    """The virtual key's time is over."""

    code = "expired_key"


class KeyBlocked(Unauthorized):
    """An admin blocked the virtual key."""

    code = "key_blocked"


class Forbidden(WaybillError):
    """The caller is known and may not do this."""

    status, code = 403, "forbidden"


class InsufficientCredits(Forbidden):
    """The team's free credits are below the hold this request needs."""

    code = "insufficient_credits"

    def __init__(self) -> None:
        super().__init__("Insufficient credits")


class BudgetExceeded(Forbidden):
    """The budget in USD of a key or of a team has no room for what these calls may cost.

    owner: whose it is, in words. in_flight: there would be room but for what is held for calls that have not ended.
    """

    code = "budget_exceeded"
    code_in_flight = "budget_in_flight"

    def __init__(self, owner: str, *, in_flight: bool = False) -> None:
        super().__init__(f"Budget exceeded for this {owner}")
        self.owner = owner
        self.in_flight = in_flight


class TeamModelDenied(Forbidden):
    """The model or group exists, but the team does not hold it."""

    code = "team_model_access_denied"


class KeyModelDenied(Forbidden):
    """The team may use the model, but the key is narrowed to others."""

    code = "key_model_access_denied"


class UnknownModel(Forbidden):
    """No active model or group has this name."""

    code = "model_not_found"


class NotFound(WaybillError):
    """Unknown or malformed id, or unknown path."""

    status, code = 404, "not_found"


class Conflict(WaybillError):
    """The thing is in a state that forbids this."""

    status, code = 409, "conflict"


class Gone(WaybillError):
    """The thing was there and is kept no longer."""

    status, code = 410, "gone"


class CallFailed(WaybillError):
    """The client waited for a call and the call failed; status and text are those of its failure.

    failure: its code in shared/failures.py. provider: of its last attempt, where that is known.
    """

    code = "call_failed"

    def __init__(
        self, status: int, detail: str, *, headers: Mapping[str, str], failure: str, provider: str | None = None
    ) -> None:
        super().__init__(detail, headers=headers)
        self.status = status
        self.failure = failure
        self.provider = provider


class RoutingError(WaybillError):
    """No route takes this path, or this method of it."""

    code = "not_found"

    def __init__(self, status: int, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail, headers=headers)
        self.status = status


class BodyTooLarge(WaybillError):
    """The body is over `WAYBILL_MAX_BODY_BYTES`."""

    status, code = 413, "body_too_large"

    def __init__(self) -> None:
        super().__init__("Request body too large")


class Invalid(WaybillError):
    """The request does not validate: `detail` is a list of `{loc, msg, type}`."""

    status, code = 422, "invalid"

    @classmethod
    def at(cls, loc: Sequence[str | int], msg: str, type_: str) -> "Invalid":
        """One finding at one place."""
        return cls([{"loc": list(loc), "msg": msg, "type": type_}])

    @classmethod
    def unpriced(cls, *loc: str | int) -> "Unpriced":
        """The model asked for has no price."""
        return Unpriced([{"loc": list(loc), "msg": "model has no price", "type": "value_error.unpriced"}])

    @classmethod
    def not_supported_yet(cls, *loc: str | int) -> "Invalid":
        """A documented field that this version does not serve."""
        return cls.at(loc, "not supported yet", "value_error.not_supported")


class Unpriced(Invalid):
    """What the model would cost is not known, so it is not given away."""

    code = "model_unpriced"


class IdempotencyMismatch(Invalid):
    """The Idempotency-Key was used with another request."""

    code = "idempotency_key_reused"


class TooManyRequests(WaybillError):
    """A limit is reached; `Retry-After` says when to come again."""

    status, code = 429, "rate_limited"

    def __init__(self, detail: str, *, retry_after_s: int, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail, headers={"Retry-After": str(max(1, retry_after_s)), **(headers or {})})


class Unavailable(WaybillError):
    """A dependency is down or we are draining; the request may be sent again."""

    status, code = 503, "unavailable"

    def __init__(self, detail: str = "Service temporarily unavailable", *, retry_after_s: int = 1) -> None:
        super().__init__(detail, headers={"Retry-After": str(max(1, retry_after_s))})


class CallGoesOn(Unavailable):
    """This process ends while a client waits for a call it accepted: sent again, the request would be a second call."""
