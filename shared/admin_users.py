"""Admin users: the people who administer, each with an e-mail address, a role and a password; none is ever erased."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import exists, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from shared import ids, tables
from shared.db import CoreTx

Role = Literal["owner", "admin", "user"]

USERS = tables.admin_users
ONE_WRITER = text("lock table admin_users in share row exclusive mode")


@dataclass(frozen=True, kw_only=True)
class User:
    """An admin user. created_by: another user's id or `admin_key`; None for the owner made at setup."""

    id: UUID
    email: str
    display_name: str
    role: Role
    password_hash: str
    is_active: bool
    metadata: Mapping[str, Any]
    created_by: str | None
    last_login_at: datetime | None
    created_at: datetime


COLUMNS = [USERS.c[field.name] for field in fields(User)]


async def lock(tx: CoreTx) -> None:
    """Write alone until this transaction ends, for rules about several users: one first owner, never the last one."""
    await tx.execute(ONE_WRITER)


async def any_exists(tx: CoreTx) -> bool:
    """Whether there is a user at all, active or not."""
    return bool(await tx.scalar(select(exists(select(USERS.c.id)))))


async def other_owner_exists(tx: CoreTx, user_id: UUID) -> bool:
    """Whether somebody else is an active owner."""
    others = select(USERS.c.id).where(USERS.c.role == "owner", USERS.c.is_active, USERS.c.id != user_id)
    return bool(await tx.scalar(select(exists(others))))


async def create(
    tx: CoreTx,
    *,
    email: str,
    display_name: str,
    role: Role,
    password_hash: str,
    metadata: Mapping[str, Any],
    created_by: str | None,
) -> User | None:
    """Make one. email: in lower case. None when it is taken, also by one made at the same time."""
    made = insert(USERS).values(
        id=ids.new(),
        email=email,
        display_name=display_name,
        role=role,
        password_hash=password_hash,
        metadata=dict(metadata),
        created_by=created_by,
    )
    return await _one(tx, made.on_conflict_do_nothing().returning(*COLUMNS))


async def get(tx: CoreTx, user_id: UUID) -> User | None:
    """The user with this id, or None."""
    return await _one(tx, select(*COLUMNS).where(USERS.c.id == user_id))


async def by_email(tx: CoreTx, email: str) -> User | None:
    """The user with this address, given in lower case, or None."""
    return await _one(tx, select(*COLUMNS).where(USERS.c.email == email))


async def page(tx: CoreTx, *, limit: int, offset: int) -> Sequence[User]:
    """Users, newest first."""
    found = select(*COLUMNS).order_by(USERS.c.created_at.desc(), USERS.c.id.desc()).limit(limit).offset(offset)
    return [_user(row) for row in await tx.execute(found)]


async def count(tx: CoreTx) -> int:
    """How many there are."""
    return int(await tx.scalar(select(func.count()).select_from(USERS)) or 0)


async def change(tx: CoreTx, user_id: UUID, **columns: Any) -> User | None:
    """Set these columns of the table; None when there is no such user."""
    changed = update(USERS).where(USERS.c.id == user_id).values(**columns, updated_at=func.app_now())
    return await _one(tx, changed.returning(*COLUMNS))


async def log_in(tx: CoreTx, checked: User) -> User | None:
    """Note a login with the password that was checked; None when it was changed since, or the user is inactive."""
    noted = update(USERS).where(
        USERS.c.id == checked.id, USERS.c.is_active, USERS.c.password_hash == checked.password_hash
    )
    return await _one(tx, noted.values(last_login_at=func.app_now()).returning(*COLUMNS))


async def change_password(tx: CoreTx, checked: User, password_hash: str) -> bool:
    """Replace the password that was checked; False when it was changed since."""
    changed = update(USERS).where(USERS.c.id == checked.id, USERS.c.password_hash == checked.password_hash)
    done = await tx.execute(changed.values(password_hash=password_hash, updated_at=func.app_now()))
    return done.rowcount == 1


async def _one(tx: CoreTx, statement: Any) -> User | None:
    row = (await tx.execute(statement)).first()
    return None if row is None else _user(row)


def _user(row: Any) -> User:
    return User(**row._asdict())
