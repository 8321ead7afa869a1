"""What handlers answer with, and how it becomes bytes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from pydantic import BaseModel
from starlette.responses import Response


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
        return content if isinstance(content, bytes) else rendered(content)


def rendered(body: Any) -> bytes:
    """The JSON text of an answer's body."""
    return orjson.dumps(body, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"cannot serialise {type(value).__name__}")
