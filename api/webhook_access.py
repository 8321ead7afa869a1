"""Finding the webhook endpoint a path names, for a caller who may see it."""

from api.auth import Caller
from shared import ids, webhook_endpoints
from shared.db import Tx
from shared.errors import Forbidden, NotFound
from shared.webhook_endpoints import Endpoint


async def find_endpoint(tx: Tx, caller: Caller, webhook_id: str) -> Endpoint:
    """The endpoint, when the caller may see it. Raises NotFound, Forbidden."""
    id_ = ids.parse_prefixed("whe", webhook_id)
    found = None if id_ is None else await webhook_endpoints.get(tx, id_)
    if found is None:
        raise NotFound("Webhook not found")
    if not caller.may_see(found.team_id):
        raise Forbidden("Webhook does not belong to your team")
    return found
