"""Deliveries as they are looked at and repaired: lists, one with its attempts, retry and cancel by hand, a summary."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from shared import ids
from shared.db import Tx, hot
from shared.pages import known_total
from shared.sql_terms import TARGET_JOINS, TARGET_URL
from shared.states import DUE_DELIVERY, DeliveryState

UNDELIVERED = tuple(state for state in DeliveryState if state != DeliveryState.DELIVERED)

COUNT = "select count(*) as total from deliveries d where {where}"

# The page's ids come from an index alone; of a callback's URL the job or the call is asked, for the rows shown only.
PAGE = f"""
with page as materialized (
    select d.id from deliveries d where {{where}} order by d.id desc limit %(limit)s offset %(offset)s
)
select d.*, {TARGET_URL} as url,
       greatest(d.next_attempt_at, case when q.open_s > 0 then q.open_until end) as next_try_at
  from page join deliveries d using (id)
  left join delivery_queues q on q.id = d.queue_id
{TARGET_JOINS}
 order by d.id desc
"""

# What can be sent again, by whom and why not, is decided on the row as it is when it is changed.
ONE = f"""
select d.*, {TARGET_URL} as url, coalesce(d.body, e.body) as sent_body,
       d.lease_expires_at > app_now() as is_in_flight, d.endpoint_id is null or w.status = 'active' as is_open,
       w.deleted_at is not null as is_of_deleted,
       greatest(d.next_attempt_at, case when q.open_s > 0 then q.open_until end) as next_try_at
  from deliveries d
  left join delivery_queues q on q.id = d.queue_id
  left join events e on e.id = d.event_id
  left join webhook_endpoints w on w.id = d.endpoint_id
  left join jobs j on d.callback = 'job' and j.id = d.job_id
  left join calls c on d.callback = 'call' and c.id = e.subject_id
 where d.id = %(id)s
"""

ATTEMPTS = "select * from delivery_attempts where delivery_id = %s order by number"

# One that was refused before goes on as failing: its success is news.
RETRY = """
update deliveries d
   set state = case when d.state <> 'delivered' and d.attempt_count > 0 then 'failing' else 'pending' end,
       trigger = 'manual', schedule_from = d.attempt_count, next_attempt_at = app_now(),
       lease_expires_at = null, delivered_at = null
 where d.id = %(id)s and d.trigger <> 'test' and (d.lease_expires_at is null or d.lease_expires_at <= app_now())
   and (d.endpoint_id is null
        or exists (select from webhook_endpoints w where w.id = d.endpoint_id and w.status = 'active'))
   and (d.body is not null or exists (select from events e where e.id = d.event_id))
returning d.queue_id
"""

CANCEL = """
update deliveries set state = 'discarded', last_error = 'cancelled', lease_expires_at = null
 where id = %(id)s and state in ('pending', 'failing')
   and (lease_expires_at is null or lease_expires_at <= app_now())
returning queue_id
"""

NOW = "select app_now() as now"

OUTCOMES = """
select state, count(*) as count, min(created_at) as since
  from (select state, created_at from deliveries
         where id >= %(first_id)s and created_at >= %(since)s and trigger <> 'test' and {team}
         order by id desc limit %(most)s) newest
 group by state
"""

# The first one by id of each team: a loose index scan over the teams that have any.
OLDEST = """
with recursive waiting(team_id) as (
    (select team_id from deliveries where state in ('pending', 'failing') and {team} order by team_id limit 1)
    union all
    select (select d.team_id from deliveries d
             where d.state in ('pending', 'failing') and d.team_id > waiting.team_id and {team}
             order by d.team_id limit 1)
      from waiting where waiting.team_id is not null
)
select extract(epoch from app_now() - min(oldest.created_at))::float8 as age_s
  from waiting
 cross join lateral (select d.created_at from deliveries d
                      where d.team_id = waiting.team_id and d.state in ('pending', 'failing')
                      order by d.id limit 1) oldest
