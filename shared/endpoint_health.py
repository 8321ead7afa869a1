"""An endpoint's run of failures: when it began, who is told of it, and when it ends in the endpoint being disabled.

active ── a failed attempt ──► failing ── 50, 70, 90 % of the limit ──► told ── a failed attempt after it ──► disabled
   ▲                              │
   └────────── one 2xx ───────────┘           410, or ten refused addresses in a row: disabled at once
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from shared import log, webhook_facts
from shared.db import Tx, hot
from shared.events import Event
from shared.sql_terms import TARGET_JOINS, TARGET_URL
from shared.states import DeliveryState
from shared.webhook_facts import RECOVERED, Attempted, Run

logger = log.get(__name__)

LEAST_FAILURES = 10
"""A run this short disables nothing, however long ago it began."""
REFUSALS_TO_DISABLE = 10
NOTICES = (90, 70, 50)
OURS = ("secret",)
"""Classes of errors that are ours: they say nothing about the receiver."""

# A row is written only when the attempts say something new, a healthy one once a second: it is not a lock that senders
# queue for. What follows is decided on the locked row.
COUNT = """
with told as (
    select * from unnest(%(ids)s::uuid[], %(delivered)s::boolean[], %(failures)s::int[], %(refusals)s::int[],
                         %(only_refusals)s::boolean[], %(gone)s::boolean[], %(verified)s::boolean[],
                         %(given_up)s::int[], %(statuses)s::int[], %(urls)s::text[])
           as t(id, delivered, failures, refusals, only_refusals, gone, verified, given_up, status, url)
), run as (
    select t.*, n.*, w.status = 'pending_verification' and t.verified as activate,
           case when w.status <> 'active' then null
                when t.gone then 'gone'
                when n.refused_in_a_row >= %(most_refusals)s then 'url_refused'
                when t.failures > 0 and n.failed_attempts >= %(least_failures)s
                 and n.failing_since <= app_now() - make_interval(secs => %(disable_after_s)s) then 'failing' end
           as reason
      from told t join webhook_endpoints w on w.id = t.id and w.url = t.url,
           lateral (select t.failures + case when t.delivered then 0 else w.failed_attempts end as failed_attempts,
                           t.refusals + case when t.only_refusals then w.refused_in_a_row else 0 end
                           as refused_in_a_row,
                           case when t.failures > 0
                                then coalesce(case when not t.delivered then w.failing_since end, app_now())
                                when not t.delivered then w.failing_since end as failing_since) n
     where w.deleted_at is null
       and (w.last_status is distinct from t.status or w.last_triggered_at is null
            or w.last_triggered_at < app_now() - interval '1 second' or t.gone or t.verified
            or (w.failed_attempts, w.refused_in_a_row) <> (n.failed_attempts, n.refused_in_a_row)
            or w.failing_since is distinct from n.failing_since)
     order by w.id for no key update of w
), counted as (
    update webhook_endpoints w
       set last_status = r.status, last_triggered_at = app_now(), failed_attempts = r.failed_attempts,
           refused_in_a_row = r.refused_in_a_row, failing_since = r.failing_since,
           noticed_percent = case when r.delivered then 0 else w.noticed_percent end,
           status = case when r.reason is not null then 'disabled' when r.activate then 'active' else w.status end,
           disabled_reason = coalesce(r.reason, w.disabled_reason),
           disabled_at = case when r.reason is not null then app_now() else w.disabled_at end,
           active_since = case when r.activate then app_now() else w.active_since end,
           updated_at = case when r.reason is not null or r.activate then app_now() else w.updated_at end
      from run r where w.id = r.id
    returning w.*, r.reason, r.given_up
)
select w.id, w.team_id, w.url, w.failing_since, w.failed_attempts, w.last_status, w.disabled_at, w.reason,
       w.given_up + (select count(*) from deliveries d
                      where d.queue_id = w.id and d.state in ('pending', 'failing'))::int as undelivered
  from counted w where w.reason is not null order by w.id
"""

# One notice for the share that has passed, not one for each that was missed while no timer ran.
NOTICE = """
with late as (
    select w.id, p.percent from webhook_endpoints w,
           lateral (select max(n) as percent from unnest(%(notices)s::int[]) n
                     where w.failing_since <= app_now() - make_interval(secs => %(disable_after_s)s * n / 100.0)) p
     where w.status = 'active' and w.failing_since is not null and p.percent > w.noticed_percent
     order by w.id limit %(limit)s for no key update of w skip locked
)
update webhook_endpoints w set noticed_percent = late.percent
  from late where w.id = late.id
returning w.id, w.team_id, w.url, w.failing_since, w.failed_attempts, w.last_status, late.percent,
          (select count(*) from deliveries d
            where d.queue_id = w.id and d.state in ('pending', 'failing'))::int as undelivered
"""

RUNS = "select id, url, active_since from webhook_endpoints where id = any(%s)"

TARGETS = f"""
select d.id, {TARGET_URL} as url
  from deliveries d
{TARGET_JOINS}
 where d.id = any(%s)
"""

WANTED = """
select distinct team_id from webhook_endpoints where team_id = any(%s) and status = 'active' and %s = any(events)
"""

TO_CLEAR = """
select w.id, w.deleted_at is not null as deleted from webhook_endpoints w
 cross join lateral (select d.id from deliveries d
                      where d.queue_id = w.id and d.state in ('pending', 'failing') and d.trigger <> 'test'
                      order by d.next_attempt_at limit 1) waiting
 where w.status = 'disabled'
 order by w.id limit %s
