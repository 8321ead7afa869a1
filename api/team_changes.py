"""Change what a team has, in the caller's transaction: every field but its ids and its key."""

from typing import Any

from api import new_key, new_team, team_objects
from api.new_team import Modes
from api.wire.team_bodies import ChangeTeam
from shared import audit, budgets, credit_accounts, money, teams
from shared.audit import Admin
from shared.db import CoreTx, Tx

REASON = "Team updated by admin"


async def change(tx: CoreTx, team_id: str, body: ChangeTeam, by: Admin | None) -> None:
    """Set what was sent. Raises NotFound, BadRequest, Invalid."""
    asked = new_team.modes(body.budget_mode, body.limit_mode)
    sent = body.model_fields_set
    await team_objects.lock_team(tx, team_id)
    columns: dict[str, Any] = {name: getattr(body, name) for name in new_team.COLUMNS if name in sent}
    if asked.budget is not None:
        columns["budget_mode"] = asked.budget
    await teams.change(tx, team_id, columns)
    if body.status is not None:
        await teams.set_status(tx, team_id, body.status)
    if "access_groups" in sent:
        await team_objects.hold_groups(tx, team_id, body.access_groups)
    await _change_budget(tx, team_id, body)
    await _change_account(tx, team_id, body, asked)
    await audit.record(tx, by, "updated_team", "team", team_id, body.model_dump(mode="json", exclude_unset=True))


async def _change_budget(tx: Tx, team_id: str, body: ChangeTeam) -> None:
    if not body.model_fields_set & {"max_budget_usd", "budget_duration"}:
        return
    now = await budgets.of_team(tx, team_id)
    maximum, duration = (now.max_nanousd, now.duration) if now else (None, None)
    if "max_budget_usd" in body.model_fields_set:
        maximum = None if body.max_budget_usd is None else money.nanousd(body.max_budget_usd)
    if "budget_duration" in body.model_fields_set:
        duration = body.budget_duration
    if maximum is None and body.budget_duration is not None:
        raise new_key.needs_budget("budget_duration", "max_budget_usd")
    await budgets.set_budget(tx, team_id=team_id, max_nanousd=maximum, duration=duration)


async def _change_account(tx: CoreTx, team_id: str, body: ChangeTeam, asked: Modes) -> None:
    """A limit that becomes softer comes before the credits move, one that becomes `hard` after."""
    limits: dict[str, Any] = {} if asked.limit is None else {"limit_mode": asked.limit}
    if "credit_limit" in body.model_fields_set:
        limits["credit_limit"] = body.credit_limit
    if asked.limit != "hard":
        await credit_accounts.set_limits(tx, team_id, **limits)
    await credit_accounts.adjust(tx, team_id, allocated=body.credits_allocated, used=body.credits_used, reason=REASON)
    if asked.limit == "hard":
        await credit_accounts.set_limits(tx, team_id, **limits)