"""

# A replay's first attempts wait for their turn in the replay; they say nothing of how soon news arrive.
FIRST_ATTEMPTS = """
select percentile_cont(0.5) within group (order by waited_ms) as p50_ms,
       percentile_cont(0.95) within group (order by waited_ms) as p95_ms
  from (select greatest(0, extract(epoch from a.started_at - d.created_at) * 1000)::float8 as waited_ms
          from (select id, created_at from deliveries
                 where id >= %(first_id)s and created_at >= %(since)s and trigger <> 'test' and replay_id is null
                   and {team}
                 order by id desc limit %(most)s) d
          join delivery_attempts a on a.delivery_id = d.id and a.number = 1) timed
"""

STANDSTILLS = """
select (select count(*) from delivery_queues where open_s > 0 and {team}) as open_circuits,
       (select count(*) from webhook_endpoints
         where status = 'disabled' and deleted_at is null and {team}) as disabled_endpoints
"""

FILTERS = {
    "team_id": "d.team_id = %(team_id)s",
    "endpoint_id": "d.endpoint_id = %(endpoint_id)s",
    "types": "d.event_type = any(%(types)s)",
    "event_id": "d.event_id = %(event_id)s",
    "job_id": "d.job_id = %(job_id)s",
    "since": "d.created_at >= %(since)s and d.id >= %(first_id)s",
    "until": "d.created_at < %(until)s + interval '1 millisecond' and d.id < %(end_id)s",
    "tests": "(d.trigger = 'test') = %(tests)s",
}

CLOCKS_APART = timedelta(hours=1)
"""Ids carry the time at which they were made: they narrow a range of times to a range of the index."""
SUMMED_UP = timedelta(hours=24)
MOST_COUNTED = 50_000
MOST_TIMED = 2000
"""Newest deliveries that a summary looks at: it costs the same however many there are."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How deliveries do, of one team or of all; tests count for nothing.

    outcomes: deliveries by state, of those made since `counted_since`: 24 hours ago, or later where there are more than
        50,000 of them. oldest_undelivered_age_s: of all that wait. first_attempt_p50_ms, first_attempt_p95_ms: from the
        event to the start of its first attempt, of the newest 2,000. disabled_endpoints: by hand too.
    """

    outcomes: Mapping[DeliveryState, int]
    counted_since: datetime
    oldest_undelivered_age_s: float | None
    first_attempt_p50_ms: float | None
    first_attempt_p95_ms: float | None
    open_circuits: int
    disabled_endpoints: int


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which deliveries; None is no condition. since and until are included, until with its whole millisecond.

    tests: only the examples that were sent by hand, or none of them.
    """

    team_id: str
    endpoint_id: UUID | None = None
    states: Sequence[DeliveryState] | None = None
    types: Sequence[str] | None = None
    event_id: UUID | None = None
    job_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None
    tests: bool | None = None


async def page(tx: Tx, wanted: Filter, *, limit: int, offset: int) -> list[Any]:
    """Rows of deliveries with `url`, newest first."""
    return await hot(tx, *page_statement(wanted, limit=limit, offset=offset))


async def count(tx: Tx, wanted: Filter, *, limit: int, offset: int, shown: int) -> int:
    """How many there are in all; `shown` of them are on this page, which knows it already when it is not full."""
    total = known_total(shown, limit=limit, offset=offset)
    return (await hot(tx, *count_statement(wanted)))[0].total if total is None else total


async def one(tx: Tx, id_: UUID) -> Any | None:
    """One delivery with `url`, `sent_body` (None: kept no longer), `is_in_flight`, `is_open`, `is_of_deleted`.

    is_open: its endpoint takes deliveries. is_of_deleted: the endpoint was deleted.
    """
    rows = await hot(tx, ONE, {"id": id_})
    return rows[0] if rows else None


async def attempts(tx: Tx, id_: UUID) -> list[Any]:
    """The attempts of a delivery, first one first."""
    return await hot(tx, ATTEMPTS, (id_,))


async def retry(tx: Tx, id_: UUID) -> UUID | None:
    """Make a delivery due now, in whatever state it is; its schedule starts anew. The queue to be rung.

    None when it may not be sent: an attempt is under way, its endpoint is not active, it is a test, or its event is
    kept no longer. A repeat before the attempt changes nothing more.
    """
    rows = await hot(tx, RETRY, {"id": id_})
    return rows[0].queue_id if rows else None


