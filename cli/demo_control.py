"""The demo provider's /_control routes, by which tests and benchmarks script faults and read what was asked."""

from collections.abc import Awaitable, Callable

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cli.demo_bodies import error_body
from cli.demo_desk import Desk, Which
from cli.demo_faults import Pace, Script
from cli.demo_texts import Json


class Hold(BaseModel):
    model_config = ConfigDict(extra="forbid")

    match: str | None = None


class Awaited(Which):
    count: int = Field(default=1, ge=1)
    timeout: float = Field(default=10, ge=0, le=600)


Action = Callable[[Desk, Request], Awaitable[Json]]


def control_routes(desk: Desk) -> list[Route]:
    table: list[tuple[str, str, Action]] = [
        ("POST", "script", add_script),
        ("POST", "reset", reset),
        ("POST", "delay", set_pace),
        ("POST", "hold", hold),
        ("POST", "release", release),
        ("GET", "requests", list_requests),
        ("GET", "wait", wait_for_requests),
    ]
    return [Route(f"/_control/{name}", _endpoint(desk, act), methods=[method]) for method, name, act in table]


def _endpoint(desk: Desk, act: Action) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            status, content = 200, await act(desk, request)
        except ValidationError as error:
            status, content = 400, error_body(400, str(error))
        return Response(orjson.dumps(content), status, media_type="application/json")

    return endpoint


async def add_script(desk: Desk, request: Request) -> Json:
    script = Script.model_validate_json(await request.body())
    desk.scripts.append(script)
    return {"scripts": len(desk.scripts)}


async def reset(desk: Desk, _: Request) -> Json:
    desk.reset()
    return {}


async def set_pace(desk: Desk, request: Request) -> Json:
    desk.pace = Pace.model_validate_json(await request.body())
    return desk.pace.model_dump()


async def hold(desk: Desk, request: Request) -> Json:
    desk.hold(Hold.model_validate_json(await request.body() or b"{}").match)
    return {}


async def release(desk: Desk, _: Request) -> Json:
    desk.release()
    return {}


async def list_requests(desk: Desk, request: Request) -> Json:
    entries = desk.select(Which.model_validate(dict(request.query_params)))
    return {"count": len(entries), "requests": [entry.shown() for entry in entries]}


async def wait_for_requests(desk: Desk, request: Request) -> Json:
    """Long poll; `reached` false says that the timeout came first."""
    asked = Awaited.model_validate(dict(request.query_params))
    count = await desk.wait(asked, asked.count, asked.timeout)
    return {"count": count, "reached": count >= asked.count}
