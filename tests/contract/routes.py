"""The routes of the app as the sweeps see them, and paths with their parameters filled in."""

import re
from collections.abc import Mapping

from api import app
from api.openapi_routes import Documented, documented

ROUTES = [*documented(app.ROOT), *documented(app.API, "/api")]
NOBODY = "019aa3c2-7b1e-7c44-9d0a-3f5b1c2d4e6f"


def named(route: Documented) -> str:
    """How a test of this route is called."""
    return f"{route.method} {route.template}"


def filled(route: Documented, values: Mapping[str, str]) -> str:
    """The path with these values; the rest names nothing that exists."""
    return re.sub(r"{(\w+)}", lambda found: values.get(found[1], NOBODY), route.template)


def opened_by(*access: str) -> list[Documented]:
    """The routes with one of these caller words."""
    return [route for route in ROUTES if route.given.access in access]
