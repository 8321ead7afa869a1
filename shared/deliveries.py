"""Deliveries: one event for one target, sent until it is taken; claims are leases."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from shared.db import Tx, hot

REFUSALS_TO_DISABLE = 10

CALLBACK_STATE = """
select state, last_status from deliveries where job_id = %s and callback = 'job' order by created_at desc limit 1
"""

# `skip locked`: two senders may be rung for the same ids, neither waits for the other nor for a deadlock.
CLAIM = """
with due as (
    select d.id, coalesce(w.status, 'active') as status
      from deliveries d left join webhook_endpoints w on w.id = d.endpoint_id
     where d.id = any(%(ids)s) and d.state in ('pending', 'failing') and d.next_attempt_at <= app_now()
       and (d.lease_expires_at is null or d.lease_expires_at <= app_now())
       for update of d skip locked
), discarded as (
    update deliveries d set state = 'discarded', lease_expires_at = null, last_error = 'the endpoint is disabled'
      from due where d.id = due.id and due.status = 'disabled'
), claimed as (
    update deliveries d
       set attempt = d.attempt + 1, worker = %(worker)s,
           lease_expires_at = app_now() + make_interval(secs => %(lease_s)s)
      from due where d.id = due.id and due.status = 'active'
    returning d.*
)
select d.id, d.event_id, d.team_id, d.job_id, d.endpoint_id, d.callback, d.attempt, d.attempt_count, e.body,
       coalesce(w.url, c.callback_url, j.callback_url) as url,
       coalesce(w.secret_sealed, c.callback_secret_sealed, j.callback_secret_sealed, t.callback_secret_sealed)
           as secret_sealed,
       case when w.id is not null then 'webhook_endpoints.secret:' || w.id
            when c.callback_secret_sealed is not null then 'calls.callback_secret:' || c.id
            when j.callback_secret_sealed is not null then 'jobs.callback_secret:' || j.id
            else 'teams.callback_secret:' || t.id end as secret_purpose,
       w.auth_header_sealed, w.headers_sealed
  from claimed d
  join events e on e.id = d.event_id
  join teams t on t.id = d.team_id
  left join webhook_endpoints w on w.id = d.endpoint_id
  left join jobs j on d.callback = 'job' and j.id = d.job_id
  left join calls c on d.callback = 'call' and c.id = e.subject_id
"""

# The endpoint's row is written only when it says something new: a busy endpoint is not a lock that senders queue for.
RECORD = """
with attempted as (
    insert into delivery_attempts
           (delivery_id, number, started_at, duration_ms, status_code, error_class, error, response_head)
    values (%(id)s, %(attempt)s, %(started_at)s, %(duration_ms)s, %(status)s, %(error_class)s, %(error)s,
            %(response_head)s)
    on conflict do nothing
), ours as (
    update deliveries
       set state = %(state)s, attempt_count = attempt_count + 1, last_status = %(status)s, last_error = %(error)s,
           lease_expires_at = null,
           next_attempt_at = case when %(retry_in_s)s::float8 is null then next_attempt_at
                                  else app_now() + make_interval(secs => %(retry_in_s)s) end,
           rung_at = case when %(self_rung)s then app_now() + make_interval(secs => %(retry_in_s)s) end,
           delivered_at = case when %(state)s = 'delivered' then app_now() end
     where id = %(id)s and attempt = %(attempt)s and state in ('pending', 'failing')
    returning endpoint_id
), before as (
    select w.id, r.refused, w.status = 'active' and (%(gone)s or r.refused >= %(refusals)s) as disable
      from ours join webhook_endpoints w on w.id = ours.endpoint_id,
           lateral (select case when %(error_class)s::text = 'url_refused'
                                then w.refused_in_a_row + 1 else 0 end) r(refused)
     where w.last_status is distinct from %(status)s or w.last_triggered_at is null
        or w.last_triggered_at < app_now() - interval '1 second' or w.refused_in_a_row <> r.refused
        or (w.failing_since is null) <> (%(state)s = 'delivered') or %(gone)s
       for no key update of w
), told as (
    update webhook_endpoints w
       set last_status = %(status)s, last_triggered_at = app_now(), refused_in_a_row = b.refused,
           failing_since = case when %(state)s <> 'delivered' then coalesce(w.failing_since, app_now()) end,
           status = case when b.disable then 'disabled' else w.status end,
           disabled_reason = case when not b.disable then w.disabled_reason
                                  when %(gone)s then 'gone' else 'url_refused' end,
           updated_at = case when b.disable then app_now() else w.updated_at end
      from before b where w.id = b.id
    returning b.disable
)
select exists (select from ours) as ours, exists (select from told where disable) as disabled
"""

DUE = """
update deliveries d set rung_at = app_now()
  from (select id from deliveries
         where state in ('pending', 'failing') and next_attempt_at <= app_now()
           and (lease_expires_at is null or lease_expires_at <= app_now())
           and (rung_at is null or rung_at <= app_now() - make_interval(secs => %(rering_s)s))
         order by next_attempt_at limit %(limit)s
           for update skip locked) due
 where d.id = due.id
