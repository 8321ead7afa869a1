"""Whether a virtual key may be used now, and for this request: its own state, its team's, its type and its routes."""

from collections.abc import Mapping
from datetime import datetime

from starlette.requests import Request

from api.gateway import paths
from api.sessions import CHALLENGE
from shared import keys
from shared.errors import Forbidden, KeyBlocked, KeyExpired, TooManyRequests

MAX_PAUSE_S = 3600
DEFAULT_PAUSE_S = 60
READING = ("GET", "HEAD")
ROUTES_OF_TYPE: Mapping[str, tuple[str, ...]] = {
    "llm_api": ("/v1", "/api/jobs", "/api/models", "/api/model-aliases"),
    "management": ("/key", "/user", "/team", "/spend", "/api/teams", "/api/organizations", "/api/credits"),
}
"""What a key of a narrow type may use, each with all that is below it."""


def check_key(key: keys.Key, now: datetime) -> None:
    """Raises KeyBlocked, KeyExpired."""
    if key.blocked:
        raise KeyBlocked("API key is blocked", headers=CHALLENGE)
    if key.expires_at is not None and key.expires_at <= now:
        raise KeyExpired("API key has expired", headers=CHALLENGE)


def check_route(key: keys.Key, request: Request) -> None:
    """Raises Forbidden when the key's type, or the routes it is narrowed to, leave this request out."""
    path = paths.one_name(request.scope["path"])
    allowed = [_any_below(path, routes) for routes in (ROUTES_OF_TYPE.get(key.key_type), key.allowed_routes)]
    if not all(allowed) or (key.key_type == "read_only" and request.method not in READING):
        raise Forbidden("API key is not allowed to use this route")


def check_team(key: keys.Key, now: datetime) -> None:
    """Raises Forbidden (suspended), TooManyRequests (paused)."""
    if "suspended" in (key.team_status, key.organization_status):
        raise Forbidden("Team access is suspended. Please contact support.")
    left = [_left_s(key.team_status, key.team_paused_until, now), _left_s(*_organization(key), now)]
    if any(seconds > 0 for seconds in left):
        raise TooManyRequests("Team access temporarily paused", retry_after_s=min(MAX_PAUSE_S, int(max(left)) + 1))


def _any_below(path: str, routes: list[str] | tuple[str, ...] | None) -> bool:
    """Whether one of the routes takes in the path; each stands for itself and all below it, None for everything."""
    if routes is None:
        return True
    named = [name for route in routes for name in paths.taken_in(route)]
    return any(path == name or path.startswith(f"{name}/") for name in named)


def _organization(key: keys.Key) -> tuple[str, datetime | None]:
    return key.organization_status, key.organization_paused_until


def _left_s(status: str, until: datetime | None, now: datetime) -> float:
    """For how long a pause still lasts; one without an end is said to last a minute."""
    if status != "paused":
        return 0
    return DEFAULT_PAUSE_S - 1 if until is None else (until - now).total_seconds()
