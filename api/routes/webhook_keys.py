"""The keys of webhooks: rotated with a grace, listed, revoked, and fetched where they are public."""

from typing import Any

from api.auth import Caller
from api.http import endpoint
from api.once import Once
from api.webhook_access import find_endpoint
from api.wire.webhook_keys import (
    JwksOut,
    RevokedSecretOut,
    RotateCallbackSecret,
    RotatedCallbackSecretOut,
    RotatedSecretOut,
    RotateSecret,
    WebhookKeysOut,
)
from shared import audit, ids, signing, webhook_keys
from shared.clock import iso
from shared.errors import Forbidden, Invalid, NotFound
from shared.runtime import Runtime
from shared.webhook_keys import Key

KEY = "whk"
UNKNOWN = "Webhook not found"
UNKNOWN_KEY = "Key not found"


@endpoint("any:w", answers=RotatedSecretOut)
async def rotate_secret(rt: Runtime, caller: Caller, webhook_id: str, body: RotateSecret, once: Once) -> dict[str, Any]:
    """New keys for an endpoint of every kind it signs with; the only answer that shows the secret.

    The replaced keys sign beside them until the grace ends: a receiver that knows either accepts.
    """
    async with rt.db.transaction() as tx:
        found = await find_endpoint(tx, caller, webhook_id)
        rotated = await webhook_keys.rotate(tx, rt.sealer, found.id, grace_s=body.grace_s)
        if rotated is None:
            raise NotFound(UNKNOWN)
        await audit.record(tx, caller.admin, "rotated_secret", "webhook", webhook_id, {"grace_s": body.grace_s})
        answer = {
            "webhook_id": webhook_id,
            "secret": rotated.secret,
            "previous_expires_at": iso(rotated.previous_expires_at),
            "public_key": rotated.public_key,
        }
        return await once.keep(tx, answer)


@endpoint("any", answers=WebhookKeysOut)
async def list_secrets(rt: Runtime, caller: Caller, webhook_id: str) -> dict[str, Any]:
    """The keys that may sign for an endpoint, without their values."""
    async with rt.db.statement() as tx:
        found = await find_endpoint(tx, caller, webhook_id)
        return {"secrets": [_shown(key) for key in await webhook_keys.of_endpoint(tx, found.id)]}


@endpoint("any:w", answers=RevokedSecretOut)
async def revoke_secret(rt: Runtime, caller: Caller, webhook_id: str, secret_id: str) -> dict[str, Any]:
    """End a key now. After the newest, the key it replaced is the newest again; the last one stays."""
    id_ = ids.parse_prefixed(KEY, secret_id)
    async with rt.db.transaction() as tx:
        found = await find_endpoint(tx, caller, webhook_id)
        if id_ is None or not await webhook_keys.revoke(tx, rt.sealer, found.id, id_):
            raise NotFound(UNKNOWN_KEY)
        await audit.record(tx, caller.admin, "revoked_secret", "webhook", webhook_id, {"key_id": secret_id})
    return {"webhook_id": webhook_id, "key_id": secret_id, "message": "Key revoked successfully"}


@endpoint("none", answers=JwksOut)
async def jwks(rt: Runtime, webhook_id: str) -> dict[str, Any]:
    """The public keys that v1a signatures of an endpoint are checked with; none when it signs with a secret only."""
    id_ = ids.parse_prefixed("whe", webhook_id)
    async with rt.db.hot_statement() as tx:
        found = [] if id_ is None else await webhook_keys.of_endpoint(tx, id_)
    if not found:
        raise NotFound(UNKNOWN)
    public = [(key.public_key, ids.prefixed(KEY, key.id)) for key in found if key.public_key is not None]
    return {"keys": [signing.jwk(key, kid=kid) for key, kid in public]}


@endpoint("any:w", answers=RotatedCallbackSecretOut)
async def rotate_callback_secret(rt: Runtime, caller: Caller, body: RotateCallbackSecret, once: Once) -> dict[str, Any]:
    """A new key for a team's callbacks that have none of their own; the only answer that shows it."""
    team_id = body.team_id or caller.team_id
    if team_id is None:
        raise Invalid.at(["body", "team_id"], "field required", "value_error.missing")
    if not caller.may_see(team_id):
        raise Forbidden(f"API key does not belong to team '{team_id}'")
    async with rt.db.transaction() as tx:
        rotated = await webhook_keys.rotate_callback(tx, rt.sealer, team_id, grace_s=body.grace_s)
        if rotated is None:
            raise NotFound(f"Team '{team_id}' not found")
        await audit.record(tx, caller.admin, "rotated_callback_secret", "team", team_id, {"grace_s": body.grace_s})
        ends_at = iso(rotated.previous_expires_at)
        answer = {"team_id": team_id, "secret": rotated.secret, "previous_expires_at": ends_at}
        return await once.keep(tx, answer)


def _shown(key: Key) -> dict[str, Any]:
    return {
        "key_id": ids.prefixed(KEY, key.id),
        "kind": key.kind,
        "public_key": key.public_key,
        "created_at": iso(key.created_at),
        "expires_at": iso(key.expires_at),
    }
