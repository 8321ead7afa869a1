"""The event log of a team: pages behind a cursor, what is new for many teams at once, and what is kept no longer.

A team's events are numbered in commit order, so `seq > cursor` misses nothing. A page looks at a bounded piece of the
log: where few events match it may be short, or empty, and say that there is more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from shared.db import Tx, hot
from shared.sql_terms import EVENT_NAMES

LOOKED_AT = 10_000
LOOKED_AT_FOR_DELIVERIES = 2000
"""Most events that one page looks at; a look at an event's deliveries costs more."""
NEWS = 200
"""Most events of one team that `news` gives."""
UUID7 = 7
CLOCKS = timedelta(minutes=5)
"""How far the time of a fact, a host's, may be from where its commit stands in the log."""
EXPIRY_GRACE = timedelta(hours=1)
END_OF_LOG = 2**62

COLUMNS = "e.seq, e.id, e.type, e.team_id, e.job_id, e.sequence, e.created_at, e.body"

GET = f"select {COLUMNS} from events e where e.id = %s"

CURSOR = """
select app_now() as now, e.seq, e.job_id, e.sequence
  from (select 1) one left join events e on e.id = %s and e.team_id = %s
"""

HAS_ANY = "select exists (select from events where (team_id, seq) >= (%s, 0) and (team_id, seq) <= (%s, %s)) as yes"

# The last event of a team before a moment, by bisection: times rise along the log but for the width of a transaction.
PLACE = """
with recursive search(low, high) as (
    select coalesce((select e.seq from events e where (e.team_id, e.seq) >= (%(team_id)s, 0)
                        and (e.team_id, e.seq) <= (%(team_id)s, %(end)s) order by e.team_id, e.seq limit 1), 1) - 1,
           coalesce((select e.seq from events e where (e.team_id, e.seq) >= (%(team_id)s, 0)
                        and (e.team_id, e.seq) <= (%(team_id)s, %(end)s)
                      order by e.team_id desc, e.seq desc limit 1), 0) + 1
     union all
    select case when p.is_before then p.seq else s.low end, case when p.is_before then s.high else m.mid end
      from search s
     cross join lateral (select (s.low + s.high) / 2 as mid) m
      left join lateral (select e.seq, e.created_at < %(at)s as is_before from events e
                          where (e.team_id, e.seq) >= (%(team_id)s, m.mid)
                            and (e.team_id, e.seq) < (%(team_id)s, s.high)
                          order by e.team_id, e.seq limit 1) p on true
     where s.high - s.low > 1
)
select low from search order by high - low limit 1
"""

# Who may have missed something: what sends now, and what we stopped ourselves.
SUBSCRIBED = """
w.team_id = %(team_id)s and case when %(endpoint_id)s::uuid is not null then w.id = %(endpoint_id)s
    else w.deleted_at is null and (w.status = 'active' or w.disabled_reason <> 'manual') end
"""

# Since when deliveries can tell what was missed: rows of deliveries are kept so long and no longer.
KNOWN_SINCE = f"""
select greatest(app_now() - make_interval(days => %(days)s),
                coalesce(%(since)s::timestamptz,
                         (select min(w.created_at) from webhook_endpoints w where {SUBSCRIBED}), app_now())) as at
"""

UNDELIVERED = f"""exists (
    select from webhook_endpoints w
     where {SUBSCRIBED} and (%(asks_since)s or w.created_at <= e.created_at)
       and w.events && {EVENT_NAMES.format("e.type")}
       and not exists (select from deliveries d
                        where d.event_id = e.id and d.endpoint_id = w.id and d.state = 'delivered'))
"""

# Pairs are compared so that no index but that of (team_id, seq) serves: by seq alone a team that was quiet for long
# would be looked for among the events of all others.
# `edge` is the last event that was looked at: the end of the log unless `is_cut`.
PAGE = """
with looked_at as (
    select {columns} from events e
     where (e.team_id, e.seq) > (%(team_id)s, %(after)s) and (e.team_id, e.seq) <= (%(team_id)s, %(upto)s)
     order by e.team_id, e.seq limit %(most)s
), page as materialized (
    select {columns} from looked_at e where {where} order by e.team_id, e.seq limit %(limit)s + 1
), edge as materialized (
    select max(seq) as seq, count(*) >= %(most)s as is_cut
      from (select e.seq from events e
             where (e.team_id, e.seq) > (%(team_id)s, %(after)s) and (e.team_id, e.seq) <= (%(team_id)s, %(upto)s)
             order by e.team_id, e.seq limit %(most)s) looked
     where (select count(*) from page) <= %(limit)s
)
select {columns}, edge.is_cut, at_edge.seq as edge_seq, at_edge.id as edge_id, at_edge.job_id as edge_job_id,
       at_edge.sequence as edge_sequence
  from edge left join events at_edge on at_edge.seq = coalesce(edge.seq, %(after)s) and at_edge.team_id = %(team_id)s
  left join page e on true order by e.seq
"""

