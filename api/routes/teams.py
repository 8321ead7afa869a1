"""Teams: made, changed and deleted by admins, read by admins and by themselves."""

from typing import Any

from starlette.requests import Request

from api import new_team, team_changes, team_objects
from api.auth import Caller
from api.http import endpoint
from api.lists import Page, next_link
from api.once import Once
from api.replies import Reply
from api.wire.team_bodies import ChangeTeam, CreateTeam
from api.wire.teams import ChangedTeamOut, DeletedTeamOut, NewTeamOut, TeamOut, VerifiedOut
from shared import deletion, names, teams
from shared.errors import BadRequest, Forbidden
from shared.runtime import Runtime


@endpoint("admin:w", answers=NewTeamOut)
async def create_team(rt: Runtime, caller: Caller, body: CreateTeam, once: Once) -> dict[str, Any]:
    """A new team; the only answer that shows its virtual key and its callback secret."""
    new_team.check(rt, body)
    async with rt.db.transaction() as tx:
        made = await new_team.create(rt, tx, body, caller.admin)
        team = await team_objects.show_team(tx, body.team_id, admin=True)
        shown_once = {"virtual_key": made.virtual_key, "callback_secret": made.callback_secret}
        return await once.keep(tx, {**team, **shown_once, "message": "Team created successfully"})


@endpoint("admin:r", answers=list[TeamOut])
async def list_teams(rt: Runtime, request: Request, query: Page) -> Reply:
    """All teams, newest first."""
    async with rt.db.statement() as tx:
        found = await teams.page(tx, limit=query.limit, offset=query.offset)
        shown = await team_objects.show_teams(tx, found, admin=True)
        total = await teams.count(tx)
    return Reply(body=shown, headers={"X-Total-Count": str(total), **next_link(request, query, total)})


@endpoint("any", answers=TeamOut, even_suspended=True)
async def get_team(rt: Runtime, caller: Caller, team_id: str) -> dict[str, Any]:
    """The team; a suspended one may still read itself, to learn why it is refused elsewhere."""
    if not caller.may_see(team_id):
        raise Forbidden("Cannot access a different team")
    async with rt.db.statement() as tx:
        return await team_objects.show_team(tx, team_id, admin=caller.is_admin)


@endpoint("team", answers=VerifiedOut)
async def verify_key(caller: Caller) -> dict[str, Any]:
    """Whose key this is; a team that may not work now is refused before."""
    key = caller.team
    return {
        "team_id": key.team_id,
        "organization_id": key.organization_id,
        "status": "active",
        "key_name": key.hint,
    }


@endpoint("admin:w", answers=ChangedTeamOut)
async def change_team(rt: Runtime, caller: Caller, team_id: str, body: ChangeTeam) -> dict[str, Any]:
    """Set what was sent; requests see it within a second, jobs keep the terms of their first call."""
    async with rt.db.transaction() as tx:
        await team_changes.change(tx, team_id, body, caller.admin)
        team = await team_objects.show_team(tx, team_id, admin=True)
    return {**team, "message": "Team updated successfully"}


@endpoint("admin:w", answers=DeletedTeamOut)
async def delete_team(rt: Runtime, caller: Caller, team_id: str) -> dict[str, Any]:
    """Delete the team: its keys open nothing, its open jobs are cancelled, its books and its id are kept.

    A repeat after a crash ends what the first one left open.
    """
    if not names.is_name(team_id):
        raise team_objects.no_team(team_id)
    async with rt.db.transaction() as tx:
        organization_id = await teams.lock(tx, team_id)
        if organization_id is not None and team_id == team_objects.default_team(organization_id):
            raise BadRequest(f"Cannot delete default team '{team_id}'. Default teams are protected from deletion.")
        deleted = await team_objects.delete_team(tx, team_id, caller.admin)
    if not await deletion.end_jobs(rt, team_id) and not deleted:
        raise team_objects.no_team(team_id)
    return {"team_id": team_id, "message": f"Team '{team_id}' deleted successfully"}
