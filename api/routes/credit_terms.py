"""How a team's jobs are charged: budget mode, limit mode, conversion rates, thresholds of its alerts.

A change applies to jobs whose first call is accepted after it: each job keeps the terms it started under.
"""

from decimal import Decimal
from typing import Annotated, Any, get_args

from pydantic import BaseModel, Field

from api import accounts, team_objects
from api.accounts import Amount
from api.auth import Caller
from api.fields import MAX_CREDITS, Credits
from api.http import endpoint
from api.wire.credits import BudgetMode, BudgetModeOut, LimitMode, RatesOut, RatesUpdatedOut
from shared import audit, credit_accounts, teams
from shared.db import CoreTx
from shared.errors import BadRequest
from shared.runtime import Runtime
from shared.teams import Team

BUDGET_MODES: tuple[str, ...] = get_args(BudgetMode)
LIMIT_MODES: tuple[str, ...] = get_args(LimitMode)
TOKENS_PER_CREDIT = 10_000
CREDITS_PER_DOLLAR = Decimal(10)
ALERT_AT = [Decimal(80), Decimal(90), Decimal(100)]

Level = Annotated[Decimal, Field(gt=0, le=1000, allow_inf_nan=False)]


class Rates(BaseModel):
    """The body of PATCH /credits/teams/{team_id}/conversion-rates; null resets a rate to its default."""

    tokens_per_credit: Annotated[Amount, Field(le=MAX_CREDITS)] | None = None
    credits_per_dollar: Annotated[Decimal, Field(le=10**9, allow_inf_nan=False)] | None = None


class ChangeBudgetMode(Rates):
    """The body of PATCH /credits/teams/{team_id}/budget-mode; what is left out stays as it is."""

    budget_mode: str
    limit_mode: LimitMode | None = None
    credit_limit: Credits | None = None
    alert_at_percentage: Level | Annotated[list[Level], Field(max_length=20)] | None = None


@endpoint("admin:r", answers=RatesOut)
async def get_rates(rt: Runtime, team_id: str) -> dict[str, Any]:
    """What a credit is worth in the consumption modes."""
    async with rt.db.statement() as tx:
        team, _ = await accounts.find(tx, team_id)
    return _rates(team)


@endpoint("admin:w", answers=RatesUpdatedOut)
async def change_rates(rt: Runtime, caller: Caller, team_id: str, body: Rates) -> dict[str, Any]:
    """Set the rates given; those left out stay."""
    columns = _rate_columns(body)
    async with rt.db.transaction() as tx:
        team = await _changed(tx, caller, team_id, columns, "updated_conversion_rates")
    return {**_rates(team), "message": "Conversion rates updated successfully"}


@endpoint("admin:w", answers=BudgetModeOut)
async def change_budget_mode(rt: Runtime, caller: Caller, team_id: str, body: ChangeBudgetMode) -> dict[str, Any]:
    """Set the budget mode, and what else is given; a word of `limit_mode` as budget mode sets that one."""
    columns, limits = _mode_columns(body), _limits(body)
    async with rt.db.transaction() as tx:
        team = await _changed(tx, caller, team_id, columns, "updated_budget_mode", limits)
        _, account = await accounts.find(tx, team_id)
    return {
        "team_id": team_id,
        "budget_mode": team.budget_mode,
        "limit_mode": account.limit_mode,
        "credits_per_dollar": float(team.credits_per_dollar),
        "tokens_per_credit": team.tokens_per_credit,
        "message": "Budget mode updated successfully",
    }


async def _changed(
    tx: CoreTx, caller: Caller, team_id: str, columns: dict[str, Any], action: str, limits: dict[str, Any] | None = None
) -> Team:
    await team_objects.lock_team(tx, team_id)
    if columns:
        await teams.change(tx, team_id, columns)
    await credit_accounts.set_limits(tx, team_id, **(limits or {}))
    await audit.record(tx, caller.admin, action, "team", team_id, {**columns, **(limits or {})})
    team, _ = await accounts.find(tx, team_id)
    return team


def _rate_columns(body: Rates) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    tokens, dollars = body.tokens_per_credit, body.credits_per_dollar
    if "tokens_per_credit" in body.model_fields_set:
        if tokens is not None and (tokens <= 0 or tokens != int(tokens)):
            raise BadRequest("tokens_per_credit must be a positive integer")
        columns["tokens_per_credit"] = TOKENS_PER_CREDIT if tokens is None else int(tokens)
    if "credits_per_dollar" in body.model_fields_set:
        if dollars is not None and dollars <= 0:
            raise BadRequest("credits_per_dollar must be a positive number")
        columns["credits_per_dollar"] = CREDITS_PER_DOLLAR if dollars is None else dollars
    return columns


def _mode_columns(body: ChangeBudgetMode) -> dict[str, Any]:
    if body.budget_mode not in (*BUDGET_MODES, *LIMIT_MODES):
        raise BadRequest(f"budget_mode must be one of: {', '.join(BUDGET_MODES)}")
    columns = _rate_columns(body)
    if body.budget_mode in BUDGET_MODES:
        columns["budget_mode"] = body.budget_mode
    if "alert_at_percentage" in body.model_fields_set:
        given = body.alert_at_percentage
        levels = given if isinstance(given, list) else [given] if given is not None else ALERT_AT
        columns["alert_at_percentage"] = sorted(set(levels))
    return columns


def _limits(body: ChangeBudgetMode) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    if body.limit_mode is not None or body.budget_mode in LIMIT_MODES:
        limits["limit_mode"] = body.limit_mode or body.budget_mode
    if "credit_limit" in body.model_fields_set:
        limits["credit_limit"] = body.credit_limit
    return limits


def _rates(team: Team) -> dict[str, Any]:
    return {
        "team_id": team.id,
        "tokens_per_credit": team.tokens_per_credit,
        "credits_per_dollar": float(team.credits_per_dollar),
        "budget_mode": team.budget_mode,
        "using_defaults": {
            "tokens_per_credit": team.tokens_per_credit == TOKENS_PER_CREDIT,
            "credits_per_dollar": team.credits_per_dollar == CREDITS_PER_DOLLAR,
        },
    }
