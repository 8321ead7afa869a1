"""Admin users: made, read, changed and deactivated by those who may write; admins rule over users, owners over all."""

from typing import Any

from starlette.requests import Request

from api.access import parse_id
from api.admin_objects import user_object
from api.auth import Caller
from api.http import endpoint
from api.lists import Page, next_link
from api.once import Once
from api.passwords import passwords
from api.replies import Reply
from api.wire.admins import AdminUser, NewUser, ResetPassword, UserChanges
from api.wire.answers import Message
from shared import admin_sessions, admin_users, audit
from shared.admin_users import User
from shared.db import CoreTx
from shared.errors import BadRequest, Forbidden, NotFound
from shared.runtime import Runtime

UNKNOWN = "User not found"
NO_MODIFYING = "Admins cannot modify owner or admin users"


@endpoint("admin:w", answers=list[AdminUser])
async def list_users(rt: Runtime, request: Request, query: Page) -> Reply:
    """All of them, newest first."""
    async with rt.db.statement() as tx:
        total = await admin_users.count(tx)
        found = await admin_users.page(tx, limit=query.limit, offset=query.offset)
    headers = {"X-Total-Count": str(total), **next_link(request, query, total)}
    return Reply(body=[user_object(user) for user in found], headers=headers)


@endpoint("admin:w", answers=AdminUser)
async def get_user(rt: Runtime, user_id: str) -> dict[str, Any]:
    """One of them."""
    async with rt.db.statement() as tx:
        return user_object(await _found(tx, user_id))


@endpoint("admin:w", answers=AdminUser)
async def create_user(rt: Runtime, caller: Caller, body: NewUser, once: Once) -> dict[str, Any]:
    """Make one; admins make users only."""
    if caller.role != "owner" and body.role != "user":
        raise Forbidden("Admins can only create users with 'user' role")
    password_hash = await passwords.hash(body.password)
    async with rt.db.transaction() as tx:
        made = await admin_users.create(
            tx,
            email=body.email,
            display_name=body.display_name,
            role=body.role,
            password_hash=password_hash,
            metadata=body.metadata,
            created_by=caller.admin.user_id if caller.admin else None,
        )
        if made is None:
            raise BadRequest("Email already registered")
        details = {"email": made.email, "role": made.role}
        await audit.record(tx, caller.admin, "created_user", "admin_user", str(made.id), details)
        return await once.keep(tx, user_object(made))


@endpoint("admin:w", answers=AdminUser)
async def update_user(rt: Runtime, caller: Caller, user_id: str, body: UserChanges) -> dict[str, Any]:
    """Change what the body names."""
    wanted = body.model_dump(exclude_none=True)
    async with rt.db.transaction() as tx:
        await admin_users.lock(tx)
        target = await _modifiable(tx, caller, user_id, NO_MODIFYING)
        _check_role(caller, target, body)
        return user_object(await _changed(tx, caller, target, wanted))


@endpoint("admin:w", answers=AdminUser)
async def activate_user(rt: Runtime, caller: Caller, user_id: str) -> dict[str, Any]:
    """Let them log in again."""
    return await _set_active(rt, caller, user_id, is_active=True)


@endpoint("admin:w", answers=AdminUser)
async def deactivate_user(rt: Runtime, caller: Caller, user_id: str) -> dict[str, Any]:
    """Keep them out from now on, also from the sessions they have."""
    return await _set_active(rt, caller, user_id, is_active=False)


@endpoint("admin:w", answers=Message)
async def delete_user(rt: Runtime, caller: Caller, user_id: str) -> dict[str, Any]:
    """Deactivate them for good; the row stays, since the audit log names it."""
    if caller.user_id is not None and parse_id(user_id, UNKNOWN) == caller.user_id:
        raise BadRequest("Cannot delete your own account")
    async with rt.db.transaction() as tx:
        await admin_users.lock(tx)
        target = await _modifiable(tx, caller, user_id, "Admins cannot delete owner or admin users")
        await _deactivated(tx, target)
        await audit.record(tx, caller.admin, "deleted_user", "admin_user", str(target.id), {"email": target.email})
    return {"message": "User deleted successfully"}


@endpoint("owner", answers=Message)
async def reset_password(rt: Runtime, caller: Caller, user_id: str, body: ResetPassword, once: Once) -> dict[str, Any]:
    """Give somebody a new password; all their sessions end."""
    async with rt.db.statement() as tx:
        await _found(tx, user_id)
    password_hash = await passwords.hash(body.new_password)
    async with rt.db.transaction() as tx:
        target = await admin_users.change(tx, parse_id(user_id, UNKNOWN), password_hash=password_hash)
        if target is None:
            raise NotFound(UNKNOWN)
        await admin_sessions.end_all(tx, target.id)
        await audit.record(tx, caller.admin, "changed_password", "admin_user", str(target.id))
        return await once.keep(tx, {"message": "Password changed successfully"})


async def _set_active(rt: Runtime, caller: Caller, user_id: str, *, is_active: bool) -> dict[str, Any]:
    async with rt.db.transaction() as tx:
        await admin_users.lock(tx)
        target = await _modifiable(tx, caller, user_id, NO_MODIFYING)
        return user_object(await _changed(tx, caller, target, {"is_active": is_active}))


async def _found(tx: CoreTx, user_id: str) -> User:
    user = await admin_users.get(tx, parse_id(user_id, UNKNOWN))
    if user is None:
        raise NotFound(UNKNOWN)
    return user


async def _modifiable(tx: CoreTx, caller: Caller, user_id: str, refusal: str) -> User:
    """The user, when this caller may change them. Raises NotFound, Forbidden."""
    target = await _found(tx, user_id)
    if caller.role != "owner" and target.role != "user":
        raise Forbidden(refusal)
    return target


def _check_role(caller: Caller, target: User, body: UserChanges) -> None:
    if body.role is None or body.role == target.role:
        return
    if target.id == caller.user_id:
        raise BadRequest("Cannot change your own role")
    if caller.role != "owner":
        raise Forbidden("Admins cannot promote users to owner or admin")


async def _changed(tx: CoreTx, caller: Caller, target: User, wanted: dict[str, Any]) -> User:
    if wanted.get("role", target.role) != "owner":
        await _keep_an_owner(tx, target, "Cannot demote the last owner")
    if not wanted.get("is_active", True):
        await _keep_an_owner(tx, target, "Cannot deactivate the last owner")
        await admin_sessions.end_all(tx, target.id)
    user = await admin_users.change(tx, target.id, **wanted)
    if user is None:
        raise NotFound(UNKNOWN)
    details = {name: value for name, value in wanted.items() if name != "metadata"} | {"changed": sorted(wanted)}
    await audit.record(tx, caller.admin, "updated_user", "admin_user", str(user.id), details)
    return user


async def _deactivated(tx: CoreTx, target: User) -> None:
    await _keep_an_owner(tx, target, "Cannot deactivate the last owner")
    await admin_sessions.end_all(tx, target.id)
    await admin_users.change(tx, target.id, is_active=False)


async def _keep_an_owner(tx: CoreTx, target: User, refusal: str) -> None:
    """Refuse what would leave Waybill without an active owner. Raises BadRequest."""
    if target.role == "owner" and target.is_active and not await admin_users.other_owner_exists(tx, target.id):
        raise BadRequest(refusal)
