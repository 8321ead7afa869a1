"""Webhook endpoints: registered, listed, read, changed, deleted, enabled and disabled by their team or an admin."""

from typing import Any
from uuid import UUID

from starlette.requests import Request

from api import accounts, webhook_changes, webhook_columns, webhook_samples
from api.auth import Caller
from api.http import endpoint
from api.lists import next_link
from api.once import Once
from api.replaying import check_room, recover
from api.replies import Reply
from api.team_objects import find_team
from api.webhook_access import find_endpoint
from api.webhook_objects import show_webhook, show_webhooks
from api.wire.webhook_bodies import ChangeWebhook, EnableWebhook, Register, Terms, WebhooksQuery
from api.wire.webhooks import DeletedWebhookOut, EnabledWebhookOut, WebhookCreatedOut, WebhookOut, WebhooksOut
from shared import audit, ids, names, sample_deliveries, signing, webhook_endpoints, webhook_keys
from shared.db import CoreTx
from shared.errors import BadRequest, Forbidden, Invalid, NotFound
from shared.runtime import Runtime
from shared.snapshot import snapshot
from shared.webhook_endpoints import Endpoint

MAX_ENDPOINTS = 50
STATUSES = ("active", "pending_verification", "disabled")
SECRET = ("auth_header", "headers")


@endpoint("any:w", answers=WebhookCreatedOut)
async def register_webhook(rt: Runtime, caller: Caller, body: Register, once: Once) -> dict[str, Any]:
    """Register an endpoint; the only answer that shows its secret. With `verify` it is sent a test at once."""
    if not caller.may_see(body.team_id):
        raise Forbidden(f"API key does not belong to team '{body.team_id}'")
    webhook_columns.check(body)
    await webhook_columns.check_url(rt, body.webhook_url)
    id_, secret = ids.new(), signing.new_webhook_secret()
    async with rt.db.transaction() as tx:
        status = await _register(rt, tx, id_, body, secret)
        await audit.record(tx, caller.admin, "created_webhook", "webhook", ids.prefixed("whe", id_), _told(body))
        answer = await once.keep(tx, {**await show_webhook(rt, tx, id_), "secret": secret})
    if status == "pending_verification":
        webhook_samples.ring(rt, id_)
    return answer


@endpoint("any", answers=WebhooksOut)
async def list_webhooks(rt: Runtime, caller: Caller, request: Request, query: WebhooksQuery) -> Reply:
    """A team's endpoints, newest first; an admin names the team."""
    team_id = accounts.team_asked(caller, query.team_id)
    if not caller.may_see(team_id):
        raise Forbidden(f"API key does not belong to team '{team_id}'")
    status = None if query.status is None else query.status.lower()
    if status is not None and status not in STATUSES:
        raise BadRequest(f"Invalid status: {query.status}. Must be one of: {', '.join(STATUSES)}")
    async with snapshot(rt.db) as tx:
        await find_team(tx, team_id)
        found = await webhook_endpoints.page(tx, team_id, status, limit=query.limit, offset=query.offset)
        total = await webhook_endpoints.count(tx, team_id, status)
        shown = await show_webhooks(rt, tx, found)
    body = {"webhooks": shown, "total": total, "limit": query.limit, "offset": query.offset}
    return Reply(body=body, headers=next_link(request, query, total))


@endpoint("any", answers=WebhookOut)
async def get_webhook(rt: Runtime, caller: Caller, webhook_id: str) -> dict[str, Any]:
    """The endpoint, without its secrets."""
    async with rt.db.statement() as tx:
        found = await find_endpoint(tx, caller, webhook_id)
        return (await show_webhooks(rt, tx, [found]))[0]


@endpoint("any:w", answers=WebhookOut)
async def change_webhook(rt: Runtime, caller: Caller, webhook_id: str, body: ChangeWebhook) -> dict[str, Any]:
    """Set what was sent. A new URL is checked as at registration, and verified again where `verify` is set."""
    webhook_columns.check(body)
    sent = body.model_fields_set
    async with rt.db.statement() as tx:
        known = await find_endpoint(tx, caller, webhook_id)
    if body.team_id not in (None, known.team_id):
        raise Invalid.at(["body", "team_id"], "cannot be changed", "value_error.const")
    if "webhook_url" in sent:
        await webhook_columns.check_url(rt, body.webhook_url)
    async with rt.db.transaction() as tx:
        if "webhook_url" in sent and body.webhook_url != known.url:
            await webhook_changes.before(tx, known.id, new_url=True)
        old = await _locked(tx, known)
        url = {"url": body.webhook_url} if "webhook_url" in sent else {}
        values = {**webhook_columns.columns(rt, old.id, body, sent), **url}
        active = body.is_active if "is_active" in sent else None
        then = await webhook_changes.apply(rt, tx, old, values, active=active)
        await audit.record(tx, caller.admin, "updated_webhook", "webhook", webhook_id, _told(body))
        answer = await show_webhook(rt, tx, old.id)
    await webhook_changes.follow(rt, old.id, then)
    return answer


