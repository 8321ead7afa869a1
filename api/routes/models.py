"""Model aliases: written by admins; teams read those they may use, without the provider's side."""

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request

from api import model_objects
from api.alias_locks import lock_aliases
from api.auth import Caller
from api.http import endpoint
from api.lists import Page, next_link
from api.model_bodies import ChangeAlias, CreateAlias, check_provider, columns_of, is_active
from api.once import Once
from api.replies import Reply
from api.wire.answers import Message
from api.wire.models import AliasOut, AliasWithUsageOut, TeamAliasOut
from shared import audit, model_aliases, model_groups, names, teams
from shared.db import CoreTx, Tx
from shared.errors import BadRequest, Invalid, NotFound
from shared.model_aliases import Alias
from shared.runtime import Runtime


class AliasesQuery(Page):
    """A page of aliases."""

    status: str | None = None
    provider: str | None = None
    access_group: str | None = None


@endpoint("admin:w", answers=AliasOut)
async def create_alias(rt: Runtime, caller: Caller, body: CreateAlias, once: Once) -> dict[str, Any]:
    """A new alias, last in each of the groups named; its key is sealed and never shown."""
    columns = await columns_of(rt, body.alias, body)
    named = {"alias": body.alias, "display_name": body.alias}
    async with rt.db.transaction() as tx:
        await _lock_groups(tx, body.access_groups)
        await lock_aliases(tx, body.fallbacks)
        if not await model_aliases.create(tx, {**named, **columns}):
            raise BadRequest(f"Model alias '{body.alias}' already exists")
        await _join_groups(tx, body.access_groups, body.alias)
        await audit.record(tx, caller.admin, "created_alias", "alias", body.alias, _details(body, columns))
        return await once.keep(tx, model_objects.alias(rt.prices, await _alias(tx, body.alias), usage_count=0))


@endpoint("admin:r", answers=list[AliasOut])
async def list_aliases(rt: Runtime, request: Request, query: AliasesQuery) -> Reply:
    """All aliases, newest first."""
    if query.provider is not None:
        check_provider(query.provider)
    async with rt.db.statement() as tx:
        page, total = await model_aliases.page(
            tx,
            active=is_active(query.status),
            provider=query.provider,
            group=query.access_group,
            limit=query.limit,
            offset=query.offset,
        )
        used = await model_aliases.usage(tx, [found.alias for found in page])
    shown = [model_objects.alias(rt.prices, found, usage_count=used[found.alias].total_calls) for found in page]
    return Reply(body=shown, headers={"X-Total-Count": str(total), **next_link(request, query, total)})


@endpoint("any", answers=AliasWithUsageOut | TeamAliasOut)
async def get_alias(rt: Runtime, caller: Caller, alias: str) -> dict[str, Any]:
    """The alias; a team sees one that a group of its brings, at the prices it pays."""
    async with rt.db.statement() as tx:
        found = await _alias(tx, alias)
        if caller.team_id is not None:
            return await _alias_for_team(rt, tx, found, caller.team_id)
        return await _alias_with_usage(rt, tx, found)


@endpoint("admin:w", answers=AliasWithUsageOut)
async def change_alias(rt: Runtime, caller: Caller, alias: str, body: ChangeAlias) -> dict[str, Any]:
    """Change the fields given; `access_groups` replaces all memberships."""
    if body.alias not in (None, alias):
        raise Invalid.not_supported_yet("body", "alias")
    columns = await columns_of(rt, alias, body)
    async with rt.db.transaction() as tx:
        left = await _left_groups(tx, alias, body)
        await _lock_groups(tx, body.access_groups, left)
        await lock_aliases(tx, [alias, *body.fallbacks])
        await model_aliases.change(tx, alias, columns)
        await model_groups.leave(tx, left, alias)
        await _join_groups(tx, body.access_groups, alias)
        await audit.record(tx, caller.admin, "updated_alias", "alias", alias, _details(body, columns))
    async with rt.db.statement() as tx:
        return await _alias_with_usage(rt, tx, await _alias(tx, alias))


@endpoint("admin:w", answers=Message)
async def delete_alias(rt: Runtime, caller: Caller, alias: str) -> dict[str, Any]:
    """Delete it; it leaves all groups, and calls that wait for it go on to their next candidate."""
    async with rt.db.transaction() as tx:
        if not names.is_alias(alias) or not await model_aliases.delete(tx, alias):
            raise NotFound(f"Model alias '{alias}' not found")
        await audit.record(tx, caller.admin, "deleted_alias", "alias", alias)
    return {"message": f"Model alias '{alias}' deleted successfully"}


def _details(body: CreateAlias | ChangeAlias, columns: dict[str, Any]) -> dict[str, Any]:
    """What the audit log says: the model and the names of the fields set, no key and no URL."""
    return {"fields": sorted(body.model_fields_set), "litellm_model": columns.get("litellm_model")}


async def _alias(tx: Tx, alias: str) -> Alias:
    found = await model_aliases.get(tx, alias) if names.is_alias(alias) else None
    if found is None:
        raise NotFound(f"Model alias '{alias}' not found")
    return found


async def _lock_groups(tx: CoreTx, groups: Sequence[str], left: Sequence[str] = ()) -> None:
    """left: locked with them, in one order; no matter whether they are still there. Raises NotFound."""
    there = await model_groups.lock(tx, [*groups, *left])
    for group in groups:
        if group not in there:
            raise NotFound(f"Model access group '{group}' not found")


async def _left_groups(tx: Tx, alias: str, body: ChangeAlias) -> list[str]:
    """The groups that the change takes the alias out of. Raises NotFound."""
    there = (await _alias(tx, alias)).access_groups
    is_given = "access_groups" in body.model_fields_set
    return [group for group in there if group not in body.access_groups] if is_given else []


async def _join_groups(tx: CoreTx, groups: list[str], alias: str) -> None:
    await model_groups.add_to(tx, groups, alias)
    await model_groups.touch(tx, groups)


async def _alias_with_usage(rt: Runtime, tx: Tx, found: Alias) -> dict[str, Any]:
    used = await model_aliases.usage(tx, [found.alias])
    return model_objects.alias_with_usage(rt.prices, found, used[found.alias])


async def _alias_for_team(rt: Runtime, tx: Tx, found: Alias, team_id: str) -> dict[str, Any]:
    groups = await model_aliases.held_groups(tx, found.alias, team_id)
    team = await teams.get(tx, team_id)
    if not groups or team is None:
        raise NotFound(f"Model alias '{found.alias}' not found")
    return model_objects.alias_for_team(rt.prices, found, groups, team.cost_markup_percentage)
