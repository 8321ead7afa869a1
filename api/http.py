"""The edge: `endpoint` makes a plain async function a Starlette endpoint and errors the contract's bodies."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_type_hints

import orjson
import redis
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from api.auth import Access, Authenticator, Caller
from api.body import parse_json, read_body
from shared import log
from shared.db import is_down
from shared.errors import Invalid, Unavailable, WaybillError
from shared.runtime import Runtime

logger = log.get(__name__)

Handler = Callable[..., Awaitable[Any]]
Endpoint = Callable[[Request], Awaitable[Response]]
Model = TypeVar("Model", bound=BaseModel)

MISSING = {"msg": "field required", "type": "value_error.missing"}
UNION_BRANCHES = {"str", "int", "float", "bool", "constrained-str", "constrained-int", "constrained-float"}
CLIENT_CLOSED = 499


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer that is not simply 200 with a body."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class JSON(Response):
    """A JSON response serialised by orjson."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes of a model, a dict or a list."""
        return content if isinstance(content, bytes) else orjson.dumps(content, default=_plain)


def endpoint(access: Access, *, even_suspended: bool = False) -> Callable[[Handler], Endpoint]:
    """Make a handler an endpoint.

    The handler's parameters say what it needs: `rt: Runtime`, `desk: Desk`, `caller: Caller`, `request: Request`,
    `body: <model>` (the JSON body), `query: <model>` (the query string); every other one is a path parameter.
    It returns a model, a dict or a list (200) or a Reply. `access` is the contract's caller word.
    """

    def wrap(handler: Handler) -> Endpoint:
        hints = get_type_hints(handler)
        wanted = tuple(inspect.signature(handler).parameters)

        async def answer(request: Request) -> Response:
            try:
                arguments = await _arguments(request, wanted, hints, access, even_suspended=even_suspended)
                return _rendered(await handler(**arguments))
            except Exception as error:  # noqa: BLE001 - every error is rendered here
                return failed(request, error)

        answer.access = access  # type: ignore[attr-defined]
        answer.handler = handler  # type: ignore[attr-defined]
        return answer

    return wrap


async def _arguments(
    request: Request, wanted: tuple[str, ...], hints: Mapping[str, Any], access: Access, *, even_suspended: bool
) -> dict[str, Any]:
    authenticator: Authenticator = request.app.state.authenticator
    runtime: Runtime = request.app.state.runtime
    caller = Caller()
    if access != "none":
        caller = await authenticator.caller(request.headers, access, even_suspended=even_suspended)
    if request.method == "POST" and "idempotency-key" in request.headers:
        raise Invalid.not_supported_yet("header", "idempotency-key")
    arguments: dict[str, Any] = {}
    for name in wanted:
        match name:
            case "rt":
                arguments[name] = runtime
            case "caller":
                arguments[name] = caller
            case "desk":
                arguments[name] = request.app.state.desk
            case "request":
                arguments[name] = request
            case "body":
                arguments[name] = await body_of(request, hints[name], runtime.settings.max_body_bytes)
            case "query":
                arguments[name] = query_of(request, hints[name])
            case _:
                arguments[name] = request.path_params[name]
    return arguments


async def body_of(request: Request, model: type[Model], limit_bytes: int) -> Model:
    """The JSON body as `model`, whatever Content-Type says. Raises Invalid, BodyTooLarge.

    An empty body stands for `{}` where the model has no required field.
    """
    raw = await read_body(request, limit_bytes)
    if not raw:
        if any(info.is_required() for info in model.model_fields.values()):
            raise Invalid([{"loc": ["body"], **MISSING}])
        return model()
    return validated(model, parse_json(raw), "body")


def query_of(request: Request, model: type[Model]) -> Model:
    """The query string as `model`. Raises Invalid, also for NUL characters, which Postgres refuses."""
    for name, value in request.query_params.multi_items():
        if "\x00" in name + value:
            raise Invalid.at(["query"], "NUL characters are not allowed", "value_error.nul")
    return validated(model, dict(request.query_params), "query")


def validated(model: type[Model], value: object, place: str) -> Model:
    """`value` as `model`. Raises Invalid with the contract's list; it never echoes the input."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise Invalid(findings(error, place)) from None


def findings(error: ValidationError, place: str) -> list[dict[str, Any]]:
    """Pydantic's findings in the contract's form: a missing field has the older words, the rest the validator's own."""
    found: dict[tuple[str | int, ...], dict[str, Any]] = {}
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        loc = (place, *(part for part in item["loc"] if not _is_branch(part)))
        if item["type"] == "missing":
            finding = dict(MISSING)
        elif item["type"] in {"model_type", "model_attributes_type"}:
            finding = {"msg": "Input should be an object", "type": "object_type"}
        else:
            finding = {"msg": item["msg"].removeprefix("Value error, "), "type": item["type"]}
        found.setdefault(loc, {"loc": list(loc), **finding})
    return list(found.values())


def _is_branch(part: str | int) -> bool:
    """Whether a part of pydantic's place names a branch of a union and not something the client wrote."""
    return isinstance(part, str) and (part in UNION_BRANCHES or "[" in part)


def failed(request: Request, error: Exception) -> Response:
    """The response for an error: the contract's text for ours, 503 for infrastructure, 500 and a log line for bugs."""
    if isinstance(error, WaybillError):
        return JSON({"detail": error.detail}, status_code=error.status, headers=error.headers)
    if isinstance(error, HTTPException):
        return JSON({"detail": error.detail}, status_code=error.status_code, headers=error.headers)
    if isinstance(error, ClientDisconnect):
        return Response(status_code=CLIENT_CLOSED)
    if is_down(error) or isinstance(error, redis.RedisError):
        logger.warning("unavailable", path=request.scope["path"], error=type(error).__name__)
        return failed(request, Unavailable())
    logger.error("internal_error", path=request.scope["path"], exc_info=error)
    return JSON({"detail": "Internal Server Error"}, status_code=500)


def _rendered(result: Any) -> Response:
    if isinstance(result, Response):
        return result
    if isinstance(result, Reply):
        if result.status == 304:
            return Response(status_code=304, headers=dict(result.headers))
        return JSON(result.body, status_code=result.status, headers=dict(result.headers))
    return JSON(result)


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"cannot serialise {type(value).__name__}")
