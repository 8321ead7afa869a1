"""Keys that clients name in clear or by their hash: found, read by whom they concern, locked for a change."""

import re
from typing import Any

from api.auth import Caller
from api.gateway import key_objects
from shared import budgets, key_secrets, key_views, keys, teams
from shared.db import Tx
from shared.errors import NotFound
from shared.key_views import Filter, KeyView, Named

TOKEN = re.compile(r"[0-9a-f]{64}")


def unknown() -> NotFound:
    """No key that may be changed has this name."""
    return NotFound("Key not found in database", param="key")


def is_token(given: str) -> bool:
    """Whether this is a hash; keys begin with `sk-`."""
    return TOKEN.fullmatch(given) is not None


def hash_of(given: str) -> bytes:
    """The hash of a key that is given in clear or as its hash."""
    return bytes.fromhex(given) if is_token(given) else key_secrets.key_hash(given)


async def find(tx: Tx, given: str) -> Named:
    """The key of this name, also a revoked one. Raises NotFound."""
    found = await key_views.of_secrets(tx, [hash_of(given)])
    if not found:
        raise unknown()
    return found[0]


def may_read(caller: Caller, key: Named) -> bool:
    """Whether the caller is an admin, the key, or a key of its team or of its user in the same organization."""
    if caller.is_admin:
        return True
    own = caller.team
    if key.team_id == own.team_id:
        return True
    is_same_user = own.user_id is not None and key.user_id == own.user_id
    return is_same_user and key.organization_id == own.organization_id


async def lock(tx: Tx, key: Named) -> tuple[bytes, str]:
    """Hash and hint of a key that nobody else changes until `tx` ends. Raises NotFound when it is revoked."""
    locked = None if await teams.lock(tx, key.team_id) is None else await keys.lock(tx, key.team_id, key.id)
    if locked is None:
        raise unknown()
    return locked


async def view(tx: Tx, key: Named) -> tuple[KeyView, budgets.Budget | None]:
    """The key with its budget. Raises NotFound."""
    found = await key_views.get(tx, key.team_id, key.id)
    if found is None:
        raise unknown()
    return found, (await budgets.of_keys(tx, [key.id])).get(key.id)


async def info(tx: Tx, key: Named) -> dict[str, Any]:
    """All there is to say of the key. Raises NotFound."""
    return key_objects.info(*await view(tx, key))


async def rows(tx: Tx, wanted: Filter, *, limit: int, offset: int) -> list[dict[str, Any]]:
    """A page of keys, newest first."""
    found = await key_views.page(tx, wanted, limit=limit, offset=offset) if limit else []
    held = await budgets.of_keys(tx, [key.id for key in found])
    return [key_objects.row(key, held.get(key.id)) for key in found]
