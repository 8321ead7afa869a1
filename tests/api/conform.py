"""Every response of a test is held against /openapi.json: an httpx hook that fails what the document does not say."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx
import orjson
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import best_match
from referencing import Registry
from referencing.jsonschema import DRAFT202012
from starlette.routing import compile_path

from api import app
from api.gateway import paths
from api.openapi import document
from api.openapi_routes import all_documented

WHOLE = "waybill:openapi"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
HERE_ONLY = tuple(paths.PREFIX + path for _, path, _ in app.GATEWAY_HEALTH)
"""Paths under the gateway's prefix that are not another name of one at the root."""
ELSEWHERE = (404, 405)
"""What a path or method that is not in the document is answered with."""

formats = FormatChecker(formats=())


@formats.checks("date-time")
def _is_time(value: object) -> bool:
    return not isinstance(value, str) or TIME.fullmatch(value) is not None


@dataclass(frozen=True)
class Answered:
    """What the document says of one status of one operation."""

    headers: tuple[str, ...]
    contents: Mapping[str, Draft202012Validator | None]


async def check(response: httpx.Response) -> None:
    """An httpx response hook. Raises AssertionError."""
    request = response.request
    await response.aread()
    problem = found_wrong(request.method, request.url.path, response.status_code, response.headers, response.content)
    assert problem is None, f"{request.method} {request.url.path} {response.status_code}: {problem}"


def found_wrong(method: str, path: str, status: int, headers: Mapping[str, str], body: bytes) -> str | None:
    """What is not as the document says, or None."""
    template = _template("GET" if method == "HEAD" else method, path)
    if template is None:
        return _wrong_nowhere(method, path, status, body)
    said = _answered("get" if method == "HEAD" else method.lower(), template, status)
    if said is None:
        return f"status is not in the document of {template}: {body[:200]!r}"
    lacking = [name for name in said.headers if name.lower() not in headers]
    if lacking:
        return f"lacks {lacking}"
    if method == "HEAD" or not said.contents:
        return None if not body else "has a body"
    return _wrong_content(said, headers.get("content-type", ""), body)


def _wrong_nowhere(method: str, path: str, status: int, body: bytes) -> str | None:
    """A path or method that is not in the document: nothing else may be there, and it is refused in its dialect."""
    if method == "OPTIONS":
        return None
    if status not in ELSEWHERE:
        return "not in the document"
    validator = _validator("#/components/schemas/" + ("GatewayError" if paths.is_ours(path) else "Error"))
    error = None if method == "HEAD" else best_match(validator.iter_errors(orjson.loads(body)))
    return None if error is None else f"{error.json_path}: {error.message[:300]}"


def _wrong_content(said: Answered, content_type: str, body: bytes) -> str | None:
    media_type = content_type.partition(";")[0]
    if media_type not in said.contents and "*/*" not in said.contents:
        return f"is {media_type}, not {' or '.join(said.contents)}"
    validator = said.contents.get(media_type)
    if validator is None:
        return None
    error = best_match(validator.iter_errors(orjson.loads(body)))
    return None if error is None else f"{error.json_path}: {error.message[:300]}"


@cache
def _document() -> dict[str, Any]:
    return document(app.TABLES)


@cache
def _registry() -> "Registry[Any]":
    whole: Registry[Any] = Registry().with_resource(WHOLE, DRAFT202012.create_resource(_document()))
    return whole


@cache
def _routes() -> list[tuple[str, re.Pattern[str], str]]:
    routes = all_documented(app.TABLES)
    return [(route.method, compile_path(route.path)[0], route.template) for route in routes]


def _template(method: str, path: str) -> str | None:
    path = path if path in HERE_ONLY else paths.one_name(path)
    return next((template for own, regex, template in _routes() if own == method and regex.match(path)), None)


@cache
def _answered(method: str, template: str, status: int) -> Answered | None:
    place = ["paths", template, method, "responses", str(status)]
    said = _at(place)
    if said is None:
        return None
    if "$ref" in said:
        place = said["$ref"].removeprefix("#/").split("/")
        said = _at(place)
    required = [name for name, header in said["headers"].items() if _header(header).get("required")]
    contents: dict[str, Draft202012Validator | None] = {}
    for media_type, content in said.get("content", {}).items():
        pointer = "/".join(part.replace("~", "~0").replace("/", "~1") for part in (*place, "content", media_type))
        is_json = media_type == "application/json" and content["schema"]
        contents[media_type] = _validator(f"#/{pointer}/schema") if is_json else None
    return Answered(tuple(required), contents)


@cache
def _validator(pointer: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"{WHOLE}{pointer}"}, registry=_registry(), format_checker=formats)


def _header(header: Mapping[str, Any]) -> Mapping[str, Any]:
    return _at(header["$ref"].removeprefix("#/").split("/")) or {}


def _at(place: list[str]) -> Any:
    found: Any = _document()
    for part in place:
        found = found.get(part) if isinstance(found, dict) else None
    return found
