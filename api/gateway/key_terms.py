"""What a key of the gateway may do less than its team, written: columns, expiry, budget, and fields that are only kept.

A budget needs a maximum. What is said of one without it (`soft_budget`, `budget_duration`) waits among the kept fields.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID

from api import new_key, team_objects
from api.gateway.key_bodies import GenerateKey, KeyTerms, UpdateKey, check_size
from api.gateway.key_objects import KEPT_TERMS, budget_of
from shared import budgets, money
from shared.budgets import Budget
from shared.db import CoreTx, Tx
from shared.errors import BadRequest, Invalid, NotFound
from shared.key_views import KeyView
from shared.keys import OwnTerms
from shared.runtime import Runtime

BUDGET = ("max_budget", *KEPT_TERMS)


async def lock_team(rt: Runtime, tx: Tx, body: GenerateKey) -> str:
    """The id of the team a new key is for, locked: the one named, else the default. Raises NotFound, BadRequest."""
    team_id = body.team_id or rt.settings.default_team
    try:
        organization_id = await team_objects.lock_team(tx, team_id)
    except NotFound as error:
        if body.team_id:
            raise NotFound(str(error.detail), param="team_id") from None
        raise BadRequest(
            f"team_id is needed: there is no default team '{team_id}' on this server", param="team_id"
        ) from None
    if body.organization_id and body.organization_id != organization_id:
        raise BadRequest(f"Team '{team_id}' is not of this organization", param="organization_id")
    return team_id


def of_new(body: GenerateKey, by: str) -> OwnTerms:
    """The columns of a new key."""
    budget = {name: _plain(getattr(body, name)) for name in KEPT_TERMS if body.max_budget is None}
    kept = {name: value for name, value in budget.items() if value is not None}
    return OwnTerms(**body.columns, extra=body.others | kept, created_by=by, updated_by=by)


async def set_new_budget(tx: Tx, key_id: UUID, body: GenerateKey) -> None:
    """Give a new key its budget, when it has a maximum."""
    if body.max_budget is not None:
        await _set_budget(tx, key_id, {name: getattr(body, name) for name in BUDGET})


async def change(tx: CoreTx, key: KeyView, budget: Budget | None, body: UpdateKey, by: str) -> None:
    """Set what was sent, of a locked key; what its budget spent and holds goes on. Raises BadRequest, Invalid."""
    sent = body.model_fields_set
    if "team_id" in sent and body.team_id != key.team_id:
        raise BadRequest("A key stays with its team", param="team_id")
    if "organization_id" in sent and body.organization_id != key.organization_id:
        raise BadRequest("A key stays with its organization", param="organization_id")
    wanted = budget_of(key, budget) | {name: getattr(body, name) for name in BUDGET if name in sent}
    waiting = {name: _plain(wanted[name]) for name in KEPT_TERMS if wanted["max_budget"] is None}
    extra = _merged(key.extra, body, dict.fromkeys(KEPT_TERMS) | waiting)
    await new_key.change(tx, key.id, {**body.columns, "extra": extra, "updated_by": by})
    if "duration" in sent:
        await new_key.set_expiry(tx, key.id, body.duration)
    if sent & set(BUDGET):
        await _set_budget(tx, key.id, wanted)


def _merged(old: Mapping[str, Any], body: KeyTerms, budget: Mapping[str, Any]) -> dict[str, Any]:
    """The kept fields with those that were sent; null takes one away. Raises Invalid when they are too big."""
    merged = {name: value for name, value in {**old, **body.others, **budget}.items() if value is not None}
    try:
        check_size(merged)
    except ValueError as error:
        raise Invalid.at(["body"], str(error), "value_error.too_large") from None
    return merged


async def _set_budget(tx: Tx, key_id: UUID, wanted: Mapping[str, Any]) -> None:
    await budgets.set_budget(
        tx,
        key_id=key_id,
        max_nanousd=_nanousd(wanted["max_budget"]),
        soft_nanousd=_nanousd(wanted["soft_budget"]),
        duration=wanted["budget_duration"],
    )


def _nanousd(amount: Decimal | float | None) -> int | None:
    return None if amount is None else money.nanousd(Decimal(str(amount)))


def _plain(value: Any) -> Any:
    """A budget's field as JSON has it."""
    return float(value) if isinstance(value, Decimal) else value
