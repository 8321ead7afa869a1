"""Virtual keys of a team: made, narrowed, blocked, rotated and revoked by admins; in effect within a second."""

from typing import Any
from uuid import UUID

from starlette.requests import Request

from api import new_key, team_objects
from api.access import parse_id
from api.auth import Caller
from api.http import endpoint
from api.lists import Page, next_link
from api.once import Once
from api.replies import Reply
from api.wire.key_bodies import ChangeKey, CreateKey, RotateKey
from api.wire.keys import KeyOut, NewKeyOut, RevokedKeyOut, RotatedKeyOut, RotatedVirtualKeyOut
from shared import audit, budgets, key_secrets, key_views, keys, money
from shared.clock import iso
from shared.db import CoreTx, Tx
from shared.errors import NotFound
from shared.key_views import Filter
from shared.runtime import Runtime

UNKNOWN = "Key not found"
SECRET = {"virtual_key"}


@endpoint("admin:w", answers=NewKeyOut)
async def create_key(rt: Runtime, caller: Caller, team_id: str, body: CreateKey, once: Once) -> dict[str, Any]:
    """Another key of the team; the only answer that shows it."""
    if body.virtual_key is not None:
        new_key.check_own(rt, body.virtual_key)
    secret = body.virtual_key or key_secrets.new_virtual_key()
    async with rt.db.transaction() as tx:
        await team_objects.lock_team(tx, team_id)
        key_id = await new_key.store(tx, team_id, secret, new_key.terms_of(body, caller.by))
        if body.duration is not None:
            await new_key.set_expiry(tx, key_id, body.duration)
        await new_key.change_budget(tx, key_id, body)
        details = body.model_dump(mode="json", exclude_unset=True, exclude=SECRET) | {"team_id": team_id}
        await audit.record(tx, caller.admin, "created_key", "key", str(key_id), details)
        return await once.keep(tx, {**await _shown(tx, team_id, key_id), "virtual_key": secret})


@endpoint("admin:r", answers=list[KeyOut])
async def list_keys(rt: Runtime, request: Request, team_id: str, query: Page) -> Reply:
    """The team's keys, newest first, revoked ones too."""
    async with rt.db.statement() as tx:
        await team_objects.find_team(tx, team_id)
        wanted = Filter(team_id=team_id)
        found = await key_views.page(tx, wanted, limit=query.limit, offset=query.offset)
        held = await budgets.of_keys(tx, [key.id for key in found])
        total = await key_views.count(tx, wanted)
    headers = {"X-Total-Count": str(total), **next_link(request, query, total)}
    return Reply(body=[_object(key, held.get(key.id)) for key in found], headers=headers)


@endpoint("admin:r", answers=KeyOut)
async def get_key(rt: Runtime, team_id: str, key_id: str) -> dict[str, Any]:
    """A key, masked."""
    id_ = parse_id(key_id, UNKNOWN)
    async with rt.db.statement() as tx:
        await team_objects.find_team(tx, team_id)
        return await _shown(tx, team_id, id_)


@endpoint("admin:w", answers=KeyOut)
async def change_key(rt: Runtime, caller: Caller, team_id: str, key_id: str, body: ChangeKey) -> dict[str, Any]:
    """Set what was sent; requests see it within a second."""
    id_ = parse_id(key_id, UNKNOWN)
    sent = body.model_fields_set
    columns = {name: getattr(body, name) for name in new_key.TERMS if name in sent} | {"updated_by": caller.by}
    async with rt.db.transaction() as tx:
        await _lock(tx, team_id, id_)
        await new_key.change(tx, id_, columns)
        if "duration" in sent:
            await new_key.set_expiry(tx, id_, body.duration)
        await new_key.change_budget(tx, id_, body)
        details = body.model_dump(mode="json", exclude_unset=True) | {"team_id": team_id}
        await audit.record(tx, caller.admin, "updated_key", "key", key_id, details)
        return await _shown(tx, team_id, id_)


@endpoint("admin:w", answers=RevokedKeyOut)
async def revoke_key(rt: Runtime, caller: Caller, team_id: str, key_id: str) -> dict[str, Any]:
    """Let the key open nothing any more; its alias is free again."""
    id_ = parse_id(key_id, UNKNOWN)
    async with rt.db.transaction() as tx:
        await team_objects.lock_team(tx, team_id)
        if not await keys.revoke(tx, team_id, id_):
            raise NotFound(UNKNOWN)
        await audit.record(tx, caller.admin, "revoked_key", "key", key_id, {"team_id": team_id})
    return {"key_id": str(id_), "message": "Key revoked successfully"}


