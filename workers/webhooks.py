"""Deliver webhooks: claim, send with no transaction open, record what came of it and when to try again."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from uuid import UUID

import orjson

from shared import clock, deliveries, ids, log, signing
from shared.credentials import CannotOpen
from shared.deliveries import Delivery, Result
from shared.messages import Deliver
from shared.runtime import Runtime
from shared.states import DeliveryState
from workers.webhook_http import BODY_TIMEOUT_S, Answer, WebhookSender

logger = log.get(__name__)

LEASE_MARGIN_S = 5.0
JITTER = 0.2
THROTTLED = (429, 502, 503, 504)
THROTTLED_WAIT_S = 60.0
SELF_RING_S = 30.0
AFTER_DUE_S = 0.05
"""A bell rung early finds nothing due; Postgres's clock and ours differ by less than this over SELF_RING_S."""


@dataclass(frozen=True, kw_only=True)
class Next:
    """What follows an attempt: the delivery's state, and the wait before the next try where there is one."""

    state: DeliveryState
    retry_in_s: float | None = None
    gone: bool = False


async def claim(rt: Runtime, delivery_ids: Sequence[UUID], worker: str) -> list[Delivery]:
    """Lease those of these deliveries that are due; `run` each one returned."""
    lease_s = max(rt.settings.lease_s, rt.settings.webhook_timeout_s + BODY_TIMEOUT_S + LEASE_MARGIN_S)
    async with rt.db.hot_statement() as tx:
        return await deliveries.claim(tx, delivery_ids, lease_s=lease_s, worker=worker)


async def run(rt: Runtime, sender: WebhookSender, delivery: Delivery) -> None:
    """Send one claimed delivery and record it. Dying in between sends it again, with the same webhook-id."""
    started_at = clock.now()
    answer = await _send(rt, sender, delivery)
    next_ = after(answer, tries=delivery.attempt_count + 1, schedule_s=rt.settings.webhook_retry_schedule_s)
    self_rung = next_.retry_in_s is not None and next_.retry_in_s <= SELF_RING_S
    result = Result(
        id=delivery.id,
        attempt=delivery.attempt,
        state=next_.state,
        started_at=started_at,
        duration_ms=answer.duration_ms,
        status=answer.status,
        error_class=answer.error_class,
        error=answer.error,
        response_head=answer.head,
        retry_in_s=next_.retry_in_s,
        self_rung=self_rung,
        gone=next_.gone,
    )
    async with rt.db.hot_statement() as tx:
        recorded = await deliveries.record(tx, result)
    if recorded.disabled:
        logger.warning("endpoint_disabled", endpoint_id=str(delivery.endpoint_id), team_id=delivery.team_id)
    if recorded.ours and self_rung and next_.retry_in_s is not None:
        wait_s = next_.retry_in_s + AFTER_DUE_S
        asyncio.get_running_loop().call_later(wait_s, rt.ring, Deliver(ids=(delivery.id,)))


async def _send(rt: Runtime, sender: WebhookSender, delivery: Delivery) -> Answer:
    body = delivery.body.encode()
    try:
        headers = _headers(rt, delivery, body)
    except (CannotOpen, ValueError) as error:
        logger.warning("secret_unusable", delivery_id=str(delivery.id), error=type(error).__name__)
        return Answer(duration_ms=0, error_class="secret", error="our copy of the secret cannot be used")
    return await sender.post(delivery.url, headers, body, timeout_s=rt.settings.webhook_timeout_s)


def _headers(rt: Runtime, delivery: Delivery, body: bytes) -> dict[str, str]:
    """The endpoint's own headers first: ours win."""
    headers: dict[str, str] = {}
    if delivery.headers_sealed is not None:
        purpose = f"webhook_endpoints.headers:{delivery.endpoint_id}"
        own: dict[str, str] = orjson.loads(rt.sealer.open(delivery.headers_sealed, purpose=purpose))
        headers |= {name.lower(): value for name, value in own.items()}
    if delivery.auth_header_sealed is not None:
        purpose = f"webhook_endpoints.auth_header:{delivery.endpoint_id}"
        headers["authorization"] = rt.sealer.open(delivery.auth_header_sealed, purpose=purpose)
    secret = rt.sealer.open(delivery.secret_sealed, purpose=delivery.secret_purpose)
    headers |= signing.headers(
        [secret], message_id=ids.prefixed("evt", delivery.event_id), timestamp=int(time.time()), body=body
    )
    headers["waybill-delivery-id"] = ids.prefixed("dlv", delivery.id)
    headers["waybill-attempt"] = str(delivery.attempt)
    return headers


def after(answer: Answer, *, tries: int, schedule_s: Sequence[float]) -> Next:
    """What follows this answer to the given try, counted from 1; `schedule_s` are the delays between tries."""
    if answer.error_class is None:
        return Next(state=DeliveryState.DELIVERED)
    if answer.abort:
        return Next(state=DeliveryState.ABORTED)
    if answer.status == 410:
        return Next(state=DeliveryState.DISCARDED, gone=True)
    if tries > len(schedule_s):
        return Next(state=DeliveryState.EXHAUSTED)
    wait_s = schedule_s[tries - 1] * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
    if answer.status in THROTTLED or answer.error_class == "timeout":
        planned_s = max(wait_s, THROTTLED_WAIT_S)
        asked_s = _seconds(answer.retry_after) if answer.status in THROTTLED else None
        wait_s = planned_s if asked_s is None else min(max(asked_s, planned_s), 2 * planned_s)
    return Next(state=DeliveryState.FAILING, retry_in_s=wait_s)


def _seconds(retry_after: str | None) -> float | None:
    """`Retry-After` as seconds from now: a number or an HTTP date; None when it is neither."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        at = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
