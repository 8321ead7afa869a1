"""The edge: `endpoint` makes a plain async function a Starlette endpoint and errors the contract's bodies."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

import redis
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from api.auth import Access, Authenticator, Caller
from api.body import read_body
from api.face import NATIVE, Face
from api.once import REPLAYED, Once, Received, open_once, repeated, still_running
from api.replies import JSON, Reply
from api.request_id import CLIENT_CLOSED, tell
from shared import log
from shared.db import is_down
from shared.errors import CallFailed, CallGoesOn, Invalid, RoutingError, Unavailable, WaybillError
from shared.idempotency import Repeated
from shared.json_text import parse_json
from shared.runtime import Runtime
from shared.wire.findings import MISSING, findings, names_of

logger = log.get(__name__)

Handler = Callable[..., Awaitable[Any]]
Endpoint = Callable[[Request], Awaitable[Response]]
Answers = Any
"""A type that pydantic can describe (a wire model, a list of one), or one per status."""
Reader = Callable[[Runtime, Caller, Request], Awaitable[Received | None]]
"""Takes in a body; None says that this one is JSON after all, and left to the handler."""
Model = TypeVar("Model", bound=BaseModel)

WRITING = ("admin:w", "owner")
MOST_OF_NOBODY = 64 * 1024
"""Bytes of a body that are taken in before anything is known of who sends it."""


def endpoint(
    access: Access,
    *,
    answers: Answers = None,
    even_suspended: bool = False,
    face: Face = NATIVE,
    reads: Reader | None = None,
    bodies: Mapping[str, Any] | None = None,
) -> Callable[[Handler], Endpoint]:
    """Make a handler an endpoint.

    The handler's parameters say what it needs: `rt: Runtime`, `desk: Desk`, `caller: Caller`, `request: Request`,
    `body: <model>` (the JSON body), `query: <model>` (the query string), `once: Once` (the Idempotency-Key of a POST),
    `received: <body>` (what `reads` made of it); every other one is a path parameter. It returns a model, a dict or a
    list (200) or a Reply.

    access: the contract's caller word. answers: the wire model of a 2xx, by status where there are several; it is
    what /openapi.json says and tests hold every response against. face: the dialect of its errors and credentials.
    reads: takes in the body of a known caller before the handler is called, which gets it as `received`.
    bodies: what /openapi.json says of such bodies, by media type: a model, or a `Media` for one that is no JSON.
    """

    def wrap(handler: Handler) -> Endpoint:
        given = Given(
            handler=handler,
            access=access,
            answers=answers if isinstance(answers, Mapping) else {200: answers},
            even_suspended=even_suspended,
            face=face,
            reads=reads,
            bodies=bodies or {},
            wanted=tuple(inspect.signature(handler).parameters),
            hints=get_type_hints(handler),
        )

        async def answer(request: Request) -> Response:
            try:
                return await _answered(request, given)
            except Exception as error:  # noqa: BLE001 - every error is rendered here
                return failed(request, error, face)

        answer.given = given  # type: ignore[attr-defined]
        return answer

    return wrap


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a route's decorator and signature say; the route table and /openapi.json read it."""

    handler: Handler
    access: Access
    answers: Mapping[int, Any]
    even_suspended: bool
    face: Face
    reads: Reader | None
    bodies: Mapping[str, Any]
    wanted: tuple[str, ...]
    hints: Mapping[str, Any]


def given_of(endpoint_: Endpoint) -> Given:
    """What is known of an endpoint."""
    given: Given = endpoint_.given  # type: ignore[attr-defined]
    return given


async def _answered(request: Request, given: Given) -> Response:
    authenticator: Authenticator = request.app.state.authenticator
    runtime: Runtime = request.app.state.runtime
    caller = Caller()
    if given.access != "none":
        caller = await authenticator.caller(request, given.access, face=given.face, even_suspended=given.even_suspended)
        tell(request, team_id=caller.team_id, admin=caller.admin.user_id if caller.admin else None)
    if given.reads is None:
        return await _once(request, given, caller, None)
    received = await given.reads(runtime, caller, request)
    try:
        return await _once(request, given, caller, received)
    finally:
        if received is not None:
            await received.discard()


