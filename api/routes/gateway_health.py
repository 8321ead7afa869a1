"""The gateway's health: which models can be asked, as the LiteLLM proxy says it; no provider is asked for it."""

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request

from api.auth import Authenticator
from api.desk import Desk
from api.gateway.face import GATEWAY
from api.gateway.model_health import AliasHealth, ModelHealth
from api.http import endpoint
from api.replies import Reply
from api.wire.gateway_models import ModelHealthOut, ModelHealthQuery, NoModelOut
from shared.db import DatabaseDown
from shared.errors import UnknownModel, WaybillError

LATER = {"Retry-After": "1"}


@endpoint("none", answers={200: ModelHealthOut, 503: NoModelOut}, face=GATEWAY)
async def gateway_health(request: Request, desk: Desk, query: ModelHealthQuery) -> Reply:
    """Whether models can be asked: 503 when none can, or not the one that `model` names."""
    try:
        found = _named(await _health(request).now(), query.model)
        shown = found if await _is_admin(request) else []
    except DatabaseDown:
        found, shown = [], []
    down = [one for one in found if one.error]
    # Of a group one is enough: a call goes on to the next.
    some = any(one.is_usable for one in found)
    whole = not down and not desk.door.is_backlogged
    body: dict[str, Any] = {
        "status": "unhealthy" if not some else "healthy" if whole else "degraded",
        "models": len(found),
        "providers": sorted({one.provider for one in found}),
        "healthy_count": len(found) - len(down),
        "unhealthy_count": len(down),
        "healthy_endpoints": [_endpoint(one) for one in shown if not one.error],
        "unhealthy_endpoints": [{**_endpoint(one), "error": one.error} for one in shown if one.error],
    }
    return Reply(body=body) if some else Reply(body=body, status=503, headers=LATER)


def _health(request: Request) -> ModelHealth:
    found: ModelHealth = request.app.state.model_health
    return found


def _named(standing: Sequence[AliasHealth], model: str | None) -> list[AliasHealth]:
    """All, or the alias of this name, or the members of the group. Raises UnknownModel when none is active."""
    if model is None:
        return list(standing)
    own = [one for one in standing if one.model == model]
    found = own or [one for one in standing if model in one.groups]
    if not found:
        raise UnknownModel("There is no active model of this name")
    return found


def _endpoint(one: AliasHealth) -> dict[str, str]:
    return {"model": one.model, "provider": one.provider}


async def _is_admin(request: Request) -> bool:
    """Whether an admin asks; all others, whose credential may be wrong or unreadable now, see numbers only."""
    authenticator: Authenticator = request.app.state.authenticator
    try:
        return (await authenticator.caller(request, "admin:r", face=GATEWAY)).is_admin
    except (WaybillError, *DatabaseDown):
        return False
