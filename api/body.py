"""Request bodies: read under a byte limit and parsed as JSON that Postgres and the provider can take."""

import re

import orjson
from starlette.requests import Request

from shared.errors import BodyTooLarge, Invalid

MAX_DEPTH = 64
OFFSET = re.compile(r"column \d+ \(char (\d+)\)")


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The whole body, read once and kept. Raises BodyTooLarge as soon as the limit is passed."""
    kept: bytes | None = getattr(request.state, "raw_body", None)
    if kept is not None:
        return kept
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > limit_bytes:
        raise BodyTooLarge
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit_bytes:
            raise BodyTooLarge
        chunks.append(chunk)
    whole = request.state.raw_body = b"".join(chunks)
    return whole


def parse_json(raw: bytes) -> object:
    """The value in `raw`. Raises Invalid: bad JSON or UTF-8, NaN, nesting over 64 levels, NUL characters."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        found = OFFSET.search(str(error))
        raise Invalid.at(["body", int(found[1]) if found else 0], "JSON decode error", "json_invalid") from None
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _depth_exceeds(value, MAX_DEPTH):
        raise Invalid.at(["body"], f"nesting is over {MAX_DEPTH} levels", "value_error.nesting")
    if b"\\u0000" in raw and _has_nul(value):
        raise Invalid.at(["body"], "NUL characters are not allowed", "value_error.nul")
    return value


def _depth_exceeds(value: object, left: int) -> bool:
    level = [value]
    while level:
        if left == 0 and any(isinstance(item, dict | list) for item in level):
            return True
        left -= 1
        level = [child for item in level for child in _children(item)]
    return False


def _has_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(map(_has_nul, value)) or any(map(_has_nul, value.values()))
    return isinstance(value, list) and any(map(_has_nul, value))


def _children(item: object) -> list[object]:
    if isinstance(item, dict):
        return list(item.values())
    return item if isinstance(item, list) else []
