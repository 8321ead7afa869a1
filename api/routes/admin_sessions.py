"""Setup of the first owner, login, logout, and what admin users may do to themselves."""

from typing import Any

from starlette.requests import Request

from api import auth, sessions
from api.admin_objects import user_object
from api.auth import Caller
from api.http import endpoint
from api.once import Once
from api.passwords import passwords
from api.wire.admins import AdminUser, ChangePassword, LoggedIn, Login, Setup, SetupStatus
from api.wire.answers import Message
from shared import admin_sessions, admin_users, audit, login_failures
from shared.admin_users import User
from shared.audit import Admin
from shared.db import CoreTx, Tx
from shared.errors import BadRequest, TooManyRequests, Unauthorized
from shared.runtime import Runtime

NOT_AGAIN = "Setup already completed. Owner account exists."
NOWHERE = "unknown"
"""The network address of a client whose server does not say: all of them count as one."""


@endpoint("none", answers=SetupStatus)
async def setup_status(rt: Runtime) -> dict[str, Any]:
    """Whether the first owner is still to be made."""
    async with rt.db.statement() as tx:
        has_users = await admin_users.any_exists(tx)
    return {"needs_setup": not has_users, "has_users": has_users}


@endpoint("none", answers=LoggedIn)
async def setup(rt: Runtime, request: Request, body: Setup) -> dict[str, Any]:
    """Make the first owner and log them in; in production only for who has the admin key."""
    sessions.check_possible(rt.settings)
    if rt.settings.env == "production":
        await request.app.state.authenticator.caller(request, "owner")
    async with rt.db.statement() as tx:
        if await admin_users.any_exists(tx):
            raise BadRequest(NOT_AGAIN)
    password_hash = await passwords.hash(body.password)
    async with rt.db.transaction() as tx:
        await admin_users.lock(tx)
        if await admin_users.any_exists(tx):
            raise BadRequest(NOT_AGAIN)
        made = await admin_users.create(
            tx,
            email=body.email,
            display_name=body.display_name,
            role="owner",
            password_hash=password_hash,
            metadata={},
            created_by=None,
        )
        owner = await admin_users.log_in(tx, made) if made else None
        if owner is None:
            raise BadRequest(NOT_AGAIN)
        return await _logged_in(tx, rt, request, owner, "setup_owner")


@endpoint("none", answers=LoggedIn)
async def login(rt: Runtime, request: Request, body: Login) -> dict[str, Any]:
    """Open a session for who knows the password.

    Of many tries at once only the first five learn whether they were right: who came too late is decided after the
    password was checked, whatever the outcome.
    """
    sessions.check_possible(rt.settings)
    address = auth.address_of(request) or NOWHERE
    async with rt.db.statement() as tx:
        await _refuse_throttled(tx, body.email, address)
        user = await admin_users.by_email(tx, body.email)
    right = await passwords.is_right(body.password, user.password_hash if user else None)
    async with rt.db.transaction() as tx:
        await login_failures.lock(tx, body.email, address)
        await _refuse_throttled(tx, body.email, address)
        known = await admin_users.log_in(tx, user) if user and right else None
        if known is not None:
            return await _logged_in(tx, rt, request, known, "login")
        await login_failures.record(tx, body.email, address)
        await _audit_failed(tx, user, body.email, address)
    raise Unauthorized("Invalid email or password", headers=sessions.CHALLENGE)


@endpoint("session", answers=Message)
async def logout(rt: Runtime, caller: Caller, once: Once) -> dict[str, Any]:
    """End this session."""
    async with rt.db.transaction() as tx:
        await admin_sessions.end(tx, caller.session or b"")
        await audit.record(tx, caller.admin, "logout", "admin_user", str(caller.user_id))
        return await once.keep(tx, {"message": "Logged out successfully"})


@endpoint("session", answers=AdminUser)
async def me(rt: Runtime, caller: Caller) -> dict[str, Any]:
    """Who is logged in."""
    async with rt.db.statement() as tx:
        return user_object(await _self(tx, caller))


@endpoint("session", answers=Message)
async def change_own_password(rt: Runtime, caller: Caller, body: ChangePassword, once: Once) -> dict[str, Any]:
    """Change one's own password; the user's other sessions end. A wrong one counts like a failed login."""
    address = caller.ip_address or NOWHERE
    wrong = Unauthorized("Current password is incorrect", headers=sessions.CHALLENGE)
    async with rt.db.statement() as tx:
        user = await _self(tx, caller)
        await _refuse_throttled(tx, user.email, address)
    if not await passwords.is_right(body.current_password, user.password_hash):
        async with rt.db.transaction() as tx:
            await login_failures.lock(tx, user.email, address)
            await _refuse_throttled(tx, user.email, address)
            await login_failures.record(tx, user.email, address)
            await _audit_failed(tx, user, user.email, address)
        raise wrong
    password_hash = await passwords.hash(body.new_password)
    async with rt.db.transaction() as tx:
        if not await admin_users.change_password(tx, user, password_hash):
            raise wrong
        await admin_sessions.end_all(tx, user.id, but=caller.session)
        await audit.record(tx, caller.admin, "changed_password", "admin_user", str(user.id))
        return await once.keep(tx, {"message": "Password changed successfully"})


async def _self(tx: CoreTx, caller: Caller) -> User:
    user = await admin_users.get(tx, caller.user_id) if caller.user_id else None
    if user is None:
        raise Unauthorized("User not found or inactive", headers=sessions.CHALLENGE)
    return user


async def _refuse_throttled(tx: Tx, email: str, address: str) -> None:
    wait_s = await login_failures.wait_s(tx, email, address)
    if wait_s > 0:
        raise TooManyRequests("Too many login attempts", retry_after_s=wait_s)


async def _logged_in(tx: CoreTx, rt: Runtime, request: Request, user: User, action: str) -> dict[str, Any]:
    address = auth.address_of(request)
    token = await sessions.open_session(tx, rt.settings, user, address)
    await audit.record(tx, Admin(user_id=str(user.id), ip_address=address), action, "admin_user", str(user.id))
    return {
        "access_token": token,
        "token_type": "bearer",
        "expires_in": sessions.LASTS_S,
        "user": user_object(user),
    }


async def _audit_failed(tx: Tx, user: User | None, email: str, address: str) -> None:
    """What was tried is kept of known users only: people type passwords into the wrong field."""
    by = Admin(user_id="anonymous", ip_address=address)
    resource_id = str(user.id) if user else None
    await audit.record(tx, by, "login_failed", "admin_user", resource_id, {"email": email} if user else {})