# A job's events are found by their number in the job; behind its last one the page ends at the end of the team's log.
JOB_PAGE = """
with looked_at as (
    select {columns} from events e
     where e.job_id = %(job_id)s and e.sequence > coalesce(%(sequence)s::int,
           (select b.sequence from events b where %(after)s > 0 and b.job_id = %(job_id)s and b.seq <= %(after)s
             order by b.sequence desc limit 1), 0)
     order by e.sequence limit %(most)s
), page as materialized (
    select {columns} from looked_at e where e.team_id = %(team_id)s and e.seq <= %(upto)s and {where}
     order by e.sequence limit %(limit)s + 1
), edge as materialized (
    select case when l.is_cut then l.seq
                else greatest(l.seq, (select e.seq from events e where (e.team_id, e.seq) >= (%(team_id)s, 0)
                                         and (e.team_id, e.seq) <= (%(team_id)s, %(end)s)
                                       order by e.team_id desc, e.seq desc limit 1))
           end as seq, l.is_cut
      from (select max(seq) as seq, count(*) >= %(most)s as is_cut from looked_at
             where (select count(*) from page) <= %(limit)s) l
)
select {columns}, edge.is_cut, at_edge.seq as edge_seq, at_edge.id as edge_id, at_edge.job_id as edge_job_id,
       at_edge.sequence as edge_sequence
  from edge left join events at_edge on at_edge.seq = coalesce(edge.seq, %(after)s) and at_edge.team_id = %(team_id)s
  left join page e on true order by e.sequence
"""

NEWS_OF_TEAMS = f"""
select n.* from unnest(%s::text[], %s::bigint[]) t(team_id, after)
 cross join lateral (select {COLUMNS} from events e
                      where (e.team_id, e.seq) > (t.team_id, t.after)
                        and (e.team_id, e.seq) <= (t.team_id, {END_OF_LOG})
                      order by e.team_id, e.seq limit {NEWS}) n
"""

# An event that is still to be delivered is kept. The piece of the log looked at ends at the first young event.
DELETE_OLD = """
with looked_at as materialized (
    select seq, id, created_at <= app_now() - make_interval(days => %(days)s) as is_old
      from events where seq > %(after)s order by seq limit %(limit)s
), deleted as (
    delete from events e using looked_at l
     where e.seq = l.seq and l.is_old and not exists (
           select from deliveries d where d.event_id = e.id and d.state in ('pending', 'failing'))
    returning e.seq
)
select (select count(*) from deleted) as deleted, max(seq) as seq,
       count(*) = %(limit)s and bool_and(is_old) as goes_on from looked_at
"""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An event as the log has it; `body` is the event object that every reader gets, byte for byte."""

    seq: int
    id: UUID
    type: str
    team_id: str
    job_id: UUID | None
    sequence: int | None
    created_at: datetime
    body: str


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a reader is in a team's log: behind this event. Without `id`: between events, or before the first."""

    seq: int = 0
    id: UUID | None = None
    job_id: UUID | None = None
    sequence: int | None = None


START = Place()
BEGINNING = Place(id=UUID(int=0))
"""Before the oldest event, by a name: what a reader of a log that is not empty gets while nothing is behind it."""


def place_of(entry: Entry) -> Place:
    """Behind this event."""
    return Place(seq=entry.seq, id=entry.id, job_id=entry.job_id, sequence=entry.sequence)


@dataclass(frozen=True, kw_only=True)
class Lost:
    """A cursor that names no event of the team. expired: there may have been one, it would be kept no longer."""

    expired: bool


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which events; None and False are no condition.

    types: exact ones. since, until: when the fact happened, both included. undelivered: not delivered to
        `endpoint_id`; where that is None, not delivered to at least one endpoint that wants it. Known for as many days
        as deliveries are kept.
    """

    types: Sequence[str] | None = None
    job_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None
    undelivered: bool = False
    endpoint_id: UUID | None = None

    def takes(self, entry: Entry) -> bool:
        """Whether an event is one of them, as far as the event itself says."""
        return (
            (self.types is None or entry.type in self.types)
            and (self.job_id is None or entry.job_id == self.job_id)
            and (self.since is None or entry.created_at >= self.since)
            and (self.until is None or entry.created_at <= self.until)
        )


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A page of the log, oldest first. end: behind all that was looked at; the next page starts there."""

    entries: Sequence[Entry]
    end: Place
    has_more: bool


@dataclass(frozen=True, kw_only=True)
class Deleted:
    """What a step of retention did. after: where the next one starts, None when all that is old was looked at."""

    count: int
    after: int | None


async def get(tx: Tx, id_: UUID) -> Entry | None:
    """One event, of whatever team."""
    rows = await hot(tx, GET, (id_,))
    return Entry(**rows[0]._asdict()) if rows else None


