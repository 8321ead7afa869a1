"""Organizations: made by admins, as a rule with a first team; read by admins and by their own teams."""

from typing import Any

from pydantic import AliasChoices, Field

from api import new_team, objects
from api.auth import Caller
from api.fields import Absent, Credits, Id, Title
from api.http import endpoint, validated
from shared import names, organizations, teams
from shared.clock import iso
from shared.db import Tx
from shared.errors import BadRequest, Forbidden, NotFound
from shared.runtime import Runtime

DEFAULT_TEAM_GROUPS = AliasChoices("default_team_access_groups", "default_team_model_groups")


class CreateOrganization(Absent):
    """The body of POST /organizations/create."""

    organization_id: Id
    name: Title
    metadata: dict[str, Any] = Field(default={})
    create_default_team: bool = True
    default_team_name: Title | None = None
    default_team_access_groups: list[Id] = Field(default=[], validation_alias=DEFAULT_TEAM_GROUPS)
    default_team_credits: Credits = 0


@endpoint("admin:w")
async def create_organization(rt: Runtime, body: CreateOrganization) -> dict[str, Any]:
    """A new organization and its default team, or neither."""
    team = _default_team(body) if body.create_default_team else None
    async with rt.db.transaction() as tx:
        if not await organizations.create(tx, body.organization_id, name=body.name, metadata=body.metadata):
            raise BadRequest(f"Organization with ID '{body.organization_id}' already exists")
        made = await _create_default_team(rt, tx, team) if team else None
        return {**_object(await _get(tx, body.organization_id)), "default_team": made}


@endpoint("any")
async def get_organization(rt: Runtime, caller: Caller, org_id: str) -> dict[str, Any]:
    """The organization with its teams and what they used."""
    if caller.key is not None and caller.key.organization_id != org_id:
        raise Forbidden("Cannot access a different organization")
    async with rt.db.statement() as tx:
        found = await _get(tx, org_id)
        used = await organizations.usage(tx, org_id)
    summary = objects.usage_summary(used.total_jobs, used.total_cost_nanousd)
    return {**_object(found), "teams": found.teams, "usage_summary": summary}


def _default_team(body: CreateOrganization) -> new_team.CreateTeam:
    wanted = {
        "organization_id": body.organization_id,
        "team_id": f"{body.organization_id}_default",
        "team_alias": body.default_team_name or "Default team",
        "access_groups": body.default_team_access_groups,
        "credits_allocated": body.default_team_credits,
    }
    return validated(new_team.CreateTeam, wanted, "body")


async def _create_default_team(rt: Runtime, tx: Tx, body: new_team.CreateTeam) -> dict[str, Any]:
    made = await new_team.create(rt, tx, body)
    team = await teams.get(tx, body.team_id)
    if team is None:
        raise NotFound(f"Team '{body.team_id}' not found")
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


async def _get(tx: Tx, organization_id: str) -> organizations.Organization:
    found = await organizations.get(tx, organization_id) if names.is_name(organization_id) else None
    if found is None:
        raise NotFound(f"Organization '{organization_id}' not found")
    return found


def _object(found: organizations.Organization) -> dict[str, Any]:
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
