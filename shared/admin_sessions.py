"""Sessions of admin users: a row per token given out, under the token's SHA-256; deleting it ends the session."""

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from sqlalchemy import delete, insert, text

from shared import tables
from shared.db import CoreTx, Tx, hot

SESSIONS = tables.admin_sessions

FIND = """
select to_timestamp(%(expires)s) <= app_now() as expired, coalesce(u.is_active, false) as is_active, u.role,
       s.hash is not null as is_open
  from (values (1)) as one
  left join admin_users u on u.id = %(user_id)s
  left join admin_sessions s on s.hash = %(hash)s and s.user_id = u.id and s.expires_at > app_now()
"""

DELETE_EXPIRED = """
delete from admin_sessions where hash in (
     select hash from admin_sessions where expires_at <= app_now()
      order by expires_at limit %s for update skip locked)
returning hash
"""


@dataclass(frozen=True, kw_only=True)
class TokenState:
    """What the database says of a token at this moment. role is None when there is no such user."""

    expired: bool
    is_active: bool
    role: Literal["owner", "admin", "user"] | None
    is_open: bool


async def create(tx: CoreTx, user_id: UUID, *, hash_: bytes, ip_address: str | None, lasts_s: int) -> None:
    """Open one for so many seconds from now."""
    expires_at = text("app_now() + make_interval(secs => :lasts_s)").bindparams(lasts_s=lasts_s)
    made = insert(SESSIONS).values(hash=hash_, user_id=user_id, ip_address=ip_address, expires_at=expires_at)
    await tx.execute(made)


async def find(tx: Tx, user_id: UUID, *, hash_: bytes, expires: int) -> TokenState:
    """How a token stands, and its user's rights now. expires: what the token itself says, in unix seconds."""
    [row] = await hot(tx, FIND, {"user_id": user_id, "hash": hash_, "expires": expires})
    return TokenState(**row._asdict())


async def end(tx: CoreTx, hash_: bytes) -> None:
    """End one."""
    await tx.execute(delete(SESSIONS).where(SESSIONS.c.hash == hash_))


async def end_all(tx: CoreTx, user_id: UUID, *, but: bytes | None = None) -> None:
    """End all of a user's sessions, except perhaps the one that asks for it."""
    ended = delete(SESSIONS).where(SESSIONS.c.user_id == user_id)
    await tx.execute(ended if but is None else ended.where(SESSIONS.c.hash != but))


async def delete_expired(tx: Tx, *, limit: int) -> int:
    """Delete those that are over. Returns how many."""
    return len(await hot(tx, DELETE_EXPIRED, (limit,)))
