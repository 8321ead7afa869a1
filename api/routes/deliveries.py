"""Deliveries: what was sent where, what came back, and sending or dropping one by hand."""

from typing import Any
from uuid import UUID

from starlette.requests import Request

from api.auth import Caller
from api.delivery_objects import attempt_object, delivery_object, find_delivery, seen_types, states
from api.fields import event_id_at, job_id_at
from api.http import endpoint
from api.lists import next_link
from api.once import Once
from api.replies import Reply
from api.team_objects import find_team
from api.webhook_access import find_endpoint
from api.wire.deliveries import AllDeliveriesQuery, DeliveriesOut, DeliveriesQuery, DeliveryDetailOut, DeliveryOut
from shared import audit, delivery_lists, delivery_queues, event_types
from shared.delivery_lists import Filter
from shared.errors import Conflict, Forbidden, Invalid
from shared.messages import Deliver
from shared.runtime import Runtime
from shared.snapshot import snapshot
from shared.wire.findings import MISSING

IN_FLIGHT = "Delivery is being sent right now. Try again when this attempt has ended"


@endpoint("any", answers=DeliveriesOut)
async def list_deliveries(rt: Runtime, caller: Caller, request: Request, query: AllDeliveriesQuery) -> Reply:
    """The deliveries of the key's team, or of the team that an admin names: of endpoints and of callbacks."""
    team_id = caller.team_id if query.team_id is None else query.team_id
    if team_id is None:
        raise Invalid([{"loc": ["query", "team_id"], **MISSING}])
    if not caller.may_see(team_id):
        raise Forbidden(f"API key does not belong to team '{team_id}'")
    if caller.is_admin:
        async with rt.db.statement() as tx:
            await find_team(tx, team_id)
    return await _page(rt, request, query, team_id)


@endpoint("any", answers=DeliveriesOut)
async def list_endpoint_deliveries(
    rt: Runtime, caller: Caller, request: Request, webhook_id: str, query: DeliveriesQuery
) -> Reply:
    """The deliveries to one endpoint."""
    async with rt.db.statement() as tx:
        found = await find_endpoint(tx, caller, webhook_id)
    return await _page(rt, request, query, found.team_id, found.id)


@endpoint("any", answers=DeliveryDetailOut)
async def read_delivery(rt: Runtime, caller: Caller, delivery_id: str) -> dict[str, Any]:
    """One delivery with all its attempts, the request as it was sent and the beginning of each answer."""
    async with snapshot(rt.db) as tx:
        found = await find_delivery(tx, caller, delivery_id)
        attempts = await delivery_lists.attempts(tx, found.id)
    return {
        **delivery_object(found),
        "attempts": [attempt_object(attempt) for attempt in attempts],
        "request_headers": attempts[-1].request_headers if attempts else None,
        "request_body": found.sent_body,
    }


@endpoint("any:w", answers={202: DeliveryOut})
async def retry_delivery(rt: Runtime, caller: Caller, delivery_id: str, once: Once) -> Reply:
    """Send a delivery now, whatever became of it before, and begin its schedule again. Its event keeps its id."""
    async with rt.db.transaction() as tx:
        found = await find_delivery(tx, caller, delivery_id)
        # Who asks says that the receiver is back. A queue is locked before its deliveries.
        await delivery_queues.close(tx, found.queue_id)
        queue_id = await delivery_lists.retry(tx, found.id)
        if queue_id is None:
            raise Conflict(_why_not_sent(await find_delivery(tx, caller, delivery_id)))
        shown = delivery_object(await find_delivery(tx, caller, delivery_id))
        await audit.record(tx, caller.admin, "retried_delivery", "webhook_delivery", shown["delivery_id"])
        reply = await once.keep(tx, Reply(body=shown, status=202))
    rt.ring(Deliver(ids=(queue_id,)))
    return reply


@endpoint("any:w", answers=DeliveryOut)
async def cancel_delivery(rt: Runtime, caller: Caller, delivery_id: str, once: Once) -> dict[str, Any]:
    """Discard a delivery that waits for its first or next attempt. Its event stays in the log."""
    async with rt.db.transaction() as tx:
        found = await find_delivery(tx, caller, delivery_id)
        if not await delivery_lists.cancel(tx, found.id):
            seen = await find_delivery(tx, caller, delivery_id)
            raise Conflict(IN_FLIGHT if seen.is_in_flight else f"Delivery has ended: it is {seen.state}")
        shown = delivery_object(await find_delivery(tx, caller, delivery_id))
        await audit.record(tx, caller.admin, "cancelled_delivery", "webhook_delivery", shown["delivery_id"])
        return await once.keep(tx, shown)


def _why_not_sent(row: Any) -> str:
    """What kept `delivery_lists.retry` from sending this row."""
    if row.is_of_deleted:
        return "The delivery's webhook was deleted"
    if row.trigger == "test":
        return "A test is not sent again. Send a new one"
    if row.sent_body is None:
        return "The delivery's event is no longer kept"
    if not row.is_open:
        return "The delivery's webhook is not active. Enable it first"
    return IN_FLIGHT


async def _page(
    rt: Runtime, request: Request, query: DeliveriesQuery, team_id: str, endpoint_id: UUID | None = None
) -> Reply:
    wanted = _wanted(request, query, team_id, endpoint_id)
    async with snapshot(rt.db) as tx:
        rows = await delivery_lists.page(tx, wanted, limit=query.limit, offset=query.offset)
        total = await delivery_lists.count(tx, wanted, limit=query.limit, offset=query.offset, shown=len(rows))
    shown = [delivery_object(row) for row in rows]
    body = {"deliveries": shown, "total": total, "limit": query.limit, "offset": query.offset}
    return Reply(body=body, headers=next_link(request, query, total))


def _wanted(request: Request, query: DeliveriesQuery, team_id: str, endpoint_id: UUID | None) -> Filter:
    """The filters of a query. Raises BadRequest, Invalid."""
    types = None if query.event_type is None else seen_types(query.event_type.split(","))
    words = [word for given in request.query_params.getlist("status") for word in given.split(",")]
    return Filter(
        team_id=team_id,
        endpoint_id=endpoint_id,
        states=states(words) if words else None,
        types=types,
        event_id=None if query.event_id is None else event_id_at(["query", "event_id"], query.event_id),
        job_id=job_id_at("query", query.job_id),
        since=query.since_at,
        until=query.until_at,
        tests=_tests(query),
    )


def _tests(query: DeliveriesQuery) -> bool | None:
    """Examples are nobody's news, least of all among what is to be repaired: they are shown to who asks for them."""
    if query.trigger is not None:
        return True
    named = query.event_id is not None or event_types.TEST in map(str.strip, (query.event_type or "").split(","))
    return None if named else False