async def cancel(tx: Tx, id_: UUID) -> bool:
    """Discard a delivery that waits; False when an attempt is under way or it has ended."""
    return bool(await hot(tx, CANCEL, {"id": id_}))


async def summary(tx: Tx, team_id: str | None) -> Summary:
    """How the deliveries of a team do, or those of all teams."""
    now: datetime = (await hot(tx, NOW))[0].now
    since = now - SUMMED_UP
    outcomes = await hot(tx, *summary_statement(OUTCOMES, team_id, since, most=MOST_COUNTED))
    oldest = (await hot(tx, *summary_statement(OLDEST, team_id, since)))[0]
    timed = (await hot(tx, *summary_statement(FIRST_ATTEMPTS, team_id, since, most=MOST_TIMED)))[0]
    standing = (await hot(tx, *summary_statement(STANDSTILLS, team_id, since)))[0]
    counted = {DeliveryState(row.state): row.count for row in outcomes}
    is_cut = sum(counted.values()) >= MOST_COUNTED
    return Summary(
        outcomes={state: counted.get(state, 0) for state in DeliveryState},
        counted_since=min(row.since for row in outcomes) if is_cut else since,
        oldest_undelivered_age_s=oldest.age_s,
        first_attempt_p50_ms=timed.p50_ms,
        first_attempt_p95_ms=timed.p95_ms,
        open_circuits=standing.open_circuits,
        disabled_endpoints=standing.disabled_endpoints,
    )


def summary_statement(sql: str, team_id: str | None, since: datetime, *, most: int = 0) -> tuple[str, dict[str, Any]]:
    """One of the statements of a summary, with its parameters."""
    params = {"team_id": team_id, "since": since, "first_id": _id_at(since, -CLOCKS_APART), "most": most}
    return sql.format(team="true" if team_id is None else "team_id = %(team_id)s"), params


def page_statement(wanted: Filter, *, limit: int, offset: int) -> tuple[str, dict[str, Any]]:
    """What a page asks the database, with its parameters."""
    where, params = _where(wanted)
    return PAGE.format(where=where), {**params, "limit": limit, "offset": offset}


def count_statement(wanted: Filter) -> tuple[str, dict[str, Any]]:
    """What a total asks the database, with its parameters."""
    where, params = _where(wanted)
    return COUNT.format(where=where), params


def _where(wanted: Filter) -> tuple[str, dict[str, Any]]:
    """Only conditions that there are, and of team and endpoint the one whose index serves.

    An endpoint has one team, which the planner does not know: it would take the two together for a rare thing.
    """
    given = {name: value for name, value in vars(wanted).items() if value is not None}
    if wanted.endpoint_id is not None and DeliveryState.DELIVERED in (wanted.states or DeliveryState):
        del given["team_id"]
    states = given.pop("states", None)
    conditions = [FILTERS[name] for name in given]
    if states is not None:
        conditions.append(_in_states(states))
    if wanted.since is not None:
        given["first_id"] = _id_at(wanted.since, -CLOCKS_APART)
    if wanted.until is not None:
        given["end_id"] = _id_at(wanted.until, CLOCKS_APART)
    return " and ".join(conditions), given


def _id_at(at: datetime, shift: timedelta) -> UUID:
    try:
        return ids.earliest(at + shift)
    except OverflowError:
        return UUID(int=0) if shift < timedelta(0) else UUID(int=2**128 - 1)


def _in_states(states: Sequence[DeliveryState]) -> str:
    """Written out, in two parts: each is then known to lie within the condition of a partial index."""
    waiting = [state for state in states if state in DUE_DELIVERY]
    ended = [state for state in states if state not in DUE_DELIVERY]
    listed = [", ".join(f"'{DeliveryState(state)}'" for state in part) for part in (waiting, ended) if part]
    return "(" + " or ".join(f"d.state in ({part})" for part in listed) + ")"
