"""Teams: made by admins, read by admins and by themselves, suspended and resumed."""

from typing import Any

from api import new_team, objects
from api.auth import Caller
from api.fields import WithReason
from api.http import endpoint
from shared import credit_accounts, log, names, teams
from shared.db import Tx
from shared.errors import Forbidden, NotFound
from shared.runtime import Runtime

logger = log.get(__name__)


@endpoint("admin:w")
async def create_team(rt: Runtime, body: new_team.CreateTeam) -> dict[str, Any]:
    """A new team; the only answer that shows its virtual key and its callback secret."""
    new_team.check(rt, body)
    async with rt.db.transaction() as tx:
        made = await new_team.create(rt, tx, body)
        team = await _team(tx, body.team_id, admin=True)
    shown_once = {"virtual_key": made.virtual_key, "callback_secret": made.callback_secret}
    return {**team, **shown_once, "message": "Team created successfully"}


@endpoint("any", even_suspended=True)
async def get_team(rt: Runtime, caller: Caller, team_id: str) -> dict[str, Any]:
    """The team; a suspended one may still read itself, to learn why it is refused elsewhere."""
    if not caller.may_see(team_id):
        raise Forbidden("Cannot access a different team")
    async with rt.db.statement() as tx:
        return await _team(tx, team_id, admin=caller.is_admin)


@endpoint("admin:w")
async def suspend_team(rt: Runtime, team_id: str, body: WithReason) -> dict[str, Any]:
    """Refuse the team's requests from the next one on; calls already accepted go on."""
    return await _set_status(rt, team_id, "suspended", "has been suspended", body.reason)


@endpoint("admin:w")
async def resume_team(rt: Runtime, team_id: str, body: WithReason) -> dict[str, Any]:
    """Serve the team again, whether it was suspended or paused."""
    return await _set_status(rt, team_id, "active", "has been resumed", body.reason)


async def _team(tx: Tx, team_id: str, *, admin: bool) -> dict[str, Any]:
    found = await teams.get(tx, team_id) if names.is_name(team_id) else None
    account = await credit_accounts.balance(tx, team_id) if found else None
    if found is None or account is None:
        raise NotFound(f"Team '{team_id}' not found")
    return objects.team(found, account, await teams.usage(tx, team_id), admin=admin)


async def _set_status(rt: Runtime, team_id: str, status: str, done: str, reason: str | None) -> dict[str, Any]:
    changed = False
    if names.is_name(team_id):
        async with rt.db.transaction() as tx:
            changed = await teams.set_status(tx, team_id, status)
    if not changed:
        raise NotFound(f"Team '{team_id}' not found")
    logger.info("team_status_changed", team_id=team_id, status=status, reason=reason)
    return {"team_id": team_id, "status": status, "message": f"Team '{team_id}' {done}"}
