"""Changing an endpoint in the caller's transaction: its columns, its status, and what follows from a new one.

disabled ◄── by hand, gone, failing, refused ── active ◄── a test was taken ── pending_verification
    └───────────────── enabled ───────────────────►──────── enabled, or a new URL, with `verify` ──►┘
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func

from api import webhook_samples
from shared import (
    clock,
    deliveries,
    delivery_queues,
    outbox,
    sample_deliveries,
    webhook_endpoints,
    webhook_facts,
    webhook_keys,
    webhook_stats,
)
from shared.db import CoreTx, Tx
from shared.events import Event
from shared.messages import Deliver
from shared.runtime import Runtime
from shared.webhook_endpoints import Endpoint

DISABLED = "the endpoint is disabled"
DELETED = "the endpoint was deleted"
NEW_URL = "the URL was changed"
DISCARD_STEP = 500
MOST_STEPS = 40
"""The timer and the senders discard what is left after as many."""


@dataclass(frozen=True, kw_only=True)
class Then:
    """What is left to do after the commit. queues: to be rung. sample: an example waits to be sent."""

    queues: Collection[UUID] = ()
    sample: bool = False
    discard: bool = False


async def before(tx: Tx, id_: UUID, *, new_url: bool) -> None:
    """What a new URL or an enabling changes of deliveries and queues; these are locked before their endpoint."""
    if new_url:
        await sample_deliveries.discard(tx, id_, reason=NEW_URL)
    await delivery_queues.close(tx, id_)


def next_status(old: Endpoint, *, active: bool | None, verify: bool, new_url: bool) -> str:
    """The status after a change. active: what was asked for, None when nothing was."""
    if active is False or (active is None and old.status == "disabled"):
        return "disabled"
    proven = old.status == "active" and old.verify and not new_url
    return "pending_verification" if verify and not proven else "active"


async def apply(
    rt: Runtime,
    tx: CoreTx,
    old: Endpoint,
    values: Mapping[str, Any],
    *,
    active: bool | None = None,
    anew: bool = False,
) -> Then:
    """Set the columns and the status. `old` was read after its row was locked.

    anew: take up the status even when it is the one it has: its run of failures begins anew, it is sent a test again.
    """
    new_url = values.get("url", old.url) != old.url
    status = next_status(old, active=active, verify=values.get("verify", old.verify), new_url=new_url)
    enters = anew or status != old.status
    changed = dict(values)
    if set(values.get("events", old.events)) != set(old.events):
        changed["active_since"] = func.app_now()
    if new_url:
        changed |= webhook_endpoints.NEW_RUN
    if enters:
        changed |= webhook_endpoints.as_status(status)
    await webhook_endpoints.change(tx, old.id, changed)
    if changed.get("signing", "v1") != "v1":
        await webhook_keys.create_v1a(tx, rt.sealer, old.id)
    sample = status == "pending_verification" and (enters or new_url) and await _test(tx, old)
    if status == "disabled" and old.status != "disabled":
        return Then(discard=True, queues=await outbox.record(tx, [await _disabled(tx, old)]))
    return Then(sample=sample, queues=[old.id] if status == "active" else [])


async def follow(rt: Runtime, id_: UUID, then: Then) -> None:
    """After the commit: ring, and discard what is not to be sent any more."""
    rt.ring(Deliver(ids=tuple(then.queues)))
    if then.sample:
        webhook_samples.ring(rt, id_)
    if then.discard:
        await discard(rt, id_, DISABLED)


async def discard(rt: Runtime, id_: UUID, reason: str) -> None:
    """Give up the deliveries that wait for this endpoint, in small steps."""
    for _ in range(MOST_STEPS):
        async with rt.db.hot_transaction() as tx:
            given_up = await deliveries.discard(tx, id_, reason=reason, limit=DISCARD_STEP)
        if given_up < DISCARD_STEP:
            return


async def _test(tx: Tx, endpoint: Endpoint) -> bool:
    """Send the test that verifies, unless the endpoint had too many just now: then its team asks for one."""
    if await sample_deliveries.wait_s(tx, endpoint.id) is not None:
        return False
    await webhook_samples.create(tx, endpoint.id, endpoint.team_id)
    return True


async def _disabled(tx: Tx, endpoint: Endpoint) -> Event:
    """The fact, for the team's log and its other endpoints."""
    run = webhook_facts.Run(
        id=endpoint.id,
        team_id=endpoint.team_id,
        url=endpoint.url,
        failing_since=endpoint.failing_since,
        failed_attempts=endpoint.failed_attempts,
        last_status=endpoint.last_status,
        undelivered=await webhook_stats.undelivered(tx, endpoint.id),
    )
    now = clock.now()
    return webhook_facts.endpoint_disabled(run, reason="manual", disabled_at=now, at=now)
