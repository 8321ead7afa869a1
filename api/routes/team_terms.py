"""Whether a team is served, which models it holds, and its markup."""

from datetime import datetime
from typing import Any

from api import new_team, team_objects
from api.auth import Caller
from api.fields import WithReason
from api.http import endpoint
from api.once import Once
from api.wire.team_bodies import PauseTeam, SetGroups, SetMarkup
from api.wire.teams import AccessGroupsOut, MarkupOut, ModelGroupsOut, TeamStatusOut
from shared import audit, credit_accounts, teams
from shared.errors import Conflict, Invalid
from shared.runtime import Runtime
from shared.teams import Team


@endpoint("admin:w", answers=TeamStatusOut)
async def suspend_team(rt: Runtime, caller: Caller, team_id: str, body: WithReason, once: Once) -> dict[str, Any]:
    """Refuse the team's requests from the next one on; calls already accepted go on."""
    return await _set_status(rt, caller, team_id, "suspended", body.reason, once)


@endpoint("admin:w", answers=TeamStatusOut)
async def resume_team(rt: Runtime, caller: Caller, team_id: str, body: WithReason, once: Once) -> dict[str, Any]:
    """Serve the team again, whether it was suspended or paused."""
    return await _set_status(rt, caller, team_id, "active", body.reason, once)


@endpoint("admin:w", answers=TeamStatusOut)
async def pause_team(rt: Runtime, caller: Caller, team_id: str, body: PauseTeam, once: Once) -> dict[str, Any]:
    """Ask the team's clients to come again later; ends by itself at `until`. A suspended team is resumed first."""
    return await _set_status(rt, caller, team_id, "paused", body.reason, once, until=body.until)


@endpoint("admin:w", answers=AccessGroupsOut)
async def set_access_groups(rt: Runtime, caller: Caller, team_id: str, body: SetGroups) -> dict[str, Any]:
    """Make these the groups the team holds, in this order."""
    team = await _set_groups(rt, caller, team_id, body)
    return {
        "team_id": team_id,
        "access_groups": team.access_groups,
        "allowed_model_aliases": team.aliases,
        "message": "Model access groups assigned successfully",
    }


@endpoint("admin:w", answers=ModelGroupsOut)
async def set_model_groups(rt: Runtime, caller: Caller, team_id: str, body: SetGroups) -> dict[str, Any]:
    """The same, in the other dialect."""
    team = await _set_groups(rt, caller, team_id, body)
    return {
        "team_id": team_id,
        "model_groups": team.access_groups,
        "message": "Model groups assigned successfully",
    }


@endpoint("admin:w", answers=MarkupOut)
async def set_markup(rt: Runtime, caller: Caller, team_id: str, body: SetMarkup) -> dict[str, Any]:
    """Set what is added to provider costs, and how credits are reckoned from them."""
    asked = new_team.modes(body.budget_mode, None)
    columns = body.model_dump(exclude_unset=True, exclude={"budget_mode"})
    if asked.budget is not None:
        columns["budget_mode"] = asked.budget
    async with rt.db.transaction() as tx:
        await team_objects.lock_team(tx, team_id)
        await teams.change(tx, team_id, columns)
        if asked.limit is not None:
            await credit_accounts.set_limits(tx, team_id, limit_mode=asked.limit)
        details = body.model_dump(mode="json", exclude_unset=True)
        await audit.record(tx, caller.admin, "updated_markup", "team", team_id, details)
        team = await team_objects.find_team(tx, team_id)
    return {
        "team_id": team_id,
        "cost_markup_percentage": float(team.cost_markup_percentage),
        "budget_mode": team.budget_mode,
        "credits_per_dollar": float(team.credits_per_dollar),
        "message": "Markup updated successfully",
    }


async def _set_status(
    rt: Runtime,
    caller: Caller,
    team_id: str,
    status: str,
    reason: str | None,
    once: Once,
    *,
    until: datetime | None = None,
) -> dict[str, Any]:
    done = team_objects.DONE[status]
    async with rt.db.transaction() as tx:
        await team_objects.lock_team(tx, team_id)
        # The end of a pause would be the end of the suspension.
        if status == "paused" and (await team_objects.find_team(tx, team_id)).status == "suspended":
            raise Conflict(f"Team '{team_id}' is suspended: resume it before it is paused")
        if not await teams.set_status(tx, team_id, status, until=until):
            raise Invalid.at(["body", "until"], "must be in the future", "value_error.past")
        details = {"reason": reason, "until": until}
        await audit.record(tx, caller.admin, f"{done}_team", "team", team_id, details)
        answer = {"team_id": team_id, "status": status, "message": f"Team '{team_id}' has been {done}"}
        return await once.keep(tx, answer)


async def _set_groups(rt: Runtime, caller: Caller, team_id: str, body: SetGroups) -> Team:
    async with rt.db.transaction() as tx:
        await team_objects.lock_team(tx, team_id)
        await team_objects.hold_groups(tx, team_id, body.access_groups)
        details = {"access_groups": body.access_groups}
        await audit.record(tx, caller.admin, "updated_access_groups", "team", team_id, details)
        return await team_objects.find_team(tx, team_id)
