"""Who calls: a team by its key, an admin by the admin key or a session; decided on the matched route, not the URL."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from starlette.requests import Request

from api import key_rules, sessions
from api.face import NATIVE, Face
from api.last_active import LastActive
from api.sessions import CHALLENGE
from shared import clock, key_secrets, keys, log
from shared.admin_users import Role
from shared.audit import Admin
from shared.db import Database, Tx
from shared.errors import Forbidden, Unauthorized
from shared.settings import Settings

logger = log.get(__name__)

Access = Literal["none", "team", "any", "any:w", "admin:r", "admin:w", "owner", "session"]
"""Who may call a route, in the contract's words.

any: a team, or any admin. any:w: a team, or an admin who may write. owner: the admin key or an owner. session: an admin
user who logged in, whatever the role; not the admin key.
"""
TEAM_ACCESS = ("team", "any", "any:w")
WRITERS: tuple[Role, ...] = ("owner", "admin")
REQUIRED_ROLES: Mapping[Access, tuple[Role, ...]] = {"admin:w": WRITERS, "any:w": WRITERS, "owner": ("owner",)}
CACHE_S = 1.0
MOST_ADDRESS = 64

NEEDS_KEY = "This endpoint needs a team virtual key"
BAD_HEADER = "Invalid Authorization header format. Expected: 'Authorization: Bearer sk-xxx...'"
NO_ADMIN = "Authentication required. Provide either 'Authorization: Bearer <token>' or 'X-Admin-Key: <master_key>'"


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who makes this request: a team by its key, or an admin: the admin key (role owner) or a user's session."""

    team_id: str | None = None
    key: keys.Key | None = None
    role: Role | None = None
    user_id: UUID | None = None
    session: bytes | None = None
    ip_address: str | None = None

    @property
    def is_admin(self) -> bool:
        """Whether an admin's credential was used."""
        return self.role is not None

    @property
    def team(self) -> keys.Key:
        """The team's key and terms, on a route that only teams may call."""
        if self.key is None:
            raise Forbidden(NEEDS_KEY)
        return self.key

    @property
    def admin(self) -> Admin | None:
        """Who the audit log names; None for a team, which acts for itself."""
        if self.role is None:
            return None
        return Admin(user_id=str(self.user_id or "admin_key"), ip_address=self.ip_address)

    @property
    def by(self) -> str:
        """Who a row says that it was made or changed by; empty for a team."""
        return self.admin.user_id if self.admin else ""

    @property
    def principal(self) -> str | None:
        """Whose idempotency keys these are; None where nobody is known."""
        if self.team_id is not None:
            return f"team:{self.team_id}"
        return None if self.role is None else f"admin:{self.user_id or 'admin_key'}"

    def may_see(self, team_id: str) -> bool:
        """Whether things of this team may be read: an admin's right, or the team's own."""
        return self.is_admin or self.team_id == team_id