@endpoint("any:w", answers=DeletedWebhookOut)
async def delete_webhook(rt: Runtime, caller: Caller, webhook_id: str) -> dict[str, Any]:
    """Delete the endpoint: what waits for it is discarded, what it was sent stays in the log of deliveries."""
    async with rt.db.transaction() as tx:
        known = await find_endpoint(tx, caller, webhook_id)
        await sample_deliveries.discard(tx, known.id, reason=webhook_changes.DELETED)
        old = await _locked(tx, known)
        await webhook_endpoints.delete(tx, old.id)
        await audit.record(tx, caller.admin, "deleted_webhook", "webhook", webhook_id)
    await webhook_changes.discard(rt, old.id, webhook_changes.DELETED)
    return {"webhook_id": webhook_id, "deleted": True, "message": "Webhook deleted successfully"}


@endpoint("any:w", answers=EnabledWebhookOut)
async def enable_webhook(
    rt: Runtime, caller: Caller, webhook_id: str, body: EnableWebhook, once: Once
) -> dict[str, Any]:
    """Enable the endpoint, its circuit closed and its run of failures over. With `verify` it is sent a test first.

    `recover_since` sends again what was not delivered since then: `replay_id` says how that goes.
    """
    replay_id = None
    async with rt.db.transaction() as tx:
        known = await find_endpoint(tx, caller, webhook_id)
        await webhook_changes.before(tx, known.id, new_url=False)
        old = await _locked(tx, known)
        then = await webhook_changes.apply(rt, tx, old, {}, active=True, anew=True)
        if body.recover_since is not None:
            await check_room(tx, old.id)
            started = await recover(tx, old, body.recover_since, days=rt.settings.delivery_retention_days)
            replay_id = ids.prefixed("rpl", started.id)
        details = body.model_dump(mode="json", exclude_unset=True)
        await audit.record(tx, caller.admin, "enabled_webhook", "webhook", webhook_id, details)
        answer = await once.keep(tx, {**await show_webhook(rt, tx, old.id), "replay_id": replay_id})
    await webhook_changes.follow(rt, old.id, then)
    return answer


@endpoint("any:w", answers=WebhookOut)
async def disable_webhook(rt: Runtime, caller: Caller, webhook_id: str, once: Once) -> dict[str, Any]:
    """Disable the endpoint: it gets nothing new, and what waits for it is discarded."""
    async with rt.db.transaction() as tx:
        old = await _locked(tx, await find_endpoint(tx, caller, webhook_id))
        then = await webhook_changes.apply(rt, tx, old, {}, active=False, anew=True)
        await audit.record(tx, caller.admin, "disabled_webhook", "webhook", webhook_id)
        answer = await once.keep(tx, await show_webhook(rt, tx, old.id))
    await webhook_changes.follow(rt, old.id, then)
    return answer


async def _register(rt: Runtime, tx: CoreTx, id_: UUID, body: Register, secret: str) -> str:
    """Store it, and the test that verifies it where one is asked for; its status. Raises NotFound, BadRequest."""
    team_id = body.team_id
    if not names.is_name(team_id) or not await webhook_endpoints.lock_team(tx, team_id):
        raise NotFound(f"Team '{team_id}' not found")
    if await webhook_endpoints.count(tx, team_id) >= MAX_ENDPOINTS:
        raise BadRequest("Too many webhooks")
    values = webhook_columns.columns(rt, id_, body, Terms.model_fields)
    sealed = rt.sealer.seal(secret, purpose=f"webhook_endpoints.secret:{id_}")
    status = await webhook_endpoints.create(
        tx, id_, team_id, url=body.webhook_url, active=body.is_active, secret_sealed=sealed, **values
    )
    if body.signing != "v1":
        await webhook_keys.create_v1a(tx, rt.sealer, id_)
    if status == "pending_verification":
        await webhook_samples.create(tx, id_, team_id)
    return status


async def _locked(tx: CoreTx, known: Endpoint) -> Endpoint:
    """The endpoint as it is now, and nobody else's to change until `tx` ends. Raises NotFound."""
    found = await webhook_endpoints.get(tx, known.id) if await webhook_endpoints.lock(tx, known.id) else None
    if found is None:
        raise NotFound("Webhook not found")
    return found


def _told(body: Terms) -> dict[str, Any]:
    """What the audit log tells of a body: of what is secret only that it was set."""
    sent = body.model_dump(mode="json", exclude_unset=True)
    return {name: "set" if name in SECRET and value is not None else value for name, value in sent.items()}
