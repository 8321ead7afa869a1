"""Replays: send events of the log to an endpoint again, all that it missed, and see how that goes."""

from typing import Any

from starlette.requests import Request

from api import replaying
from api.auth import Caller
from api.http import endpoint
from api.lists import Page, next_link
from api.once import Once
from api.replaying import find_replay
from api.replies import Reply
from api.webhook_access import find_endpoint
from api.wire.deliveries import RecoverIn, ReplayIn, ReplayMadeOut, ReplayOut, ReplayPreviewOut, ReplaysOut
from shared import audit, delivery_queues, ids, replay_lists, replays
from shared.clock import iso
from shared.db import CoreTx
from shared.errors import Conflict, Invalid
from shared.replays import Replay
from shared.runtime import Runtime
from shared.snapshot import snapshot
from shared.states import ReplayState
from shared.webhook_endpoints import Endpoint


@endpoint("any:w", answers={200: ReplayPreviewOut, 202: ReplayMadeOut})
async def replay_events(rt: Runtime, caller: Caller, webhook_id: str, body: ReplayIn, once: Once) -> Reply:
    """Send events to this endpoint again, with the ids they have: the chosen ones, or all that match a filter.

    Also events that the endpoint was never sent, as those from before it was registered. With `dry_run` nothing is
    sent: the answer says how many events match. What of them still waits to be sent to it is replaced.
    """
    if body.id_mode != "same":
        raise Invalid.not_supported_yet("body", "id_mode")
    if body.dry_run:
        return await once.store(await _preview(rt, caller, webhook_id, body))
    async with rt.db.transaction() as tx:
        found = await _active(tx, caller, webhook_id)
        wanted = await replaying.wanted_by(tx, found, body)
        made = await replaying.start(tx, found, wanted, body.rate_per_s)
        return await _started(tx, caller, made, once, "replayed_events")


@endpoint("any:w", answers={202: ReplayMadeOut})
async def recover_endpoint(rt: Runtime, caller: Caller, webhook_id: str, body: RecoverIn, once: Once) -> Reply:
    """Send this endpoint all that it subscribes to and was not delivered since then, as a replay."""
    days = rt.settings.delivery_retention_days
    async with rt.db.transaction() as tx:
        found = await _active(tx, caller, webhook_id)
        made = await replaying.recover(tx, found, body.since, days=days, rate_per_s=body.rate_per_s)
        return await _started(tx, caller, made, once, "recovered_webhook")


@endpoint("any", answers=ReplayOut)
async def read_replay(rt: Runtime, caller: Caller, replay_id: str) -> dict[str, Any]:
    """How a replay stands."""
    async with snapshot(rt.db) as tx:
        found = await find_replay(tx, caller, replay_id)
        return _shown(found, await replays.sent(tx, found.id))


@endpoint("any", answers=ReplaysOut)
async def list_replays(rt: Runtime, caller: Caller, request: Request, webhook_id: str, query: Page) -> Reply:
    """The replays of an endpoint, newest first: those asked for, and those by recover and enable."""
    async with snapshot(rt.db) as tx:
        found = await find_endpoint(tx, caller, webhook_id)
        rows = await replay_lists.page(tx, found.id, limit=query.limit, offset=query.offset)
        total = await replay_lists.count(tx, found.id)
    shown = [_listed(row) for row in rows]
    body = {"replays": shown, "total": total, "limit": query.limit, "offset": query.offset}
    return Reply(body=body, headers=next_link(request, query, total))


@endpoint("any:w", answers=ReplayOut)
async def cancel_replay(rt: Runtime, caller: Caller, replay_id: str, once: Once) -> dict[str, Any]:
    """Make no more deliveries for a replay. Those it made are sent like any other."""
    async with rt.db.transaction() as tx:
        found = await find_replay(tx, caller, replay_id)
        if not await replays.cancel(tx, found.id):
            raise Conflict("Replay is not running")
        seen = await find_replay(tx, caller, replay_id)
        await audit.record(tx, caller.admin, "cancelled_replay", "webhook_replay", replay_id)
        return await once.keep(tx, _shown(seen, await replays.sent(tx, found.id)))


async def _preview(rt: Runtime, caller: Caller, webhook_id: str, body: ReplayIn) -> Reply:
    async with snapshot(rt.db) as tx:
        found = await find_endpoint(tx, caller, webhook_id)
        matched = await replaying.preview(tx, found, await replaying.wanted_by(tx, found, body))
    ends = [None if id_ is None else ids.prefixed("evt", id_) for id_ in (matched.first, matched.last)]
    return Reply(body={"matched": matched.count, "first": ends[0], "last": ends[1]})


async def _active(tx: CoreTx, caller: Caller, webhook_id: str) -> Endpoint:
    """The endpoint, when it can be sent something. Raises NotFound, Forbidden, Conflict."""
    found = await find_endpoint(tx, caller, webhook_id)
    if found.status != "active":
        raise Conflict("Webhook is not active. Enable it first")
    await replaying.check_room(tx, found.id)
    # Who asks says that the receiver is back.
    await delivery_queues.close(tx, found.id)
    return found


async def _started(tx: CoreTx, caller: Caller, made: Replay, once: Once, action: str) -> Reply:
    id_ = ids.prefixed("rpl", made.id)
    details = {"webhook_id": ids.prefixed("whe", made.endpoint_id), "matched": made.matched}
    await audit.record(tx, caller.admin, action, "webhook_replay", id_, details)
    body = {"replay_id": id_, "matched": made.matched, "state": made.state}
    return await once.keep(tx, Reply(body=body, status=202))


def _listed(row: Any) -> dict[str, Any]:
    return {
        "replay_id": ids.prefixed("rpl", row.id),
        "webhook_id": ids.prefixed("whe", row.endpoint_id),
        "matched": row.matched,
        "state": row.state,
        "rate_per_s": row.rate_per_s,
        "created_at": iso(row.created_at),
        "finished_at": iso(row.finished_at),
    }


def _shown(found: Replay, sent: replays.Sent) -> dict[str, Any]:
    unmade = max(0, found.matched - found.made) if found.state == ReplayState.RUNNING else 0
    return {
        "replay_id": ids.prefixed("rpl", found.id),
        "webhook_id": ids.prefixed("whe", found.endpoint_id),
        "matched": found.matched,
        "sent": sent.sent,
        "delivered": sent.delivered,
        "failing": sent.failing,
        "waiting": unmade + sent.waiting,
        "discarded": sent.discarded,
        "state": found.state,
        "rate_per_s": found.rate_per_s,
        "created_at": iso(found.created_at),
        "finished_at": iso(found.finished_at),
    }