async def _once(request: Request, given: Given, caller: Caller, received: Received | None) -> Response:
    """Act, or answer with what an earlier request with the same key was told."""
    once = await open_once(request.app.state.runtime, caller, request, received)
    earlier = await repeated(once)
    if isinstance(earlier, Response):
        return earlier
    try:
        return await _acted(request, given, caller, earlier, received)
    except (CallFailed, CallGoesOn):
        # They speak of a call that was accepted, this request's own: no twin was quicker.
        raise
    except (Repeated, WaybillError) as error:
        if once.scope is None or earlier.is_repeat:
            raise
        # The twin of this request may have been quicker; what refused this one is then the twin's own effect.
        again = await repeated(once)
        if isinstance(again, Response):
            return again
        if again.is_repeat:
            return await _acted(request, given, caller, again, received)
        if isinstance(error, Repeated):
            raise still_running() from None
        raise


async def _acted(request: Request, given: Given, caller: Caller, once: Once, received: Received | None) -> Response:
    if once.scope is not None and "once" not in given.wanted:
        raise Invalid.not_supported_yet("header", "idempotency-key")
    arguments = await _arguments(request, given, caller, once, received)
    result = await given.handler(**arguments)
    tell(request, job_id=_job_of(result))
    response = _rendered(result)
    if given.access in WRITING:
        request.app.state.authenticator.forget()
    if once.is_repeat:
        response.headers.update(REPLAYED)
    return response


async def _arguments(
    request: Request, given: Given, caller: Caller, once: Once, received: Received | None
) -> dict[str, Any]:
    runtime: Runtime = request.app.state.runtime
    arguments: dict[str, Any] = {}
    for name in given.wanted:
        match name:
            case "rt":
                arguments[name] = runtime
            case "caller":
                arguments[name] = caller
            case "desk":
                arguments[name] = request.app.state.desk
            case "request":
                arguments[name] = request
            case "once":
                arguments[name] = once
            case "received":
                arguments[name] = received
            case "body":
                arguments[name] = await body_of(request, given.hints[name], _most_bytes(runtime, given))
            case "query":
                arguments[name] = query_of(request, given.hints[name])
            case _:
                arguments[name] = request.path_params[name]
    return arguments


def _most_bytes(runtime: Runtime, given: Given) -> int:
    most = runtime.settings.max_body_bytes
    return min(most, MOST_OF_NOBODY) if given.access == "none" else most


async def body_of(request: Request, model: type[Model], limit_bytes: int) -> Model:
    """The JSON body as `model`, whatever Content-Type says. Raises Invalid, and what `read_body` does.

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
        raise Invalid(findings(error, place, names_of(model))) from None


def failed(request: Request, error: Exception, face: Face) -> Response:
    """The response for an error: the contract's text for ours, 503 for infrastructure, 500 and a log line for bugs."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=CLIENT_CLOSED)
    return face.refusal(request, known(request, error))


def known(request: Request, error: Exception) -> WaybillError:
    """The error as one of ours; what nobody foresaw is logged."""
    if isinstance(error, WaybillError):
        return error
    if isinstance(error, HTTPException):
        return RoutingError(error.status_code, error.detail, headers=error.headers)
    if is_down(error) or isinstance(error, redis.RedisError):
        logger.warning("unavailable", path=request.scope["path"], error=type(error).__name__)
        return Unavailable()
    logger.error("internal_error", path=request.scope["path"], exc_info=error)
    return WaybillError("Internal Server Error")


def _job_of(result: Any) -> str | None:
    """The job that an answer is about; a created one is named nowhere else."""
    body = result.body if isinstance(result, Reply) else result
    return body.get("job_id") if isinstance(body, dict) else None


def _rendered(result: Any) -> Response:
    if isinstance(result, Response):
        return result
    if isinstance(result, Reply):
        if result.status == 304:
            return Response(status_code=304, headers=dict(result.headers))
        return JSON(result.body, status_code=result.status, headers=dict(result.headers))
    return JSON(result)
