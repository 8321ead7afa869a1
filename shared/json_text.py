"""JSON that Postgres and the provider can take."""

import re
from collections.abc import Iterable
from typing import Any

import orjson

from shared.errors import Invalid

MAX_DEPTH = 64
MAX_VALUES = 300_000
"""Of a body: as many tokens as a provider takes in one request. Each is looked at, while nobody else is served."""
OFFSET = re.compile(r"column \d+ \(char (\d+)\)")


def parse_json(raw: bytes) -> object:
    """The value in `raw`. Raises Invalid: bad JSON or UTF-8, NaN, NUL characters, too deep, too many values."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        found = OFFSET.search(str(error))
        raise Invalid.at(["body", int(found[1]) if found else 0], "JSON decode error", "json_invalid") from None
    if _may_have_too_many(raw) and _has_more_values(value, MAX_VALUES):
        raise Invalid.at(["body"], f"holds more than {MAX_VALUES} values", "value_error.too_many_values")
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _depth_exceeds(value, MAX_DEPTH):
        raise Invalid.at(["body"], f"nesting is over {MAX_DEPTH} levels", "value_error.nesting")
    if b"\\u0000" in raw and _has_nul(value):
        raise Invalid.at(["body"], "NUL characters are not allowed", "value_error.nul")
    return value


def has_too_many_values(raw: bytes) -> bool:
    """Whether `parse_json` refuses it for that; False for what is no JSON."""
    if not _may_have_too_many(raw):
        return False
    try:
        return _has_more_values(orjson.loads(raw), MAX_VALUES)
    except orjson.JSONDecodeError:
        return False


def _may_have_too_many(raw: bytes) -> bool:
    return raw.count(b",") >= MAX_VALUES


def _has_more_values(value: object, most: int) -> bool:
    found, level = 1, _containers([value])
    while level and found <= most:
        found += sum(map(len, level))
        level = _inside(level)
    return found > most


def _depth_exceeds(value: object, left: int) -> bool:
    level = _containers([value])
    while level and left:
        left -= 1
        level = _inside(level)
    return bool(level)


def _inside(level: list[Any]) -> list[Any]:
    """The containers in these containers; written for speed, since nobody else is served meanwhile."""
    return [
        child
        for item in level
        if item
        for child in (item.values() if type(item) is dict else item)
        if type(child) is dict or type(child) is list
    ]


def _containers(items: Iterable[object]) -> list[Any]:
    return [item for item in items if isinstance(item, (dict, list))]


def _has_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any(map(_has_nul, value)) or any(map(_has_nul, value.values()))
    return isinstance(value, list) and any(map(_has_nul, value))
