"""The audit log, for admins who may write."""

from starlette.requests import Request

from api.admin_objects import audit_object
from api.http import endpoint
from api.lists import next_link
from api.replies import Reply
from api.wire.admins import AuditLine, AuditQuery
from shared import audit
from shared.runtime import Runtime


@endpoint("admin:w", answers=list[AuditLine])
async def list_audit_logs(rt: Runtime, request: Request, query: AuditQuery) -> Reply:
    """What was done with admins' rights, newest first."""
    wanted = audit.Filter(
        action=query.action,
        user_id=query.user_id,
        resource_type=query.resource_type,
        since=query.since,
        before=query.before,
    )
    async with rt.db.statement() as tx:
        total = await audit.count(tx, wanted)
        entries = await audit.page(tx, wanted, limit=query.limit, offset=query.offset)
    headers = {"X-Total-Count": str(total), **next_link(request, query, total)}
    return Reply(body=[audit_object(entry) for entry in entries], headers=headers)
