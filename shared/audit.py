"""The audit log: who did what with an admin's rights, written in the transaction of the deed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from shared import ids
from shared.db import Tx, hot

RECORD = """
insert into audit_log (id, user_id, action, resource_type, resource_id, details, ip_address)
values (%s, %s, %s, %s, %s, %s::jsonb, %s)
"""


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who uses an admin's rights, and from where. user_id: an admin user's id, or `admin_key`."""

    user_id: str
    ip_address: str | None = None


async def record(
    tx: Tx,
    by: Actor | None,
    action: str,
    resource_type: str,
    resource_id: str | None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write one line. `by` None is a team that acts for itself: no admin's deed, no line. No secret in `details`."""
    if by is not None:
        text = orjson.dumps(details or {}, default=str).decode()
        await hot(tx, RECORD, (ids.new(), by.user_id, action, resource_type, resource_id, text, by.ip_address))