returning d.id
"""


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One claimed delivery with all that its attempt needs. `attempt` is the fence, `attempt_count` the tries told."""

    id: UUID
    event_id: UUID
    team_id: str
    job_id: UUID | None
    endpoint_id: UUID | None
    callback: str | None
    attempt: int
    attempt_count: int
    body: str
    url: str
    secret_sealed: bytes
    secret_purpose: str
    auth_header_sealed: bytes | None
    headers_sealed: bytes | None

    @property
    def fence(self) -> tuple[UUID, int]:
        """The id and the attempt number under which the delivery is held."""
        return self.id, self.attempt


@dataclass(frozen=True, kw_only=True)
class Result:
    """How an attempt ended and what follows: `state` is the delivery's next, `retry_in_s` from now by database time.

    gone: the receiver said 410, its endpoint is disabled.
    self_rung: the sender rings the next attempt itself, the timer need not at once.
    """

    id: UUID
    attempt: int
    state: str
    started_at: datetime
    duration_ms: int
    status: int | None = None
    error_class: str | None = None
    error: str | None = None
    response_head: str | None = None
    retry_in_s: float | None = None
    self_rung: bool = False
    gone: bool = False


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """ours: the delivery's state was still this attempt's to set. disabled: this attempt disabled its endpoint."""

    ours: bool
    disabled: bool


async def claim(tx: Tx, ids: Sequence[UUID], *, lease_s: float, worker: str) -> list[Delivery]:
    """Lease the due ones of these; those not returned are not ours to send. A disabled endpoint's are discarded."""
    rows = await hot(tx, CLAIM, {"ids": list(ids), "lease_s": lease_s, "worker": worker})
    return [Delivery(**row._asdict()) for row in rows]


async def record(tx: Tx, result: Result) -> Recorded:
    """Write the attempt, and the delivery's and endpoint's state unless a later claim owns the delivery."""
    values: dict[str, Any] = {**vars(result), "refusals": REFUSALS_TO_DISABLE}
    row = (await hot(tx, RECORD, values))[0]
    return Recorded(ours=row.ours, disabled=row.disabled)


async def callback_state(tx: Tx, job_id: UUID) -> dict[str, Any] | None:
    """How the latest delivery to a job's own callback stands: `{state, last_status}`; None before the first."""
    rows = await hot(tx, CALLBACK_STATE, (job_id,))
    return rows[0]._asdict() if rows else None


async def due(tx: Tx, *, limit: int, rering_s: float) -> list[UUID]:
    """Ids to ring: due, not leased, and not rung within `rering_s`; marks them as rung now."""
    return [row.id for row in await hot(tx, DUE, {"limit": limit, "rering_s": rering_s})]
