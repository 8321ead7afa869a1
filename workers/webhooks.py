"""Deliver webhooks: sign, send with no transaction open, record what came of it and when to try again."""

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import orjson

from shared import clock, egress, ids, log, signing
from shared.deliveries import Delivery, Result
from shared.runtime import Runtime
from shared.sealer import CannotOpen
from shared.states import DeliveryState
from workers.delivery_records import EndedAttempt, Records
from workers.opened import Opened
from workers.webhook_http import Response, WebhookSender, all_headers

logger = log.get(__name__)

JITTER = 0.2
THROTTLED = (429, 502, 503, 504)
THROTTLED_WAIT_S = 60.0
HIDDEN = "…"
TEST = "test"
OURS = frozenset({"webhook-id", "webhook-timestamp", "webhook-signature"})
"""Of the headers made here those that are shown in the log as they were sent; besides `waybill-*`."""


@dataclass(frozen=True, kw_only=True)
class Next:
    """What follows an attempt: the delivery's state, and the wait before the next try where there is one."""

    state: DeliveryState
    retry_in_s: float | None = None
    gone: bool = False


@dataclass(frozen=True, kw_only=True)
class Deliverer:
    """What sending needs besides a delivery: one per process."""

    rt: Runtime
    sender: WebhookSender
    records: Records
    opened: Opened

    @classmethod
    def of(cls, rt: Runtime, sender: WebhookSender) -> "Deliverer":
        """A deliverer with records and opened secrets of its own."""
        return cls(rt=rt, sender=sender, records=Records(rt), opened=Opened(rt.sealer))


async def deliver(by: Deliverer, delivery: Delivery) -> Response:
    """Send one claimed delivery and record it. Dying in between sends it again, with the same webhook-id."""
    started_at = clock.now()
    headers: Mapping[str, str] = {}
    if delivery.body is None:
        answer = Response(duration_ms=0, error_class="secret", error="the event is no longer kept")
        next_ = Next(state=DeliveryState.DISCARDED)
    else:
        headers, answer = await _send(by, delivery, delivery.body.encode())
        next_ = _next(by.rt, delivery, answer)
    result = Result(
        id=delivery.id,
        attempt=delivery.attempt,
        trigger=delivery.trigger,
        state=next_.state,
        started_at=started_at,
        duration_ms=answer.duration_ms,
        dns_ms=answer.dns_ms,
        connect_ms=answer.connect_ms,
        first_byte_ms=answer.first_byte_ms,
        status=answer.status,
        error_class=answer.error_class,
        error=answer.error,
        request_headers=_shown(delivery, headers),
        response_headers=answer.response_headers,
        response_head=answer.head,
        redirect_target=answer.redirect_target,
        retry_in_s=next_.retry_in_s,
    )
    await by.records.add(EndedAttempt(delivery=delivery, result=result, gone=next_.gone))
    return answer


def _next(rt: Runtime, delivery: Delivery, answer: Response) -> Next:
    tries = delivery.attempt_count - delivery.schedule_from + 1
    schedule_s = rt.settings.webhook_retry_schedule_s if delivery.schedule_s is None else delivery.schedule_s
    next_ = after(answer, tries=tries, schedule_s=() if delivery.trigger == TEST else schedule_s)
    if delivery.trigger == TEST and next_.gone:
        return Next(state=DeliveryState.EXHAUSTED)
    return next_


async def _send(by: Deliverer, delivery: Delivery, body: bytes) -> tuple[Mapping[str, str], Response]:
    try:
        headers = _headers(by.opened, delivery, body)
    except (CannotOpen, ValueError) as error:
        logger.warning("secret_unusable", delivery_id=ids.prefixed("dlv", delivery.id), error=type(error).__name__)
        return {}, Response(duration_ms=0, error_class="secret", error="our copy of the secret cannot be used")
    timeout_s = by.rt.settings.webhook_timeout_s if delivery.timeout_s is None else delivery.timeout_s
    return headers, await by.sender.post(delivery.url, headers, body, timeout_s=timeout_s)


def _headers(opened: Opened, delivery: Delivery, body: bytes) -> dict[str, str]:
    """The endpoint's own headers first: ours win."""
    headers: dict[str, str] = {}
    if delivery.headers_sealed is not None:
        purpose = f"webhook_endpoints.headers:{delivery.endpoint_id}"
        own: dict[str, str] = orjson.loads(opened.open(delivery.headers_sealed, purpose))
        headers |= {name.lower(): value for name, value in own.items()}
    if delivery.auth_header_sealed is not None:
        purpose = f"webhook_endpoints.auth_header:{delivery.endpoint_id}"
        headers["authorization"] = opened.open(delivery.auth_header_sealed, purpose)
    headers |= signing.headers(
        signing.chosen(_secrets(opened, delivery), delivery.signing),
        message_id=ids.prefixed("evt", delivery.event_id),
        timestamp=int(time.time()),
        body=body,
    )
    headers["waybill-delivery-id"] = ids.prefixed("dlv", delivery.id)
    headers["waybill-attempt"] = str(delivery.attempt)
    if delivery.replay_id is not None:
        headers["waybill-replay"] = ids.prefixed("rpl", delivery.replay_id)
    return headers


def _secrets(opened: Opened, delivery: Delivery) -> list[str]:
    """The newest first, then the keys beside it; of these one that cannot be opened does not stop the others."""
    secrets = [opened.open(delivery.secret_sealed, delivery.secret_purpose)]
    for key_id, sealed in zip(delivery.key_ids or (), delivery.keys_sealed or (), strict=True):
        try:
            secrets.append(opened.open(sealed, f"webhook_keys.key:{key_id}"))
        except CannotOpen:
            logger.warning("key_unusable", delivery_id=ids.prefixed("dlv", delivery.id), key_id=str(key_id))
    return secrets


def _shown(delivery: Delivery, headers: Mapping[str, str]) -> dict[str, str]:
    """The request's headers for the log: values that the customer gave us are not in it."""
    if not headers:
        return {}
    told = {name: value if name in OURS or name.startswith("waybill-") else HIDDEN for name, value in headers.items()}
    try:
        form = egress.check_form(delivery.url, http=True)
    except egress.UrlRefused:
        return told  # it went nowhere
    return all_headers(form.authority, told, (delivery.body or "").encode())


def after(answer: Response, *, tries: int, schedule_s: Sequence[float]) -> Next:
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
