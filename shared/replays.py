"""Replays: events of the log sent again to one endpoint, made into deliveries bit by bit at a rate.

What a replay is about is fixed when it is asked for: a filter and a piece of the team's log. Its deliveries are unique
by (event, endpoint, replay), so that a step that is done twice makes nothing twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import orjson

from shared import ids
from shared.db import Tx, hot

LOOKED_AT = 5000
"""Events that one step looks at; a look at an event's deliveries is an index look-up."""
COUNTED_AT_ONCE = 20_000
MOST_COUNTS = 25
"""Half a million events are counted when a replay is asked for; beyond that `matched` grows as they are found."""
LEAST_WAITING = 100
BURST_S = 1.0
"""So much of its rate is made at once, at the start and after a pause; no more is made up for."""

LOG_END = "select coalesce((select seq from events where team_id = %s order by seq desc limit 1), 0) as seq"

KNOWN_SINCE = "select app_now() - make_interval(days => %s) as at"

KNOWN = "select id from events where id = any(%s) and team_id = %s"

CREATE = """
insert into replays (id, team_id, endpoint_id, filter, rate_per_s, until_seq, next_seq, matched, made_at)
values (%(id)s, %(team_id)s, %(endpoint_id)s, %(filter)s::jsonb, %(rate_per_s)s, %(until_seq)s, %(next_seq)s,
        %(matched)s, app_now() - make_interval(secs => greatest(%(burst_s)s::float8, 1 / %(rate_per_s)s)))
returning *
"""

RUNNING_OF = "select count(*) as running from replays where endpoint_id = %s and state = 'running'"

RECOVERING = """
select * from replays
 where endpoint_id = %(endpoint_id)s and state = 'running' and (filter->>'missed')::boolean
   and (filter->>'since')::timestamptz <= %(since)s and filter->'types' = to_jsonb(%(types)s::text[])
 order by created_at limit 1
"""

# Random: those that may not go on now must not stand before the others for ever.
RUNNING = "select id from replays where state = 'running' order by random() limit %s"

# The queue's row says whether it is full; what is due there and not sent yet is what the endpoint cannot keep up with.
HOLD = """
select r.*, w.status as endpoint_status, coalesce(q.is_full, false) as is_full,
       floor(r.rate_per_s * least(extract(epoch from app_now() - r.made_at)::float8,
                                  greatest(%(burst_s)s::float8, 1 / r.rate_per_s)) + 1e-6)::int as allowed,
       (select count(*) from (select from deliveries d
                               where d.queue_id = r.endpoint_id and d.state in ('pending', 'failing')
                                 and d.next_attempt_at <= app_now()
                               limit greatest(%(least)s, 2 * r.rate_per_s)::int) late)
           < greatest(%(least)s, 2 * r.rate_per_s)::int as has_room
  from replays r
  join webhook_endpoints w on w.id = r.endpoint_id
  left join delivery_queues q on q.id = r.endpoint_id
 where r.id = %(id)s and r.state = 'running'
   for update of r skip locked
"""

LOOK = """
looked_at as materialized (
    select e.seq, e.id, e.type, e.job_id, e.created_at from events e
     where e.team_id = %(team_id)s and e.seq >= %(next_seq)s and e.seq <= %(until_seq)s and {narrow}
     order by e.seq limit %(most)s
)
"""

COUNT = """
with {look}
select (select count(*) from looked_at) as looked, (select max(seq) from looked_at) as end_seq,
       count(*) as matched, min(e.seq) as first, max(e.seq) as last
  from looked_at e where {where}
"""

# What still waits to be sent of these events is replaced: the endpoint would get it again hours later.
MAKE = """
with {look}, picked as materialized (
    select e.* from looked_at e where {where} order by e.seq limit %(allowed)s
), waiting as (
    select d.id from deliveries d join picked p on p.id = d.event_id
     where d.endpoint_id = %(endpoint_id)s and d.state in ('pending', 'failing') and d.trigger <> 'test'
       and d.replay_id is distinct from %(id)s and (d.lease_expires_at is null or d.lease_expires_at <= app_now())
       for update of d skip locked
), replaced as (
    update deliveries d set state = 'discarded', last_error = %(replaced_by)s, lease_expires_at = null
      from waiting where waiting.id = d.id
), made as (
    insert into deliveries (id, event_id, event_type, team_id, job_id, queue_id, endpoint_id, replay_id, trigger)
    select uuid7(), p.id, p.type, %(team_id)s, p.job_id, %(endpoint_id)s, %(endpoint_id)s, %(id)s, 'replay'
      from picked p
        on conflict do nothing
    returning 1
)
select (select count(*) from made) as made, (select count(*) from picked) as picked,
       (select max(seq) from picked) as picked_seq, (select count(*) from looked_at) as looked,
       (select max(seq) from looked_at) as end_seq
"""

