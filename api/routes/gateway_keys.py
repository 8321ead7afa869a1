"""Virtual keys as LiteLLM's clients manage them: made, changed, blocked, regenerated and deleted by admins.

The keys are those of `/api/teams/{team_id}/keys`; here they are named in clear or by their hash.
"""

from typing import Any

from api import new_key
from api.auth import Caller
from api.gateway import key_objects, key_terms, named_keys
from api.gateway.face import GATEWAY
from api.gateway.key_bodies import DeleteKeys, GenerateKey, KeyListQuery, KeyQuery, OneKey, RegenerateKey, UpdateKey
from api.http import endpoint
from api.once import Once
from api.wire.gateway_keys import ChangedKeyOut, DeletedKeysOut, GeneratedKeyOut, KeyInfoOut, KeyListOut
from shared import audit, key_secrets, key_views, keys
from shared.db import Tx
from shared.errors import BadRequest, Forbidden
from shared.key_views import Filter, Named
from shared.runtime import Runtime


@endpoint("admin:w", answers=GeneratedKeyOut, face=GATEWAY)
async def key_generate(rt: Runtime, caller: Caller, body: GenerateKey, once: Once) -> dict[str, Any]:
    """A new key of a team; the only answer that shows it."""
    if body.key is not None:
        new_key.check_own(rt, body.key, field="key")
    secret = body.key or key_secrets.new_virtual_key()
    async with rt.db.transaction() as tx:
        team_id = await key_terms.lock_team(rt, tx, body)
        key_id = await new_key.store(tx, team_id, secret, key_terms.of_new(body, caller.by))
        if body.duration is not None:
            await new_key.set_expiry(tx, key_id, body.duration)
        await key_terms.set_new_budget(tx, key_id, body)
        await audit.record(tx, caller.admin, "created_key", "key", str(key_id), body.logged() | {"team_id": team_id})
        made = await named_keys.view(tx, await named_keys.find(tx, secret))
        return await once.keep(tx, key_objects.generated(*made, secret=secret, duration=body.duration))


@endpoint("any", answers=KeyInfoOut, face=GATEWAY)
async def key_info(rt: Runtime, caller: Caller, query: KeyQuery) -> dict[str, Any]:
    """A key, masked; without `key` the caller's own. For admins, the key, and keys of its team or its user."""
    if query.key is None and caller.is_admin:
        raise BadRequest("An admin has no key of their own: 'key' is needed", param="key")
    async with rt.db.statement() as tx:
        if query.key is None:
            own = caller.team
            [row] = await named_keys.rows(tx, Filter(team_id=own.team_id, key_id=own.id), limit=1, offset=0)
            return {"key": row.pop("token"), "info": row}
        named = await named_keys.find(tx, query.key)
        if not named_keys.may_read(caller, named):
            raise Forbidden("This key belongs to another team and another user", param="key")
        info = await named_keys.info(tx, named)
    return {"key": query.key if named_keys.is_token(query.key) else info["key_name"], "info": info}


@endpoint("admin:w", answers=ChangedKeyOut, face=GATEWAY)
async def key_update(rt: Runtime, caller: Caller, body: UpdateKey, once: Once) -> dict[str, Any]:
    """Set what was sent; requests see it within a second."""
    async with rt.db.transaction() as tx:
        named = await named_keys.find(tx, body.key)
        await named_keys.lock(tx, named)
        await key_terms.change(tx, *await named_keys.view(tx, named), body, caller.by)
        details = body.logged() | {"team_id": named.team_id}
        await audit.record(tx, caller.admin, "updated_key", "key", str(named.id), details)
        return await once.keep(tx, await _changed(tx, body.key, named))


@endpoint("admin:w", answers=ChangedKeyOut, face=GATEWAY)
async def key_block(rt: Runtime, caller: Caller, body: OneKey, once: Once) -> dict[str, Any]:
    """Let the key open nothing until it is unblocked."""
    return await _set_blocked(rt, caller, body, once, blocked=True)


