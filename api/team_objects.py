"""Teams and organizations: found, locked, shown and deleted, for the routes of several files."""

from collections.abc import Sequence
from typing import Any

from api import objects
from api.fields import each_once
from shared import audit, credit_accounts, keys, names, organizations, teams, usage
from shared.audit import Admin
from shared.db import Tx
from shared.errors import NotFound
from shared.organizations import Organization
from shared.teams import Team

DONE = {"suspended": "suspended", "active": "resumed", "paused": "paused"}
"""What the audit log and answers call a change to a status."""


async def find_team(tx: Tx, team_id: str) -> Team:
    """The team. Raises NotFound."""
    found = await teams.get(tx, team_id) if names.is_name(team_id) else None
    if found is None:
        raise no_team(team_id)
    return found


async def lock_team(tx: Tx, team_id: str) -> str:
    """Let nobody else change or delete the team until `tx` ends. Returns its organization. Raises NotFound."""
    organization_id = await teams.lock(tx, team_id) if names.is_name(team_id) else None
    if organization_id is None:
        raise no_team(team_id)
    return organization_id


def no_team(team_id: str) -> NotFound:
    """There is no such team."""
    return NotFound(f"Team '{team_id}' not found")


async def show_team(tx: Tx, team_id: str, *, admin: bool) -> dict[str, Any]:
    """The team object. Raises NotFound."""
    return (await show_teams(tx, [await find_team(tx, team_id)], admin=admin))[0]


async def show_teams(tx: Tx, found: Sequence[Team], *, admin: bool) -> list[dict[str, Any]]:
    """Team objects."""
    ids = [team.id for team in found]
    used = await usage.totals_of_teams(tx, ids)
    accounts = await credit_accounts.balances(tx, ids)
    return [objects.team(team, accounts[team.id], used[team.id], admin=admin) for team in found]


async def find_organization(tx: Tx, organization_id: str) -> Organization:
    """The organization. Raises NotFound."""
    found = await organizations.get(tx, organization_id) if names.is_name(organization_id) else None
    if found is None:
        raise no_organization(organization_id)
    return found


async def lock_organization(tx: Tx, organization_id: str) -> str:
    """Let nobody else change it until `tx` ends. Returns its status. Raises NotFound."""
    status = await organizations.lock(tx, organization_id) if names.is_name(organization_id) else None
    if status is None:
        raise no_organization(organization_id)
    return status


def no_organization(organization_id: str) -> NotFound:
    """There is no such organization."""
    return NotFound(f"Organization '{organization_id}' not found")


def default_team(organization_id: str) -> str:
    """The id of the team that is made, and deleted, with its organization."""
    return f"{organization_id}_default"


async def hold_groups(tx: Tx, team_id: str, groups: Sequence[str]) -> None:
    """Give the team these groups and no others. Raises NotFound."""
    wanted = each_once(list(groups))
    there = await teams.set_access_groups(tx, team_id, wanted)
    for group in wanted:
        if group not in there:
            raise NotFound(f"Model access group '{group}' not found")


async def delete_team(tx: Tx, team_id: str, by: Admin | None) -> bool:
    """Delete the team and revoke its keys. False when there is none.

    Its open jobs are ended after the commit, by `deletion.end_jobs`.
    """
    if not await teams.delete(tx, team_id):
        return False
    await keys.revoke(tx, team_id)
    await audit.record(tx, by, "deleted_team", "team", team_id)
    return True
