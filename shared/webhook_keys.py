"""What signs for an endpoint or for a team's callbacks: the newest v1 secret, those it replaced, ed25519 keys.

newest v1 secret   webhook_endpoints.secret_*, teams.callback_secret_sealed; it does not expire
replaced v1        webhook_keys, until expires_at
v1a                webhook_keys; the newest has no expires_at
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from shared import ids, signing
from shared.db import Tx, hot
from shared.errors import BadRequest
from shared.sealer import CannotOpen, Sealer
from shared.signing import new_webhook_secret

MAX_OLD_KEYS = 10
ENDPOINT = "webhook_endpoints.secret"
TEAM = "teams.callback_secret"
OLD = "webhook_keys.key"

LOCK_ENDPOINT = """
select secret_id, secret_sealed, secret_created_at, signing from webhook_endpoints
 where id = %s and deleted_at is null for no key update
"""
LOCK_TEAM = "select callback_secret_sealed from teams where id = %s and status <> 'deleted' for no key update"

SET_ENDPOINT = """
update webhook_endpoints
   set secret_id = %s, secret_sealed = %s, secret_created_at = coalesce(%s::timestamptz, app_now()),
       updated_at = app_now()
 where id = %s
"""
SET_TEAM = "update teams set callback_secret_sealed = %s, updated_at = app_now() where id = %s"

KEEP = """
insert into webhook_keys (id, endpoint_id, team_id, kind, key_sealed, public_key, created_at, expires_at)
values (%(id)s, %(endpoint_id)s, %(team_id)s, %(kind)s, %(sealed)s, %(public_key)s,
        coalesce(%(created_at)s::timestamptz, app_now()), app_now() + make_interval(secs => %(grace_s)s::float8))
returning expires_at
"""
END_V1A = """
update webhook_keys set expires_at = app_now() + make_interval(secs => %s)
 where endpoint_id = %s and kind = 'v1a' and expires_at is null
"""
END_OLD = """
update webhook_keys set expires_at = app_now()
 where (endpoint_id = %(endpoint_id)s or team_id = %(team_id)s) and expires_at > app_now()
"""
COUNT_OLD = """
select coalesce(max(n), 0) as old
  from (select count(*) as n from webhook_keys
         where (endpoint_id = %(endpoint_id)s or team_id = %(team_id)s) and expires_at > app_now()
         group by kind) of_kind
"""

VALID = """
select id, kind, created_at, expires_at, key_sealed from webhook_keys
 where endpoint_id = %s and (expires_at is null or expires_at > app_now())
 order by created_at desc, id desc
"""
OF_ENDPOINT = """
select secret_id as id, 'v1' as kind, null::text as public_key, secret_created_at as created_at,
       null::timestamptz as expires_at
  from webhook_endpoints where id = %(id)s and deleted_at is null
union all
select k.id, k.kind, k.public_key, k.created_at, k.expires_at
  from webhook_endpoints w join webhook_keys k on k.endpoint_id = w.id
 where w.id = %(id)s and w.deleted_at is null and (k.expires_at is null or k.expires_at > app_now())
 order by kind, created_at desc, id desc
"""
PUBLIC = """
select endpoint_id, public_key from webhook_keys
 where endpoint_id = any(%s) and kind = 'v1a' and expires_at is null
"""
REVOKE = "delete from webhook_keys where id = %s"
KEEP_ON = "update webhook_keys set expires_at = null where id = %s"

DELETE_EXPIRED = """
delete from webhook_keys where id in (
     select id from webhook_keys where expires_at <= app_now() limit %s for update skip locked)
returning id
"""


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key as it is listed: without its value. expires_at: None for the newest of its kind."""

    id: UUID
    kind: str
    public_key: str | None
    created_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Rotated:
    """The new secret, shown once, and until when the replaced keys sign (None: they ended at once).

    public_key: of the new ed25519 key, for an endpoint that signs with one.
    """

    secret: str
    previous_expires_at: datetime | None
    public_key: str | None = None


async def create_v1a(tx: Tx, sealer: Sealer, endpoint_id: UUID) -> str:
    """The public key (`whpk_…`) with which this endpoint's v1a signatures are checked; made when there is none."""
    await hot(tx, LOCK_ENDPOINT, (endpoint_id,))
    known = await public_keys(tx, [endpoint_id])
    return known[endpoint_id] if known else await _new_v1a(tx, sealer, endpoint_id)


async def public_keys(tx: Tx, endpoint_ids: Sequence[UUID]) -> dict[UUID, str]:
    """The newest public key of each of these endpoints that has one."""
    return {row.endpoint_id: row.public_key for row in await hot(tx, PUBLIC, (list(endpoint_ids),))}