ADVANCE = """
update replays r
   set next_seq = %(next_seq)s, made = r.made + %(made)s, matched = greatest(r.matched, r.made + %(made)s),
       made_at = case when %(picked)s = 0 then r.made_at else
                 greatest(r.made_at, app_now() - make_interval(secs => greatest(%(burst_s)s::float8, 1 / r.rate_per_s)))
                 + make_interval(secs => %(picked)s / r.rate_per_s) end,
       state = case when %(is_done)s then 'finished' else r.state end,
       finished_at = case when %(is_done)s then app_now() end
 where r.id = %(id)s
"""

CANCEL = """
update replays set state = 'cancelled', finished_at = app_now() where id = %s and state = 'running' returning id
"""

GET = "select * from replays where id = %s"

SENT = """
select count(*) filter (where attempt_count > 0) as sent, count(*) filter (where state = 'delivered') as delivered,
       count(*) filter (where attempt_count > 0 and state not in ('delivered', 'discarded')) as failing,
       count(*) filter (where attempt_count = 0 and state in ('pending', 'failing')) as waiting,
       count(*) filter (where state = 'discarded') as discarded
  from deliveries where replay_id = %s
"""

EVENT_IDS = "select seq, id from events where seq = any(%s)"

NARROW = {"event_ids": "e.id = any(%(event_ids)s::uuid[])", "job_id": "e.job_id = %(job_id)s::uuid"}
"""Few events by an index of their own: all of them are looked at in one step."""

FILTERS = {
    "types": "e.type = any(%(types)s)",
    "since": "e.created_at >= %(since)s::timestamptz",
    "until": "e.created_at < %(until)s::timestamptz + interval '1 millisecond'",
    "states": """(select d.state from deliveries d where d.event_id = e.id and d.endpoint_id = %(endpoint_id)s
                   order by d.id desc limit 1) = any(%(states)s)""",
    "missed": """not exists (select from deliveries d where d.event_id = e.id and d.endpoint_id = %(endpoint_id)s
                              and d.state = 'delivered')""",
}


class Target(Protocol):
    """An endpoint, as far as a replay needs it."""

    @property
    def id(self) -> UUID:
        """Its id, which is its queue's too."""

    @property
    def team_id(self) -> str:
        """Whose log is read."""


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which events; None and False are no condition.

    types: exact ones. since, until: when the fact happened, both included. states: of the event's latest delivery to
    the endpoint. missed: the endpoint has no delivery of it that was taken.
    """

    event_ids: Sequence[UUID] | None = None
    types: Sequence[str] | None = None
    job_id: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None
    states: Sequence[str] | None = None
    missed: bool = False

    def given(self) -> dict[str, Any]:
        """The conditions that there are."""
        return {name: value for name, value in vars(self).items() if value not in (None, False)}


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A piece of a team's log, both ends included."""

    next_seq: int
    until_seq: int


@dataclass(frozen=True, kw_only=True)
class Matched:
    """What a replay would send. first, last: the ids of the oldest and the newest event."""

    count: int
    first: UUID | None
    last: UUID | None


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A replay. matched: events found when it was asked for; made: deliveries made of them so far."""

    id: UUID
    team_id: str
    endpoint_id: UUID
    state: str
    rate_per_s: float
    matched: int
    made: int
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Sent:
    """sent: tried at least once; of these delivered were taken and failing were not, or not yet.

    waiting: made and not tried yet. discarded: given up, as those that another replay has replaced.
    """

    sent: int
    delivered: int
    failing: int
    waiting: int
    discarded: int


async def log_end(tx: Tx, team_id: str) -> int:
    """The number of the team's newest event, 0 without any; all up to it can be read."""
    found: int = (await hot(tx, LOG_END, (team_id,)))[0].seq
    return found


async def known_since(tx: Tx, *, days: int) -> datetime:
    """Since when deliveries, which are kept so many days, tell what was delivered."""
    found: datetime = (await hot(tx, KNOWN_SINCE, (days,)))[0].at
    return found


async def unknown(tx: Tx, team_id: str, event_ids: Sequence[UUID]) -> UUID | None:
    """The first of these that is no event of the team, or None."""
    there = {row.id for row in await hot(tx, KNOWN, (list(event_ids), team_id))}
    return next((id_ for id_ in event_ids if id_ not in there), None)


async def matched(tx: Tx, target: Target, wanted: Filter, piece: Piece, *, at_once: int = COUNTED_AT_ONCE) -> Matched:
    """How many events of a piece of the log match; of a very long one the beginning is counted.

    at_once: events that one statement looks at.
    """
    counted, ends = 0, []
    next_seq = piece.next_seq
    for _ in range(MOST_COUNTS):
        here = Piece(next_seq=next_seq, until_seq=piece.until_seq)
        row = (await hot(tx, *count_statement(target, wanted, here, at_once=at_once)))[0]
        counted += row.matched
        ends += [seq for seq in (row.first, row.last) if seq is not None]
        if row.looked < at_once:
            break
        next_seq = row.end_seq + 1
    named = {row.seq: row.id for row in await hot(tx, EVENT_IDS, ([*ends[:1], *ends[-1:]],))} if ends else {}
    return Matched(count=counted, first=named[ends[0]] if ends else None, last=named[ends[-1]] if ends else None)


