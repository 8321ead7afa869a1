"""Sessions of admin users: the client holds a signed token, the database its SHA-256 and what the user may do now."""

import hashlib
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import jwt
from jwt.types import Options

from shared import admin_sessions, clock, ids
from shared.admin_users import Role, User
from shared.db import CoreTx, Database
from shared.errors import Unauthorized, Unavailable
from shared.settings import Settings

LASTS_S = 24 * 60 * 60
ALGORITHM = "HS256"
END_OF_TIME = 253_402_300_799
OURS = {"email": str, "role": str, "jti": str}

# Whether a token is over is decided by the database's clock, together with all the rest.
SIGNATURE_ONLY: Options = {"verify_exp": False, "verify_iat": False}
CHALLENGE = {"WWW-Authenticate": "Bearer"}


@dataclass(frozen=True, kw_only=True)
class Session:
    """A session in use: whose, with which rights at this moment. hash: its row's key."""

    user_id: UUID
    role: Role
    hash: bytes


@dataclass(frozen=True, kw_only=True)
class Token:
    """A token that we signed. expires: unix seconds."""

    user_id: UUID
    expires: int
    hash: bytes


def check_possible(settings: Settings) -> None:
    """Raises Unavailable when there is no key to sign tokens with."""
    if not settings.secret_key.get_secret_value():
        raise Unavailable("Admin users cannot log in: WAYBILL_SECRET_KEY is not set")


async def open_session(tx: CoreTx, settings: Settings, user: User, ip_address: str | None) -> str:
    """Open a session for this user; returns its token."""
    issued = int(clock.now().timestamp())
    claims = {
        "user_id": str(user.id),
        "email": user.email,
        "role": user.role,
        "exp": issued + LASTS_S,
        "iat": issued,
        "jti": ids.new().hex,
    }
    token = jwt.encode(claims, settings.secret_key.get_secret_value(), algorithm=ALGORITHM)
    await admin_sessions.create(tx, user.id, hash_=_hash(token), ip_address=ip_address, lasts_s=LASTS_S)
    return token


def read_token(settings: Settings, secret: str) -> Token | None:
    """The token, when we signed it, over or not; else None. Raises Unauthorized: signed, yet not one of ours."""
    key = settings.secret_key.get_secret_value()
    if not key or not is_token_shaped(secret):
        return None
    try:
        claims = jwt.decode(secret, key, algorithms=[ALGORITHM], options=SIGNATURE_ONLY)
    except jwt.InvalidTokenError:
        return None
    return _token(secret, claims)


def is_token_shaped(secret: str) -> bool:
    """Whether it looks like a token at all."""
    return secret.count(".") == 2


async def session_of(db: Database, token: Token) -> Session:
    """The open session of a token. Raises Unauthorized: over, revoked, or its user gone or inactive."""
    async with db.statement() as tx:
        found = await admin_sessions.find(tx, token.user_id, hash_=token.hash, expires=token.expires)
    if found.expired:
        raise Unauthorized("Invalid or expired token", headers=CHALLENGE)
    if not found.is_active or found.role is None:
        raise Unauthorized("User not found or inactive", headers=CHALLENGE)
    if not found.is_open:
        raise Unauthorized("Session expired or revoked", headers=CHALLENGE)
    return Session(user_id=token.user_id, role=found.role, hash=token.hash)


def _token(secret: str, claims: dict[str, Any]) -> Token:
    user_id = ids.parse(str(claims.get("user_id")))
    expires = claims.get("exp")
    strange = any(not isinstance(claims.get(name), type_) for name, type_ in OURS.items())
    if user_id is None or strange or not isinstance(expires, int) or not 0 <= expires <= END_OF_TIME:
        raise Unauthorized("Invalid token payload", headers=CHALLENGE)
    return Token(user_id=user_id, expires=expires, hash=_hash(secret))


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
