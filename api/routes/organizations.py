"""Organizations: made by admins, as a rule with a first team; read by admins and by their own teams."""

from typing import Any

from starlette.requests import Request

from api import new_team, objects, team_objects
from api.auth import Caller
from api.http import endpoint, validated
from api.lists import Page, next_link
from api.once import Once
from api.replies import Reply
from api.wire.organizations import (
    ChangeOrganization,
    CreateOrganization,
    DeletedOrganizationOut,
    NewOrganizationOut,
    OrganizationDetailsOut,
    OrganizationOut,
    OrganizationStatusOut,
    OrganizationTeamsOut,
    SetOrganizationStatus,
)
from api.wire.team_bodies import CreateTeam
from shared import audit, credit_accounts, deletion, names, organizations, teams, usage
from shared.audit import Admin
from shared.clock import iso
from shared.db import CoreTx
from shared.errors import BadRequest, Forbidden
from shared.organizations import Organization
from shared.runtime import Runtime


@endpoint("admin:w", answers=NewOrganizationOut)
async def create_organization(rt: Runtime, caller: Caller, body: CreateOrganization, once: Once) -> dict[str, Any]:
    """A new organization and its default team, or neither."""
    team = _default_team(body) if body.create_default_team else None
    async with rt.db.transaction() as tx:
        if not await organizations.create(tx, body.organization_id, name=body.name, metadata=body.metadata):
            raise BadRequest(f"Organization with ID '{body.organization_id}' already exists")
        details = body.model_dump(mode="json", exclude_unset=True)
        await audit.record(tx, caller.admin, "created_organization", "organization", body.organization_id, details)
        made = await _create_default_team(rt, tx, team) if team else None
        organization = _object(await team_objects.find_organization(tx, body.organization_id))
        return await once.keep(tx, {**organization, "default_team": made})


@endpoint("admin:r", answers=list[OrganizationOut])
async def list_organizations(rt: Runtime, request: Request, query: Page) -> Reply:
    """All organizations, newest first."""
    async with rt.db.statement() as tx:
        found = await organizations.page(tx, limit=query.limit, offset=query.offset)
        total = await organizations.count(tx)
    headers = {"X-Total-Count": str(total), **next_link(request, query, total)}
    return Reply(body=[_object(organization) for organization in found], headers=headers)


@endpoint("any", answers=OrganizationDetailsOut)
async def get_organization(rt: Runtime, caller: Caller, org_id: str) -> dict[str, Any]:
    """The organization with its teams and what they used."""
    _check_own(caller, org_id)
    async with rt.db.statement() as tx:
        found = await team_objects.find_organization(tx, org_id)
        used = await usage.totals_of_organization(tx, org_id)
    return {**_object(found), "teams": found.teams, "usage_summary": objects.usage_summary(used)}


@endpoint("any", answers=OrganizationTeamsOut)
async def list_organization_teams(rt: Runtime, caller: Caller, org_id: str) -> dict[str, Any]:
    """Its teams, oldest first; a team reads the details of itself only."""
    _check_own(caller, org_id)
    async with rt.db.statement() as tx:
        organization = await team_objects.find_organization(tx, org_id)
        found = await teams.of_organization(tx, org_id)
        accounts = await credit_accounts.balances(tx, [team.id for team in found])
    return {
        "organization_id": organization.id,
        "team_count": len(found),
        "teams": [team.id for team in found],
        "team_details": [
            {
                "team_id": team.id,
                "team_alias": team.team_alias,
                "status": team.status,
                "access_groups": team.access_groups,
                "credits_allocated": accounts[team.id].allocated,
                "credits_remaining": accounts[team.id].remaining,
            }
            for team in found
            if caller.may_see(team.id)
        ],
    }


@endpoint("admin:w", answers=OrganizationOut)
async def change_organization(rt: Runtime, caller: Caller, org_id: str, body: ChangeOrganization) -> dict[str, Any]:
    """Set its name or metadata."""
    changed = body.model_dump(exclude_unset=True)
    async with rt.db.transaction() as tx:
        await team_objects.lock_organization(tx, org_id)
        await organizations.change(tx, org_id, changed)
        await audit.record(tx, caller.admin, "updated_organization", "organization", org_id, changed)
        return _object(await team_objects.find_organization(tx, org_id))