@endpoint("admin:w", answers=ChangedKeyOut, face=GATEWAY)
async def key_unblock(rt: Runtime, caller: Caller, body: OneKey, once: Once) -> dict[str, Any]:
    """Let a blocked key work again."""
    return await _set_blocked(rt, caller, body, once, blocked=False)


@endpoint("admin:w", answers=GeneratedKeyOut, face=GATEWAY)
async def key_regenerate(rt: Runtime, caller: Caller, body: RegenerateKey, once: Once) -> dict[str, Any]:
    """A new secret for the key; its alias, limits, budget and spend stay."""
    async with rt.db.transaction() as tx:
        named = await named_keys.find(tx, body.key)
        replaced = await named_keys.lock(tx, named)
        secret, _ = await new_key.replace_secret(
            tx, named.team_id, named.id, replaced=replaced, grace_s=body.grace_s, by=caller.by
        )
        details = {"team_id": named.team_id, "grace_s": body.grace_s}
        await audit.record(tx, caller.admin, "rotated_key", "key", str(named.id), details)
        made = await named_keys.view(tx, named)
        return await once.keep(tx, key_objects.generated(*made, secret=secret, duration=None))


@endpoint("admin:w", answers=DeletedKeysOut, face=GATEWAY)
async def key_delete(rt: Runtime, caller: Caller, body: DeleteKeys, once: Once) -> dict[str, Any]:
    """Revoke keys, given as they are, by hash or by alias; names that no key has are passed over, unless all are."""
    if not body.keys and not body.key_aliases:
        raise BadRequest("Either 'keys' or 'key_aliases' must be provided", param="keys")
    async with rt.db.transaction() as tx:
        found = await key_views.of_secrets(tx, [named_keys.hash_of(given) for given in body.keys])
        found += await key_views.of_aliases(tx, body.key_aliases)
        by_alias = {key.id: key.key_alias for key in found if key.key_alias in body.key_aliases}
        deleted = [key for key in _each_once(found) if await _revoked(tx, caller, key)]
        if not deleted:
            raise named_keys.unknown()
        return await once.keep(tx, {"deleted_keys": [by_alias.get(key.id) or key.token for key in deleted]})


@endpoint("admin:r", answers=KeyListOut, face=GATEWAY)
async def key_list(rt: Runtime, query: KeyListQuery) -> dict[str, Any]:
    """Keys that are not revoked, newest first."""
    wanted = Filter(team_id=query.team_id, user_id=query.user_id, live=True)
    async with rt.db.statement() as tx:
        rows = await named_keys.rows(tx, wanted, limit=query.size, offset=(query.page - 1) * query.size)
        total = await key_views.count(tx, wanted)
    return {
        "keys": rows if query.return_full_object else [row["token"] for row in rows],
        "total_count": total,
        "current_page": query.page,
        "total_pages": -(-total // query.size),
    }


async def _set_blocked(rt: Runtime, caller: Caller, body: OneKey, once: Once, *, blocked: bool) -> dict[str, Any]:
    async with rt.db.transaction() as tx:
        named = await named_keys.find(tx, body.key)
        await named_keys.lock(tx, named)
        await keys.change(tx, named.id, {"blocked": blocked, "updated_by": caller.by})
        action = "blocked_key" if blocked else "unblocked_key"
        await audit.record(tx, caller.admin, action, "key", str(named.id), {"team_id": named.team_id})
        return await once.keep(tx, await _changed(tx, body.key, named))


async def _changed(tx: Tx, given: str, named: Named) -> dict[str, Any]:
    """The key as it is now: as `info`, as we say it, and flat, as LiteLLM's clients read it."""
    info = await named_keys.info(tx, named)
    return {**info, "key": given if named_keys.is_token(given) else info["key_name"], "info": info}


async def _revoked(tx: Tx, caller: Caller, key: Named) -> bool:
    if not await keys.revoke(tx, key.team_id, key.id):
        return False
    await audit.record(tx, caller.admin, "revoked_key", "key", str(key.id), {"team_id": key.team_id})
    return True


def _each_once(found: list[Named]) -> list[Named]:
    """In the order in which their rows are locked everywhere."""
    return sorted({key.id: key for key in found}.values(), key=lambda key: key.id)