async def find(tx: Tx, team_id: str, id_: UUID, *, days: int) -> Place | Lost:
    """Where this event of the team is. days: how long events are kept."""
    if id_ == BEGINNING.id:
        return BEGINNING
    row = (await hot(tx, CURSOR, (id_, team_id)))[0]
    if row.seq is not None:
        return Place(seq=row.seq, id=id_, job_id=row.job_id, sequence=row.sequence)
    kept_since: datetime = row.now - timedelta(days=days) + EXPIRY_GRACE
    return Lost(expired=id_.version == UUID7 and _made_ms(id_) <= kept_since.timestamp() * 1000)


async def page(
    tx: Tx,
    team_id: str,
    after: Place,
    wanted: Filter,
    limit: int,
    *,
    delivery_days: int,
    looked_at: int | None = None,
) -> Slice:
    """The next events of a team behind a place, at most `limit`.

    delivery_days: how long deliveries are kept; needed for `undelivered`. looked_at: most events to look at. An `end`
    without id: the log is empty.
    """
    asked = wanted.since
    if wanted.undelivered:
        values = {"team_id": team_id, "endpoint_id": wanted.endpoint_id, "days": delivery_days, "since": asked}
        since = (await hot(tx, KNOWN_SINCE, values))[0].at
    else:
        since = asked
    low = 0 if since is None else await place(tx, team_id, since - CLOCKS)
    upto = END_OF_LOG if wanted.until is None else await place(tx, team_id, wanted.until + CLOCKS)
    sql, filters = page_statement(wanted)
    values = {
        **filters,
        "team_id": team_id,
        "after": max(after.seq, low),
        "upto": upto,
        "sequence": after.sequence if after.job_id == wanted.job_id and low <= after.seq else None,
        "since": since,
        "asks_since": asked is not None,
        "end": END_OF_LOG,
        "limit": limit,
        "most": looked_at or most_looked_at(wanted, limit),
    }
    found = _slice(await hot(tx, sql, values), after, limit)
    if found.end == START and (await hot(tx, HAS_ANY, (team_id, team_id, END_OF_LOG)))[0].yes:
        return replace(found, end=BEGINNING)
    return found


def most_looked_at(wanted: Filter, limit: int) -> int:
    """How many events a page looks at; where nothing is left out these are the ones it shows and the next."""
    if wanted.undelivered:
        return LOOKED_AT_FOR_DELIVERIES
    leaves_out = wanted.types is not None or wanted.since is not None or wanted.until is not None
    return LOOKED_AT if leaves_out else limit + 1


def page_statement(wanted: Filter) -> tuple[str, dict[str, Any]]:
    """The statement of a page, and those of its values that `wanted` gives."""
    conditions = {
        "types": ("e.type = any(%(types)s)", wanted.types is not None),
        "since": ("e.created_at >= %(since)s", wanted.since is not None or wanted.undelivered),
        "until": ("e.created_at <= %(until)s", wanted.until is not None),
        "undelivered": (UNDELIVERED, wanted.undelivered),
    }
    where = " and ".join(sql for sql, applies in conditions.values() if applies) or "true"
    sql = (PAGE if wanted.job_id is None else JOB_PAGE).format(columns=COLUMNS, where=where)
    values: Mapping[str, Any] = {
        "types": list(wanted.types or ()),
        "job_id": wanted.job_id,
        "until": wanted.until,
        "endpoint_id": wanted.endpoint_id,
    }
    return sql, dict(values)


async def news(tx: Tx, after: Mapping[str, int]) -> list[Entry]:
    """What teams' logs have behind these numbers, in order within a team, at most NEWS of each."""
    rows = await hot(tx, NEWS_OF_TEAMS, (list(after), list(after.values())))
    return [Entry(**row._asdict()) for row in rows]


async def delete_old(tx: Tx, *, after: int, days: int, limit: int) -> Deleted:
    """Look at the next `limit` events of all teams, delete those older than so many days that are not to be sent."""
    row = (await hot(tx, DELETE_OLD, {"after": after, "days": days, "limit": limit}))[0]
    return Deleted(count=row.deleted, after=row.seq if row.goes_on else None)


async def place(tx: Tx, team_id: str, at: datetime) -> int:
    """The number of the last event that surely is before `at`, 0 or more where there is none."""
    low: int = (await hot(tx, PLACE, {"team_id": team_id, "at": at, "end": END_OF_LOG}))[0].low
    return low


def _slice(rows: Sequence[Any], after: Place, limit: int) -> Slice:
    found = [_entry(row) for row in rows if row.seq is not None]
    if len(found) > limit:
        return Slice(entries=found[:limit], end=place_of(found[limit - 1]), has_more=True)
    edge = rows[0]
    end = after
    if edge.edge_seq is not None and edge.edge_seq > after.seq:
        end = Place(seq=edge.edge_seq, id=edge.edge_id, job_id=edge.edge_job_id, sequence=edge.edge_sequence)
    return Slice(entries=found, end=end, has_more=bool(edge.is_cut))


def _entry(row: Any) -> Entry:
    return Entry(**{name: getattr(row, name) for name in Entry.__dataclass_fields__})


def _made_ms(id_: UUID) -> int:
    return id_.int >> 80
