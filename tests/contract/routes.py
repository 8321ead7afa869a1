"""The routes of the app as the sweeps see them, and paths with their parameters filled in."""

import re
from collections.abc import Mapping
from typing import Any

import httpx

from api import app
from api.openapi_routes import Documented, all_documented

ROUTES = list(all_documented(app.TABLES))
NOBODY = "019aa3c2-7b1e-7c44-9d0a-3f5b1c2d4e6f"


def named(route: Documented) -> str:
    """How a test of this route is called."""
    return f"{route.method} {route.template}"


def filled(route: Documented, values: Mapping[str, str]) -> str:
    """The path with these values; the rest names nothing that exists."""
    return re.sub(r"{(\w+)}", lambda found: values.get(found[1], NOBODY), route.template)


def refusal(route: Documented, answer: httpx.Response) -> tuple[int, Any]:
    """Status and text of a refusal that is in the dialect of the route, and in no other."""
    body = answer.json()
    if not route.is_of_gateway:
        assert set(body) == {"detail"}
        return answer.status_code, body["detail"]
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code", "provider"}
    return answer.status_code, body["error"]["message"]


def opened_by(*access: str) -> list[Documented]:
    """The routes with one of these caller words."""
    return [route for route in ROUTES if route.given.access in access]
