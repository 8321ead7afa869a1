"""Model groups: access groups in their older words, with models by priority, and where a team's call for one goes."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, Field, model_validator
from starlette.requests import Request

from api import model_objects
from api.alias_locks import lock_aliases
from api.auth import Caller
from api.fields import MAX_INT4, Absent, AliasName, Description, Id, Title
from api.http import endpoint
from api.lists import Page, next_link
from api.model_bodies import columns_of_name
from api.once import Once
from api.replies import Reply
from api.wire.answers import Message
from api.wire.models import GroupModelsOut, ModelGroupOut, ResolvedGroupOut
from shared import audit, model_aliases, model_groups, names, teams
from shared.db import CoreTx, Tx
from shared.errors import BadRequest, Forbidden, Invalid, NotFound
from shared.model_groups import Group, Member
from shared.runtime import Runtime

KIND = "model_group"


class GroupModel(Absent):
    """A model by its name; 0 is tried first."""

    model_name: AliasName
    priority: Annotated[int, Field(ge=0, le=MAX_INT4)] = 0


class CreateModelGroup(Absent):
    """The body of POST /model-groups/create."""

    group_name: Id
    display_name: Title | None = None
    description: Description | None = None
    models: list[GroupModel]


class ModelsOfGroup(BaseModel):
    """The body of PUT /model-groups/{group_name}/models: a list, or an object that holds it."""

    models: list[GroupModel]

    @model_validator(mode="before")
    @classmethod
    def _bare_list(cls, value: Any) -> Any:
        return {"models": value} if isinstance(value, list) else value


class ResolveQuery(Absent):
    """For which team; a team asks for itself."""

    team_id: str | None = None


@endpoint("admin:w", answers=ModelGroupOut)
async def create_model_group(rt: Runtime, caller: Caller, body: CreateModelGroup, once: Once) -> dict[str, Any]:
    """A new group; a model that is no alias yet becomes one of that name."""
    columns = {
        "group_name": body.group_name,
        "display_name": body.display_name or body.group_name,
        "description": body.description,
    }
    async with rt.db.transaction() as tx:
        if not await model_groups.create(tx, columns):
            raise BadRequest(f"Model group '{body.group_name}' already exists")
        models = await _set_models(rt, tx, caller, body.group_name, body.models)
        await audit.record(tx, caller.admin, f"created_{KIND}", KIND, body.group_name, {"models": models})
        group, members = await _read(tx, body.group_name)
        return await once.keep(tx, model_objects.model_group(group, members))


@endpoint("admin:r", answers=list[ModelGroupOut])
async def list_model_groups(rt: Runtime, request: Request, query: Page) -> Reply:
    """The active groups, newest first."""
    async with rt.db.statement() as tx:
        page, total = await model_groups.page(tx, status="active", limit=query.limit, offset=query.offset)
        members = await model_groups.members_of(tx, [group.group_name for group in page])
    shown = [model_objects.model_group(group, members[group.group_name]) for group in page]
    return Reply(body=shown, headers={"X-Total-Count": str(total), **next_link(request, query, total)})


@endpoint("admin:r", answers=ModelGroupOut)
async def get_model_group(rt: Runtime, group_name: str) -> dict[str, Any]:
    """The group with its models."""
    async with rt.db.statement() as tx:
        return model_objects.model_group(*await _read(tx, group_name))


@endpoint("admin:w", answers=GroupModelsOut)
async def set_models(rt: Runtime, caller: Caller, group_name: str, body: ModelsOfGroup) -> dict[str, Any]:
    """Replace the group's models."""
    async with rt.db.transaction() as tx:
        await _lock(tx, group_name)
        models = await _set_models(rt, tx, caller, group_name, body.models)
        await model_groups.touch(tx, [group_name])
        await audit.record(tx, caller.admin, f"updated_{KIND}", KIND, group_name, {"models": models})
        return {"group_name": group_name, "models": model_objects.group_models(*await _read(tx, group_name))}


@endpoint("admin:w", answers=Message)
async def delete_model_group(rt: Runtime, caller: Caller, group_name: str) -> dict[str, Any]:
    """Delete a group that no team holds."""
    async with rt.db.transaction() as tx:
        await _lock(tx, group_name)
        group, _ = await _read(tx, group_name)
        if group.teams:
            count = len(group.teams)
            raise BadRequest(f"Cannot delete model group '{group_name}'. It is assigned to {count} team(s).")
        await model_groups.remove(tx, group_name)
        await audit.record(tx, caller.admin, f"deleted_{KIND}", KIND, group_name)
    return {"message": f"Model group '{group_name}' deleted successfully"}


@endpoint("any", answers=ResolvedGroupOut)
async def resolve_model_group(rt: Runtime, caller: Caller, group_name: str, query: ResolveQuery) -> dict[str, Any]:
    """Where a call of this team that asks for the group would go; a key with models of its own sees only those."""
    team_id = query.team_id or caller.team_id
    if team_id is None:
        raise Invalid.at(["query", "team_id"], "field required", "value_error.missing")
    if not caller.may_see(team_id):
        raise Forbidden("Cannot resolve model group for a different team")
    async with rt.db.statement() as tx:
        if not names.is_name(team_id) or await teams.get(tx, team_id) is None:
            raise NotFound(f"Team '{team_id}' not found")
        group, members = await _read(tx, group_name)
    error = _refusal(group, team_id)
    if error is not None:
        nothing = {"group_name": group_name, "primary_model": None, "fallback_models": None}
        return {**nothing, "team_has_access": False, "error": error}
    usable = [member.alias for member in members if member.active and _is_open(caller, member)]
    found = {
        "group_name": group_name,
        "primary_model": usable[0] if usable else None,
        "fallback_models": usable[1:],
        "team_has_access": True,
    }
    return found if usable else {**found, "error": f"No active models configured for group '{group_name}'"}


def _refusal(group: Group, team_id: str) -> str | None:
    if team_id not in group.teams:
        return f"Team '{team_id}' does not have access to model group '{group.group_name}'"
    return None if group.status == "active" else f"Model group '{group.group_name}' not found or inactive"


def _is_open(caller: Caller, member: Member) -> bool:
    only = None if caller.key is None else caller.key.models
    return not only or member.alias in only or member.group_name in only


async def _read(tx: Tx, group_name: str) -> tuple[Group, list[Member]]:
    group = await model_groups.get(tx, group_name) if names.is_name(group_name) else None
    if group is None:
        raise NotFound(f"Model group '{group_name}' not found")
    return group, await model_groups.members(tx, group_name)


async def _lock(tx: CoreTx, group_name: str) -> None:
    if not names.is_name(group_name) or not await model_groups.lock(tx, [group_name]):
        raise NotFound(f"Model group '{group_name}' not found")


async def _set_models(
    rt: Runtime, tx: CoreTx, caller: Caller, group_name: str, models: Sequence[GroupModel]
) -> dict[str, int]:
    """Make these the members of the locked group; returns them with their priorities, the first mention counts."""
    wanted = {model.model_name: model.priority for model in reversed(models)}
    wanted = {model.model_name: wanted[model.model_name] for model in models}
    # In one order, so that two requests that bring the same new names wait for each other and not in a circle.
    for name in sorted(wanted):
        columns = columns_of_name(rt.prices, name)
        if await model_aliases.create(tx, columns):
            details = {"litellm_model": columns["litellm_model"], "model_group": group_name}
            await audit.record(tx, caller.admin, "created_alias", "alias", name, details)
    # One may have been deleted again since.
    await lock_aliases(tx, list(wanted))
    await model_groups.set_members(tx, group_name, list(wanted), list(wanted.values()))
    return wanted