"""


@dataclass(frozen=True, kw_only=True)
class ToClear:
    """A disabled endpoint with deliveries that wait to be sent."""

    id: UUID
    deleted: bool


async def count(tx: Tx, outcomes: Sequence[Attempted], *, now: datetime, disable_after_s: float) -> list[Event]:
    """Count attempts, in the order they ended, into the runs of their endpoints; the events to be recorded with them.

    `now` stamps the events about deliveries; what is decided about endpoints has the database's time.
    Belongs in the transaction of the attempts, after them; tell `log_events` once it is committed.
    """
    events = [
        webhook_facts.endpoint_disabled(_run(row), reason=row.reason, disabled_at=row.disabled_at, at=row.disabled_at)
        for row in await _count(tx, outcomes, disable_after_s)
    ]
    return events + await _told(tx, outcomes, now)


async def runs(tx: Tx, endpoint_ids: Collection[UUID]) -> dict[UUID, tuple[str, datetime]]:
    """The URL of each endpoint and since when it is active: what was sent elsewhere or before is of no account."""
    return {row.id: (row.url, row.active_since) for row in await hot(tx, RUNS, (list(endpoint_ids),))}


async def notices(tx: Tx, *, now: datetime, disable_after_s: float, limit: int) -> list[Event]:
    """Mark endpoints whose run passed 50, 70 or 90 % of the limit as told, each share once per run; their notices."""
    values = {"notices": list(NOTICES), "disable_after_s": disable_after_s, "limit": limit}
    return [
        webhook_facts.endpoint_failing(_run(row), percent=row.percent, disable_after_s=disable_after_s, at=now)
        for row in await hot(tx, NOTICE, values)
    ]


async def to_clear(tx: Tx, *, limit: int) -> list[ToClear]:
    """Disabled and deleted endpoints that still have deliveries to be discarded."""
    return [ToClear(**row._asdict()) for row in await hot(tx, TO_CLEAR, (limit,))]


def log_events(events: Sequence[Event]) -> None:
    """One line for each, once they are committed."""
    for event in events:
        named = (
            "delivery_id",
            "webhook_id",
            "endpoint_id",
            "event_id",
            "event_type",
            "reason",
            "percent",
            "last_status",
        )
        known = {name: event.data[name] for name in named if event.data.get(name) is not None}
        level = logger.info if event.type == RECOVERED else logger.warning
        level(event.type.removeprefix("webhook.").replace(".", "_"), team_id=event.team_id, **known)


async def _count(tx: Tx, outcomes: Sequence[Attempted], disable_after_s: float) -> list[Any]:
    of: dict[UUID, list[Attempted]] = {}
    for outcome in outcomes:
        if outcome.endpoint_id is not None and outcome.error_class not in OURS:
            of.setdefault(outcome.endpoint_id, []).append(outcome)
    if not of:
        return []
    columns = [_summed(mine) for mine in of.values()]
    values = {name: [column[name] for column in columns] for name in columns[0]}
    limits = {"most_refusals": REFUSALS_TO_DISABLE, "least_failures": LEAST_FAILURES}
    return await hot(tx, COUNT, {"ids": list(of), **values, **limits, "disable_after_s": disable_after_s})


def _summed(outcomes: Sequence[Attempted]) -> dict[str, Any]:
    """What these attempts at one endpoint, oldest first, come to: its run begins anew after the last 2xx."""
    counted = [outcome for outcome in outcomes if outcome.trigger != "test"]
    taken = [n for n, outcome in enumerate(counted) if outcome.state == DeliveryState.DELIVERED]
    after = counted[taken[-1] + 1 :] if taken else counted
    others = [n for n, outcome in enumerate(counted) if outcome.error_class != "url_refused"]
    tests = [outcome for outcome in outcomes if outcome.trigger == "test" and outcome.event_type == "webhook.test"]
    return {
        "delivered": bool(taken),
        # Who says stop has read the message: that is no failure, and no 2xx either.
        "failures": sum(outcome.state != DeliveryState.ABORTED for outcome in after),
        "refusals": len(counted) - 1 - others[-1] if others else len(counted),
        "only_refusals": not others,
        "gone": any(outcome.gone for outcome in counted),
        "verified": any(outcome.state == DeliveryState.DELIVERED for outcome in tests),
        "given_up": sum(o.state in (DeliveryState.EXHAUSTED, DeliveryState.DISCARDED) for o in after),
        "statuses": outcomes[-1].status,
        "urls": outcomes[-1].url,
    }


async def _told(tx: Tx, outcomes: Sequence[Attempted], now: datetime) -> list[Event]:
    """The events about deliveries: of those given up always, of those taken at last when somebody asked for it."""
    ours = [o for o in outcomes if o.trigger != "test" and not o.event_type.startswith("webhook.")]
    exhausted = [o for o in ours if o.state == DeliveryState.EXHAUSTED]
    taken = [o for o in ours if o.state == DeliveryState.DELIVERED and o.was_failing]
    if taken:
        wanted = {row.team_id for row in await hot(tx, WANTED, (list({o.team_id for o in taken}), RECOVERED))}
        taken = [o for o in taken if o.team_id in wanted]
    if not exhausted and not taken:
        return []
    urls = {row.id: row.url for row in await hot(tx, TARGETS, ([o.delivery_id for o in (*exhausted, *taken)],))}
    return [
        *(webhook_facts.delivery_exhausted(o, urls.get(o.delivery_id, ""), now) for o in exhausted),
        *(webhook_facts.delivery_recovered(o, urls.get(o.delivery_id, ""), now) for o in taken),
    ]


def _run(row: Any) -> Run:
    return Run(**{name: getattr(row, name) for name in Run.__dataclass_fields__})