async def rotate(tx: Tx, sealer: Sealer, endpoint_id: UUID, *, grace_s: int) -> Rotated | None:
    """New keys for an endpoint of every kind it signs with; None when it is gone.

    grace_s: how long the replaced ones sign beside the new. 0: they end now, and so do all that were replaced before.
    Raises BadRequest when it has 10 replaced secrets that still sign.
    """
    rows = await hot(tx, LOCK_ENDPOINT, (endpoint_id,))
    if not rows:
        return None
    old = rows[0]
    owner = {"endpoint_id": endpoint_id, "team_id": None}
    kept = {"id": old.secret_id, "created_at": old.secret_created_at, **owner}
    ends_at = await _keep_old(tx, sealer, old.secret_sealed, f"{ENDPOINT}:{endpoint_id}", kept, grace_s)
    public_key = None
    if old.signing in ("v1a", "both"):
        await hot(tx, END_V1A, (grace_s, endpoint_id))
        public_key = await _new_v1a(tx, sealer, endpoint_id)
    secret = new_webhook_secret()
    sealed = sealer.seal(secret, purpose=f"{ENDPOINT}:{endpoint_id}")
    await hot(tx, SET_ENDPOINT, (ids.new(), sealed, None, endpoint_id))
    return Rotated(secret=secret, previous_expires_at=ends_at, public_key=public_key)


async def rotate_callback(tx: Tx, sealer: Sealer, team_id: str, *, grace_s: int) -> Rotated | None:
    """A new callback key for a team, by the same rules; None when there is no such team."""
    rows = await hot(tx, LOCK_TEAM, (team_id,))
    if not rows:
        return None
    kept = {"id": ids.new(), "created_at": None, "endpoint_id": None, "team_id": team_id}
    ends_at = await _keep_old(tx, sealer, rows[0].callback_secret_sealed, f"{TEAM}:{team_id}", kept, grace_s)
    secret = new_webhook_secret()
    await hot(tx, SET_TEAM, (sealer.seal(secret, purpose=f"{TEAM}:{team_id}"), team_id))
    return Rotated(secret=secret, previous_expires_at=ends_at)


async def of_endpoint(tx: Tx, endpoint_id: UUID) -> list[Key]:
    """The keys that may sign for an endpoint, the newest secret first; none when it is gone."""
    return [Key(**row._asdict()) for row in await hot(tx, OF_ENDPOINT, {"id": endpoint_id})]


async def revoke(tx: Tx, sealer: Sealer, endpoint_id: UUID, key_id: UUID) -> bool:
    """End a key at once; after the newest of a kind the one it replaced is the newest again. False: there is none.

    Raises BadRequest for the last secret and for the last ed25519 key of an endpoint that signs with it.
    """
    rows = await hot(tx, LOCK_ENDPOINT, (endpoint_id,))
    if not rows:
        return False
    valid = await hot(tx, VALID, (endpoint_id,))
    if key_id == rows[0].secret_id:
        await _promote_secret(tx, sealer, endpoint_id, [row for row in valid if row.kind == "v1"])
        return True
    revoked = next((row for row in valid if row.id == key_id), None)
    if revoked is None:
        return False
    if revoked.kind == "v1a" and revoked.expires_at is None:
        await _promote_v1a(tx, [row for row in valid if row.kind == "v1a" and row.id != key_id], rows[0].signing)
    await hot(tx, REVOKE, (key_id,))
    return True


async def delete_expired(tx: Tx, *, limit: int) -> int:
    """Delete keys that sign no more. Returns how many."""
    return len(await hot(tx, DELETE_EXPIRED, (limit,)))


async def _keep_old(
    tx: Tx, sealer: Sealer, sealed: bytes | None, purpose: str, kept: dict[str, Any], grace_s: int
) -> datetime | None:
    """Let the secret that is replaced sign until the grace ends. One that no key of ours opens could not sign."""
    if not grace_s:
        await hot(tx, END_OLD, kept)
        return None
    if (await hot(tx, COUNT_OLD, kept))[0].old >= MAX_OLD_KEYS:
        raise BadRequest(f"Too many old keys: at most {MAX_OLD_KEYS} sign beside the newest")
    try:
        secret = sealer.open(sealed or b"", purpose=purpose)
    except CannotOpen:
        return None
    anew = sealer.seal(secret, purpose=f"{OLD}:{kept['id']}")
    row = {**kept, "kind": "v1", "sealed": anew, "public_key": None, "grace_s": grace_s}
    ends_at: datetime = (await hot(tx, KEEP, row))[0].expires_at
    return ends_at


async def _new_v1a(tx: Tx, sealer: Sealer, endpoint_id: UUID) -> str:
    id_, private = ids.new(), signing.new_private_key()
    public = signing.public_key(private)
    sealed = sealer.seal(private, purpose=f"{OLD}:{id_}")
    row = {"id": id_, "endpoint_id": endpoint_id, "team_id": None, "kind": "v1a", "sealed": sealed,
           "public_key": public, "created_at": None, "grace_s": None}  # fmt: skip
    await hot(tx, KEEP, row)
    return public


async def _promote_secret(tx: Tx, sealer: Sealer, endpoint_id: UUID, replaced: Sequence[Any]) -> None:
    for row in replaced:
        try:
            secret = sealer.open(row.key_sealed, purpose=f"{OLD}:{row.id}")
        except CannotOpen:
            continue
        sealed = sealer.seal(secret, purpose=f"{ENDPOINT}:{endpoint_id}")
        await hot(tx, REVOKE, (row.id,))
        await hot(tx, SET_ENDPOINT, (row.id, sealed, row.created_at, endpoint_id))
        return
    raise _last()


async def _promote_v1a(tx: Tx, replaced: Sequence[Any], scheme: str) -> None:
    if replaced:
        await hot(tx, KEEP_ON, (replaced[0].id,))
    elif scheme != "v1":
        raise _last()


def _last() -> BadRequest:
    return BadRequest("Cannot revoke the last key")
