"""Model access groups: ordered lists of aliases that admins make and give to teams."""

from typing import Any, Literal

from pydantic import BaseModel, Field
from starlette.requests import Request

from api import model_objects
from api.alias_locks import lock_aliases
from api.auth import Caller
from api.fields import Absent, AliasName, Description, Id, Title, each_once
from api.http import endpoint
from api.lists import Page, next_link
from api.model_bodies import is_active
from api.once import Once
from api.replies import Reply
from api.wire.answers import Message
from api.wire.models import GroupOut, ListedGroupOut, TeamGroupOut
from shared import audit, model_groups, names
from shared.db import CoreTx, Tx
from shared.errors import BadRequest, Forbidden, NotFound
from shared.model_groups import Group
from shared.runtime import Runtime

KIND = "access_group"


class CreateGroup(Absent):
    """The body of POST /model-access-groups/create."""

    group_name: Id
    display_name: Title | None = None
    description: Description | None = None
    model_aliases: list[AliasName] = Field(default=[])


class ChangeGroup(BaseModel):
    """The body of PUT /model-access-groups/{group_name}: fields left out stay, null clears what may be empty."""

    display_name: Title | None = None
    description: Description | None = None
    status: Literal["active", "inactive"] = "active"
    model_aliases: list[AliasName] = Field(default=[])


class GroupModels(Absent):
    """The body of the routes that change a group's aliases."""

    aliases: list[AliasName] = Field(validation_alias="model_aliases")


class GroupsQuery(Page):
    """A page of groups."""

    status: str | None = None


@endpoint("admin:w", answers=GroupOut)
async def create_group(rt: Runtime, caller: Caller, body: CreateGroup, once: Once) -> dict[str, Any]:
    """A new group with its aliases in order: the first is the primary one."""
    aliases = each_once(body.model_aliases)
    columns = {
        "group_name": body.group_name,
        "display_name": body.display_name or body.group_name,
        "description": body.description,
    }
    async with rt.db.transaction() as tx:
        if not await model_groups.create(tx, columns):
            raise BadRequest(f"Model access group '{body.group_name}' already exists")
        await _set_members(tx, body.group_name, aliases)
        await _record(tx, caller, "created", body.group_name, models=aliases)
        return await once.keep(tx, await _group_object(tx, body.group_name))


@endpoint("admin:r", answers=list[ListedGroupOut])
async def list_groups(rt: Runtime, request: Request, query: GroupsQuery) -> Reply:
    """All groups, newest first."""
    active = is_active(query.status)
    status = None if active is None else "active" if active else "inactive"
    async with rt.db.statement() as tx:
        page, total = await model_groups.page(tx, status=status, limit=query.limit, offset=query.offset)
        members = await model_groups.members_of(tx, [group.group_name for group in page])
    shown = [model_objects.listed_group(group, members[group.group_name]) for group in page]
    return Reply(body=shown, headers={"X-Total-Count": str(total), **next_link(request, query, total)})


@endpoint("any", answers=GroupOut | TeamGroupOut)
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


@endpoint("admin:w", answers=GroupOut)
async def change_group(rt: Runtime, caller: Caller, group_name: str, body: ChangeGroup) -> dict[str, Any]:
    """Change the fields given; an inactive group gives its teams nothing."""
    given = body.model_fields_set
    columns: dict[str, Any] = {name: getattr(body, name) for name in ("description", "status") if name in given}
    if "display_name" in given:
        columns["display_name"] = body.display_name or group_name
    async with rt.db.transaction() as tx:
        await _lock(tx, group_name)
        await model_groups.change(tx, group_name, columns)
        if "model_aliases" in given:
            await _set_members(tx, group_name, each_once(body.model_aliases))
        await _record(tx, caller, "updated", group_name, fields=sorted(given))
        return await _group_object(tx, group_name)


@endpoint("admin:w", answers=GroupOut)
async def set_group_models(rt: Runtime, caller: Caller, group_name: str, body: GroupModels) -> dict[str, Any]:
    """Replace the group's aliases, in the order given."""
    aliases = each_once(body.aliases)
    async with rt.db.transaction() as tx:
        await _lock(tx, group_name)
        await _set_members(tx, group_name, aliases)
        await model_groups.touch(tx, [group_name])
        await _record(tx, caller, "updated", group_name, models=aliases)
        return await _group_object(tx, group_name)


@endpoint("admin:w", answers=GroupOut)
async def add_group_models(
    rt: Runtime, caller: Caller, group_name: str, body: GroupModels, once: Once
) -> dict[str, Any]:
    """Put aliases at the end of the group; those that are in it stay where they are."""
    async with rt.db.transaction() as tx:
        await _lock(tx, group_name)
        await lock_aliases(tx, body.aliases)
        for alias in body.aliases:
            await model_groups.add_to(tx, [group_name], alias)
        await model_groups.touch(tx, [group_name])
        await _record(tx, caller, "updated", group_name, added=body.aliases)
        return await once.keep(tx, await _group_object(tx, group_name))


@endpoint("admin:w", answers=GroupOut)
async def remove_group_models(
    rt: Runtime, caller: Caller, group_name: str, body: GroupModels, once: Once
) -> dict[str, Any]:
    """Take aliases out of the group; one that is not in it is no error."""
    async with rt.db.transaction() as tx:
        await _lock(tx, group_name)
        await model_groups.take_out(tx, group_name, body.aliases)
        await model_groups.touch(tx, [group_name])
        await _record(tx, caller, "updated", group_name, removed=body.aliases)
        return await once.keep(tx, await _group_object(tx, group_name))


@endpoint("admin:w", answers=Message)
async def delete_group(rt: Runtime, caller: Caller, group_name: str) -> dict[str, Any]:
    """Delete a group that no team holds."""
    async with rt.db.transaction() as tx:
        await _lock(tx, group_name)
        group = await _group(tx, group_name)
        if group.teams:
            teams = ", ".join(group.teams)
            raise BadRequest(f"Cannot delete access group '{group_name}' - still in use by teams: {teams}")
        await model_groups.remove(tx, group_name)
        await _record(tx, caller, "deleted", group_name)
    return {"message": f"Model access group '{group_name}' deleted successfully"}


async def _record(tx: Tx, caller: Caller, verb: str, group_name: str, **details: Any) -> None:
    await audit.record(tx, caller.admin, f"{verb}_{KIND}", KIND, group_name, details)


async def _lock(tx: CoreTx, group_name: str) -> None:
    if not names.is_name(group_name) or not await model_groups.lock(tx, [group_name]):
        raise NotFound(f"Model access group '{group_name}' not found")


async def _group(tx: Tx, group_name: str) -> Group:
    found = await model_groups.get(tx, group_name) if names.is_name(group_name) else None
    if found is None:
        raise NotFound(f"Model access group '{group_name}' not found")
    return found


async def _group_object(tx: Tx, group_name: str) -> dict[str, Any]:
    return model_objects.group(await _group(tx, group_name), await model_groups.members(tx, group_name))


async def _set_members(tx: CoreTx, group_name: str, aliases: list[str]) -> None:
    await lock_aliases(tx, aliases)
    await model_groups.set_members(tx, group_name, aliases)