@endpoint("admin:w", answers=OrganizationStatusOut)
async def set_organization_status(
    rt: Runtime, caller: Caller, org_id: str, body: SetOrganizationStatus
) -> dict[str, Any]:
    """Serve or refuse all its teams, from their next request on."""
    async with rt.db.transaction() as tx:
        previous = await team_objects.lock_organization(tx, org_id)
        await organizations.change(tx, org_id, {"status": body.status, "paused_until": None})
        details = {"reason": body.reason, "previous_status": previous}
        await audit.record(
            tx, caller.admin, f"{team_objects.DONE[body.status]}_organization", "organization", org_id, details
        )
        found = await team_objects.find_organization(tx, org_id)
    return {
        "organization_id": org_id,
        "status": body.status,
        "previous_status": previous,
        "updated_at": iso(found.updated_at),
        "reason": body.reason,
    }


@endpoint("admin:w", answers=DeletedOrganizationOut)
async def delete_organization(rt: Runtime, caller: Caller, org_id: str) -> dict[str, Any]:
    """Delete it with its default team, when it has no other; books and ids are kept."""
    if not names.is_name(org_id):
        raise team_objects.no_organization(org_id)
    default = team_objects.default_team(org_id)
    async with rt.db.transaction() as tx:
        deleted = await organizations.lock(tx, org_id) is not None
        if deleted:
            await _delete(tx, org_id, default, caller.admin)
    if not await deletion.end_jobs(rt, default) and not deleted:
        raise team_objects.no_organization(org_id)
    return {"organization_id": org_id, "message": f"Organization '{org_id}' deleted successfully"}


async def _delete(tx: CoreTx, org_id: str, default: str, by: Admin | None) -> None:
    held = [team.id for team in await teams.of_organization(tx, org_id)]
    others = [team_id for team_id in held if team_id != default]
    if others:
        raise BadRequest(f"Cannot delete organization '{org_id}' - it still has teams: {', '.join(others)}")
    if default in held:
        await team_objects.delete_team(tx, default, by=None)
    await organizations.change(tx, org_id, {"status": "deleted", "paused_until": None})
    await audit.record(tx, by, "deleted_organization", "organization", org_id, {"teams": held})


def _default_team(body: CreateOrganization) -> CreateTeam:
    wanted = {
        "organization_id": body.organization_id,
        "team_id": team_objects.default_team(body.organization_id),
        "team_alias": body.default_team_name or "Default team",
        "access_groups": body.default_team_access_groups,
        "credits_allocated": body.default_team_credits,
    }
    return validated(CreateTeam, wanted, "body")


async def _create_default_team(rt: Runtime, tx: CoreTx, body: CreateTeam) -> dict[str, Any]:
    """Its line in the audit log is that of the organization."""
    made = await new_team.create(rt, tx, body, by=None)
    team = await team_objects.find_team(tx, body.team_id)
    return {
        "team_id": team.id,
        "team_alias": team.team_alias,
        "virtual_key": made.virtual_key,
        "callback_secret": made.callback_secret,
        "access_groups": team.access_groups,
        "model_groups": team.access_groups,
        "allowed_model_aliases": team.aliases,
        "credits_allocated": body.credits_allocated,
    }


def _check_own(caller: Caller, organization_id: str) -> None:
    if caller.key is not None and caller.key.organization_id != organization_id:
        raise Forbidden("Cannot access a different organization")


def _object(found: Organization) -> dict[str, Any]:
    return {
        "organization_id": found.id,
        "name": found.name,
        "status": found.status,
        "metadata": found.metadata,
        "team_count": len(found.teams),
        "total_credits_allocated": found.credits_allocated,
        "created_at": iso(found.created_at),
        "updated_at": iso(found.updated_at),
    }
