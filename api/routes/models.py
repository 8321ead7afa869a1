"""Model aliases and model access groups: written by admins; teams read those they hold, without the provider's side."""

from typing import Any

from pydantic import Field

from api import model_objects
from api.auth import Caller
from api.fields import Absent, AliasName, Description, Id, Title, once
from api.http import endpoint
from api.model_bodies import ChangeAlias, CreateAlias, columns_of
from shared import model_aliases, model_groups, names, teams
from shared.db import Tx
from shared.errors import BadRequest, Forbidden, Invalid, NotFound
from shared.model_aliases import Alias
from shared.model_groups import Group
from shared.runtime import Runtime


class CreateGroup(Absent):
    """The body of POST /model-access-groups/create."""

    group_name: Id
    display_name: Title | None = None
    description: Description | None = None
    model_aliases: list[AliasName] = Field(default=[])


class SetGroupModels(Absent):
    """The body of PUT /model-access-groups/{group_name}/models."""

    aliases: list[AliasName] = Field(validation_alias="model_aliases")


@endpoint("admin:w")
async def create_alias(rt: Runtime, body: CreateAlias) -> dict[str, Any]:
    """A new alias, last in each of the groups named; its key is sealed and never shown."""
    columns = await columns_of(rt, body.alias, body)
    named = {"alias": body.alias, "display_name": body.alias}
    async with rt.db.transaction() as tx:
        await _lock_groups(tx, body.access_groups)
        if not await model_aliases.create(tx, {**named, **columns}):
            raise BadRequest(f"Model alias '{body.alias}' already exists")
        await _join_groups(tx, body.access_groups, body.alias)
        return model_objects.alias(rt.prices, await _alias(tx, body.alias), usage_count=0)


@endpoint("any")
async def get_alias(rt: Runtime, caller: Caller, alias: str) -> dict[str, Any]:
    """The alias; a team sees one that a group of its brings, at the prices it pays."""
    async with rt.db.statement() as tx:
        found = await _alias(tx, alias)
        if caller.team_id is not None:
            return await _alias_for_team(rt, tx, found, caller.team_id)
        return await _alias_with_usage(rt, tx, found)


@endpoint("admin:w")
async def change_alias(rt: Runtime, alias: str, body: ChangeAlias) -> dict[str, Any]:
    """Change the fields given; `access_groups` replaces all memberships."""
    if body.alias not in (None, alias):
        raise Invalid.not_supported_yet("body", "alias")
    columns = await columns_of(rt, alias, body)
    async with rt.db.transaction() as tx:
        in_groups = "access_groups" in body.model_fields_set
        await _lock_groups(tx, body.access_groups)
        if not names.is_alias(alias) or not await model_aliases.lock(tx, alias):
            raise NotFound(f"Model alias '{alias}' not found")
        await model_aliases.change(tx, alias, columns)
        if in_groups:
            await model_groups.leave_others(tx, body.access_groups, alias)
            await _join_groups(tx, body.access_groups, alias)
    async with rt.db.statement() as tx:
        return await _alias_with_usage(rt, tx, await _alias(tx, alias))


@endpoint("admin:w")
async def create_group(rt: Runtime, body: CreateGroup) -> dict[str, Any]:
    """A new group with its aliases in order: the first is the primary one."""
    columns = {
        "group_name": body.group_name,
        "display_name": body.display_name or body.group_name,
        "description": body.description,
    }
    async with rt.db.transaction() as tx:
        if not await model_groups.create(tx, columns):
            raise BadRequest(f"Model access group '{body.group_name}' already exists")
        await _set_members(tx, body.group_name, once(body.model_aliases))
        return await _group_object(tx, body.group_name)


@endpoint("any")
async def get_group(rt: Runtime, caller: Caller, group_name: str) -> dict[str, Any]:
    """The group; a team that holds it does not see the provider's side of the models, nor other teams."""
    async with rt.db.statement() as tx:
        group = await _group(tx, group_name)
        members = await model_groups.members(tx, group_name)
    if caller.team_id is None:
        return model_objects.group(group, members)
    if caller.team_id not in group.teams:
        raise Forbidden(f"Team '{caller.team_id}' does not have access to model group '{group_name}'")
    return model_objects.group_for_team(group, members)


@endpoint("admin:w")
async def set_group_models(rt: Runtime, group_name: str, body: SetGroupModels) -> dict[str, Any]:
    """Replace the group's aliases, in the order given."""
    async with rt.db.transaction() as tx:
        if not names.is_name(group_name) or not await model_groups.lock(tx, [group_name]):
            raise NotFound(f"Model access group '{group_name}' not found")
        await _set_members(tx, group_name, once(body.aliases))
        await model_groups.touch(tx, [group_name])
        return await _group_object(tx, group_name)


async def _alias(tx: Tx, alias: str) -> Alias:
    found = await model_aliases.get(tx, alias) if names.is_alias(alias) else None
    if found is None:
        raise NotFound(f"Model alias '{alias}' not found")
    return found


async def _group(tx: Tx, group_name: str) -> Group:
    found = await model_groups.get(tx, group_name) if names.is_name(group_name) else None
    if found is None:
        raise NotFound(f"Model access group '{group_name}' not found")
    return found


async def _group_object(tx: Tx, group_name: str) -> dict[str, Any]:
    return model_objects.group(await _group(tx, group_name), await model_groups.members(tx, group_name))


async def _lock_groups(tx: Tx, groups: list[str]) -> None:
    there = await model_groups.lock(tx, groups)
    for group in groups:
        if group not in there:
            raise NotFound(f"Model access group '{group}' not found")


async def _join_groups(tx: Tx, groups: list[str], alias: str) -> None:
    await model_groups.add_to(tx, groups, alias)
    await model_groups.touch(tx, groups)


async def _set_members(tx: Tx, group_name: str, aliases: list[str]) -> None:
    there = await model_groups.set_members(tx, group_name, aliases)
    for alias in aliases:
        if alias not in there:
            raise NotFound(f"Model alias '{alias}' not found")


async def _alias_with_usage(rt: Runtime, tx: Tx, found: Alias) -> dict[str, Any]:
    used = await model_aliases.usage(tx, found.alias)
    return model_objects.alias_with_usage(rt.prices, found, used)


async def _alias_for_team(rt: Runtime, tx: Tx, found: Alias, team_id: str) -> dict[str, Any]:
    groups = await model_aliases.held_groups(tx, found.alias, team_id)
    team = await teams.get(tx, team_id)
    if not groups or team is None:
        raise NotFound(f"Model alias '{found.alias}' not found")
    return model_objects.alias_for_team(rt.prices, found, groups, team.cost_markup_percentage)