class Authenticator:
    """Finds the caller. A key's row is kept for at most a second, so that a revoked key stops working within one."""

    def __init__(self, settings: Settings, db: Database) -> None:
        self._settings = settings
        self._admin_key = settings.admin_key.get_secret_value()
        self._db = db
        self._cache: dict[bytes, tuple[float, keys.Key | None]] = {}
        self.last_active = LastActive(db)

    async def caller(
        self,
        request: Request,
        access: Access,
        *,
        face: Face = NATIVE,
        even_suspended: bool = False,
    ) -> Caller:
        """The caller of a route with this access. Raises Unauthorized, Forbidden, TooManyRequests (paused).

        face: the dialect of the route; it knows where its clients put their keys.
        """
        admin_key, authorization = face.credential(request)
        if admin_key is None and authorization is None and face.may_be_nobody(request):
            nobody = await self._anonymous(request, access)
            if nobody is not None:
                return nobody
        if admin_key is not None and (access != "team" or authorization is None):
            return self._admin(admin_key, access, address_of(request))
        secret = _bearer(authorization, access, face)
        if self._is_admin_key(secret):
            return self._admin(secret, access, address_of(request))
        token = sessions.read_token(self._settings, secret)
        if token is not None:
            return await self._user(token, access, address_of(request))
        return await self._team(request, secret, access, even_suspended=even_suspended)

    def forget(self) -> None:
        """An admin changed something: what this process knows of keys is read again. Others see it within a second."""
        self._cache.clear()

    def _is_admin_key(self, secret: str) -> bool:
        return bool(self._admin_key) and key_secrets.same(secret, self._admin_key)

    def _admin(self, secret: str, access: Access, ip_address: str | None) -> Caller:
        if not self._is_admin_key(secret):
            raise Unauthorized("Invalid admin API key", headers=CHALLENGE)
        if access == "team":
            raise Forbidden(NEEDS_KEY)
        if access == "session":
            raise Forbidden("This endpoint needs an admin user's session")
        return Caller(role="owner", ip_address=ip_address)

    async def _user(self, token: sessions.Token, access: Access, ip_address: str | None) -> Caller:
        session = await sessions.session_of(self._db, token)
        if access == "team":
            raise Forbidden(NEEDS_KEY)
        required = REQUIRED_ROLES.get(access)
        if required is not None and session.role not in required:
            raise Forbidden(f"Insufficient permissions. Required roles: {', '.join(required)}")
        return Caller(role=session.role, user_id=session.user_id, session=session.hash, ip_address=ip_address)

    async def _team(self, request: Request, secret: str, access: Access, *, even_suspended: bool) -> Caller:
        hash_ = key_secrets.key_hash(secret)
        key = await self._known(hash_, lambda tx: keys.find(tx, hash_))
        if key is None:
            raise Unauthorized(_unknown(secret, access), headers=CHALLENGE)
        caller = _as_team(request, key, access, even_suspended=even_suspended)
        self.last_active.saw(key.id)
        return caller

    async def _anonymous(self, request: Request, access: Access) -> Caller | None:
        """The team that requests without a key act as; None where there is none, as always in production."""
        team_id = self._settings.gateway_anonymous_team
        if team_id is None or access not in TEAM_ACCESS:
            return None
        key = await self._known(f"team:{team_id}".encode(), lambda tx: keys.find_own(tx, team_id))
        if key is None:
            logger.warning("anonymous_team_has_no_key")
            return None
        return _as_team(request, key, access, even_suspended=False)

    async def _known(self, name: bytes, read: Callable[[Tx], Awaitable[keys.Key | None]]) -> keys.Key | None:
        now = time.monotonic()
        found = self._cache.get(name)
        if found is not None and now - found[0] < CACHE_S:
            return found[1]
        if len(self._cache) > 10_000:
            self._cache.clear()
        async with self._db.hot_statement() as tx:
            key = await read(tx)
        self._cache[name] = (now, key)
        return key


def _as_team(request: Request, key: keys.Key, access: Access, *, even_suspended: bool) -> Caller:
    key_rules.check_key(key, clock.now())
    if access not in TEAM_ACCESS:
        raise Forbidden("Admin access required")
    key_rules.check_route(key, request)
    if not even_suspended:
        key_rules.check_team(key, clock.now())
    return Caller(team_id=key.team_id, key=key)


def address_of(request: Request) -> str | None:
    """From where the request comes, as far as the server knows."""
    return request.client.host[:MOST_ADDRESS] if request.client else None


def _bearer(authorization: str | None, access: Access, face: Face) -> str:
    if authorization is None:
        raise Unauthorized(face.no_key if access == "team" else NO_ADMIN, headers=CHALLENGE)
    scheme, _, secret = authorization.partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret:
        raise Unauthorized(BAD_HEADER if access == "team" else NO_ADMIN, headers=CHALLENGE)
    return secret


def _unknown(secret: str, access: Access) -> str:
    """What is said of a credential nobody has: keys and sessions are told apart by what the route takes."""
    takes_keys = access == "team" or (access in TEAM_ACCESS and not sessions.is_token_shaped(secret))
    return "Invalid API key" if takes_keys else "Invalid or expired token"