async def create(tx: Tx, target: Target, wanted: Filter, piece: Piece, *, matched: int, rate_per_s: float) -> Replay:
    """Start a replay; the timer makes its deliveries. rate_per_s: most that are made each second."""
    values = {
        "id": ids.new(),
        "team_id": target.team_id,
        "endpoint_id": target.id,
        "filter": orjson.dumps(wanted.given()).decode(),
        "rate_per_s": rate_per_s,
        "until_seq": piece.until_seq,
        "next_seq": piece.next_seq,
        "matched": matched,
        "burst_s": BURST_S,
    }
    return _replay((await hot(tx, CREATE, values))[0])


async def running_of(tx: Tx, endpoint_id: UUID) -> int:
    """How many replays of this endpoint are running."""
    found: int = (await hot(tx, RUNNING_OF, (endpoint_id,)))[0].running
    return found


async def recovering(tx: Tx, endpoint_id: UUID, wanted: Filter) -> Replay | None:
    """A running replay of all that the endpoint missed of these types since then or before; None without one."""
    values = {"endpoint_id": endpoint_id, "since": wanted.since, "types": wanted.types}
    rows = await hot(tx, RECOVERING, values)
    return _replay(rows[0]) if rows else None


async def get(tx: Tx, id_: UUID) -> Replay | None:
    """The replay, or None."""
    rows = await hot(tx, GET, (id_,))
    return _replay(rows[0]) if rows else None


async def sent(tx: Tx, id_: UUID) -> Sent:
    """What became of the deliveries made so far."""
    return Sent(**(await hot(tx, SENT, (id_,)))[0]._asdict())


async def cancel(tx: Tx, id_: UUID) -> bool:
    """Make no more deliveries; those made are sent like any other. False when it was not running."""
    return bool(await hot(tx, CANCEL, (id_,)))


async def running(tx: Tx, *, limit: int) -> list[UUID]:
    """Replays that have deliveries to make."""
    return [row.id for row in await hot(tx, RUNNING, (limit,))]


async def hold(tx: Tx, id_: UUID) -> Any | None:
    """The row of a running replay, locked: with `endpoint_status`, and whether and how much it may make now.

    None when it runs no longer, or when somebody else holds it: that one makes its deliveries. allowed: deliveries by
    its rate. has_room: the endpoint keeps up with what it was sent; is_full: its queue takes no more.
    """
    rows = await hot(tx, HOLD, {"id": id_, "burst_s": BURST_S, "least": LEAST_WAITING})
    return rows[0] if rows else None


async def make(tx: Tx, held: Any, *, at_once: int = LOOKED_AT) -> int:
    """Look at the next events of a replay that is held, make deliveries of those that match. Returns how many.

    Marks the replay as finished when that was all. at_once: events that are looked at.
    """
    row = (await hot(tx, *make_statement(held, at_once=at_once)))[0]
    is_cut = row.picked == held.allowed
    values = {
        "id": held.id,
        "next_seq": 1 + (row.picked_seq if is_cut else row.end_seq or held.until_seq),
        "made": row.made,
        "picked": row.picked,
        "is_done": not is_cut and row.looked < at_once,
        "burst_s": BURST_S,
    }
    await hot(tx, ADVANCE, values)
    made: int = row.made
    return made


def count_statement(target: Target, wanted: Filter, piece: Piece, *, at_once: int) -> tuple[str, dict[str, Any]]:
    """What a count asks the database, with its parameters."""
    look, where, values = _look(wanted.given())
    values |= vars(piece) | {"team_id": target.team_id, "endpoint_id": target.id, "most": at_once}
    return COUNT.format(look=look, where=where), values


def make_statement(held: Any, *, at_once: int) -> tuple[str, dict[str, Any]]:
    """What a step asks the database, with its parameters."""
    look, where, values = _look(held.filter)
    names = ("id", "team_id", "endpoint_id", "next_seq", "until_seq", "allowed")
    values |= {name: getattr(held, name) for name in names}
    values |= {"most": at_once, "replaced_by": f"replaced by replay {ids.prefixed('rpl', held.id)}"}
    return MAKE.format(look=look, where=where), values


def _look(given: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    narrow = [NARROW[name] for name in given if name in NARROW]
    where = [FILTERS[name] for name in given if name in FILTERS]
    look = LOOK.format(narrow=" and ".join(narrow) or "true")
    return look, " and ".join(where) or "true", {**given}


def _replay(row: Any) -> Replay:
    return Replay(**{name: getattr(row, name) for name in Replay.__dataclass_fields__})