@endpoint("admin:w", answers=RotatedKeyOut)
async def rotate_team_key(rt: Runtime, caller: Caller, team_id: str, body: RotateKey, once: Once) -> dict[str, Any]:
    """A new secret for the team's own key: the oldest that is not revoked, or a new key when there is none."""
    async with rt.db.transaction() as tx:
        await team_objects.lock_team(tx, team_id)
        key_id = await keys.first(tx, team_id)
        if key_id is None:
            secret = key_secrets.new_virtual_key()
            key_id = await new_key.store(tx, team_id, secret)
            rotated: dict[str, Any] = {"team_id": team_id, "virtual_key": secret, "previous_key_expires_at": None}
        else:
            rotated = await _rotated(tx, caller, team_id, key_id, body.grace_s)
        details = {"team_id": team_id, "grace_s": body.grace_s}
        await audit.record(tx, caller.admin, "rotated_key", "key", str(key_id), details)
        return await once.keep(tx, rotated)


@endpoint("admin:w", answers=RotatedVirtualKeyOut)
async def rotate_key(
    rt: Runtime, caller: Caller, team_id: str, key_id: str, body: RotateKey, once: Once
) -> dict[str, Any]:
    """A new secret for this key; its id, limits and budget stay."""
    id_ = parse_id(key_id, UNKNOWN)
    async with rt.db.transaction() as tx:
        await team_objects.lock_team(tx, team_id)
        rotated = await _rotated(tx, caller, team_id, id_, body.grace_s)
        details = {"team_id": team_id, "grace_s": body.grace_s}
        await audit.record(tx, caller.admin, "rotated_key", "key", key_id, details)
        return await once.keep(tx, {"key_id": str(id_), **rotated})


async def _rotated(tx: CoreTx, caller: Caller, team_id: str, key_id: UUID, grace_s: int) -> dict[str, Any]:
    replaced = await _lock(tx, team_id, key_id)
    secret, ends_at = await new_key.replace_secret(
        tx, team_id, key_id, replaced=replaced, grace_s=grace_s, by=caller.by
    )
    return {"team_id": team_id, "virtual_key": secret, "previous_key_expires_at": iso(ends_at)}


async def _lock(tx: Tx, team_id: str, key_id: UUID) -> tuple[bytes, str]:
    await team_objects.lock_team(tx, team_id)
    found = await keys.lock(tx, team_id, key_id)
    if found is None:
        raise NotFound(UNKNOWN)
    return found


async def _shown(tx: Tx, team_id: str, key_id: UUID) -> dict[str, Any]:
    found = await key_views.get(tx, team_id, key_id)
    if found is None:
        raise NotFound(UNKNOWN)
    return _object(found, (await budgets.of_keys(tx, [key_id])).get(key_id))


def _object(key: key_views.KeyView, budget: budgets.Budget | None) -> dict[str, Any]:
    return {
        "key_id": str(key.id),
        "team_id": key.team_id,
        "key_name": key.hint,
        "status": key.status,
        "key_alias": key.key_alias,
        "user_id": key.user_id,
        "models": key.models,
        "rpm_limit": key.rpm_limit,
        "tpm_limit": key.tpm_limit,
        "max_parallel_requests": key.max_parallel_requests,
        "allowed_routes": key.allowed_routes,
        "spend": money.usd(key.spent_nanousd),
        "max_budget": None if budget is None else money.usd(budget.max_nanousd),
        "soft_budget": None if budget is None or budget.soft_nanousd is None else money.usd(budget.soft_nanousd),
        "budget_spend": None if budget is None else money.usd(budget.spent_nanousd),
        "budget_duration": None if budget is None else budget.duration,
        "budget_reset_at": None if budget is None else iso(budget.resets_at),
        "metadata": key.metadata,
        "blocked": key.blocked,
        "expires_at": iso(key.expires_at),
        "created_by": key.created_by,
        "created_at": iso(key.created_at),
        "updated_at": iso(key.updated_at),
    }
