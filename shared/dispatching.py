"""What the dispatcher reads and marks: calls, and lines of batches, that nobody has rung yet, bounded for each team.

Priority and age order a team's own calls, priority and deadline its lines; the turns of teams are in
shared/team_turns.py. What a look costs depends on the teams that wait and on the room, not on how much waits: every
part of a statement is in the order of one whole index and ends at a limit, and PLANNED leaves the planner no other way.
What waits is often younger than all statistics.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from itertools import groupby
from typing import Any
from uuid import UUID

from shared.db import Tx, hot
from shared.sql_terms import ACTIVE, BUSY, IS_PENDING, IS_STOPPED, SCOPE
from shared.team_turns import Queue, Turn

# For the rest of the transaction. Without a sort only the index that a part's `order by` spells out will do. What is
# joined to it is behind an `offset 0`: looked up by its key for each row that is read.
PLANNED = """
select set_config(name, 'off', true)
  from unnest(array['enable_sort', 'enable_incremental_sort', 'enable_seqscan', 'enable_bitmapscan']) name
"""

HEADS_READ = 4
"""So many times what a team may be given is read of it, where its first lines are held, before its flows are."""
FLOWS = 256
"""So many flows are visited in one look, of all teams; who has more goes on from there with the next look."""

CALL = "c.state = 'pending' and c.rung_at is null and not c.batched"
LINE = "c.state = 'pending' and c.rung_at is null and c.batched"
RUNG = "state = 'pending' and rung_at is not null and run_at <= app_now()"
CALLS_ORDER = "c.priority desc, c.id"
# Of two batches the one that expires sooner. A line that failed comes again after those of its batch that were there
# before it was due.
LINES_ORDER = "c.priority desc, c.deadline_at, c.run_at, c.id"
ALIAS = "c.candidates[c.candidate + 1]"

LOOK = f"""
select (select count(*) from (select 1 from calls where {RUNG} and not batched order by rung_at limit %(calls)s) r)
       as calls_rung,
       (select true from calls c where {CALL} order by c.team_id, {CALLS_ORDER} limit 1) is true as calls_wait,
       (select count(*) from (select 1 from calls where {RUNG} and batched order by rung_at limit %(lines)s) r)
       as lines_rung,
       (select true from calls c where {LINE} order by c.team_id, {LINES_ORDER} limit 1) is true as lines_wait
"""


def _teams(of: str, order: str) -> str:
    """The teams that have any of these, one step through the index each."""
    return f"""
    (select c.team_id from calls c where {of} order by c.team_id, {order} limit 1)
    union all
    select n.team_id from waiting w cross join lateral (
           select c.team_id from calls c where {of} and c.team_id > w.team_id order by c.team_id, {order} limit 1) n
"""


# Twice a team's share of the room is read, since its calls may be smaller than the others'; what is cut is read again.
SHARE = "least(%(room)s, 1 + ceil(2.0 * %(room)s * t.weight / sum(t.weight) over ()))::bigint"
ROOM = f"case when t.max_parallel_calls is not null then greatest(0, t.max_parallel_calls - ({BUSY})) end"
TOKENS = "greatest(1, c.estimated_prompt_tokens::bigint + c.estimated_output_tokens) as tokens"

CALLS = f"""
with recursive waiting(team_id) as ({_teams(CALL, CALLS_ORDER)}), team as materialized (
    select t.id as team_id, t.weight, {SHARE} as share, {ROOM} as room
      from waiting w cross join lateral (select t.* from teams t where t.id = w.team_id offset 0) t
)
select t.team_id, t.weight, t.room, t.share, null::uuid as key_id, null::text as scope,
       null::int as rpm, null::int as tpm, null::int as key_rpm, null::int as key_tpm, c.id, c.priority, c.tokens,
       0::float8 as waited_s
  from team t left join lateral (
       select c.id, c.priority, {TOKENS} from calls c where c.team_id = t.team_id and {CALL}
        order by {CALLS_ORDER} limit least(t.share, t.room)) c on true
"""

WAITED = "extract(epoch from app_now() - c.run_at)::float8 as waited_s"
LINE_READ = f"c.id, c.priority, c.run_at, c.deadline_at, {TOKENS}, {WAITED}"

# What may hold a line besides its team: its key, and where it goes.
KEY_AND_SCOPE = f"""
       left join lateral (select k.rpm_limit as key_rpm, k.tpm_limit as key_tpm, {IS_STOPPED} as is_stopped
                            from virtual_keys k where k.id = h.key_id offset 0) k on true
       left join lateral (select {SCOPE} as scope from model_aliases a where a.alias = h.alias offset 0) a on true
"""
OPEN = "k.is_stopped is not true and h.key_id <> all(%(keys)s) and (a.scope <> all(%(scopes)s)) is not false"

# Lines of a key that is blocked or revoked, and of a team that is suspended or paused, wait until that is over or they
# expire. A key that has expired since keeps what it brought in time.
LINES = f"""
with recursive waiting(team_id) as ({_teams(LINE, LINES_ORDER)}), team as materialized (
    select t.id as team_id, t.weight, t.rpm_limit as rpm, t.tpm_limit as tpm, {SHARE} as share, {ROOM} as room
      from waiting w cross join lateral (
           select t.* from teams t where t.id = w.team_id and {ACTIVE.format("t")} offset 0) t
     cross join lateral (
           select from organizations o where o.id = t.organization_id and {ACTIVE.format("o")} offset 0) o
     where w.team_id <> all(%(teams)s)
)
select t.team_id, t.weight, t.room, t.share, t.rpm, t.tpm,
       l.key_id, l.scope, l.key_rpm, l.key_tpm, l.id, l.priority, l.tokens, l.waited_s
  from team t left join lateral (
       select h.*, k.key_rpm, k.key_tpm, a.scope from (
              select {LINE_READ}, c.key_id, {ALIAS} as alias from calls c
               where c.team_id = t.team_id and {LINE} and c.run_at <= app_now()
               order by {LINES_ORDER} limit {HEADS_READ} * t.share) h {KEY_AND_SCOPE}
        where h.deadline_at > app_now() and {OPEN}
        order by h.priority desc, h.deadline_at, h.run_at, h.id limit least(t.share, t.room)) l on true
"""

# A flow is what a limit or a slowed provider can hold: a team's lines that one key brought for one alias.
FLOW_ORDER = f"c.key_id, {ALIAS}, {LINES_ORDER}"
NEXT_FLOW = f"select c.key_id, {ALIAS} as alias from calls c where c.team_id = s.team_id and {LINE}"

# Of each team that has more lines than were read of it, the flows that come after the last one visited, and of those
# that nothing holds the first lines, each its part of the share. An equality would let the order of all lines serve.
FLOWS_LINES = f"""
select s.team_id, s.room, s.share, t.weight, t.rpm_limit as rpm, t.tpm_limit as tpm, l.*
  from unnest(%(teams)s::text[], %(rooms)s::int[], %(shares)s::bigint[], %(read)s::bigint[], %(after_keys)s::uuid[],
              %(after_aliases)s::text[]) as s(team_id, room, share, read, after_key, after_alias)
 cross join lateral (select t.* from teams t where t.id = s.team_id offset 0) t
 cross join lateral (
       with recursive flow(key_id, alias) as (
           ({NEXT_FLOW} and (c.key_id, {ALIAS}) > (s.after_key, s.after_alias) order by {FLOW_ORDER} limit 1)
           union all
           select n.key_id, n.alias from flow f cross join lateral (
                  {NEXT_FLOW} and (c.key_id, {ALIAS}) > (f.key_id, f.alias) order by {FLOW_ORDER} limit 1) n
       ), visited as materialized (
           select h.key_id, h.alias, k.key_rpm, k.key_tpm, a.scope, {OPEN} as is_open,
                  count(*) filter (where {OPEN}) over () as open
             from (select * from flow limit %(flows)s) h {KEY_AND_SCOPE}
       )
       select v.key_id, v.alias, v.key_rpm, v.key_tpm, v.scope, c.id, c.priority, c.run_at, c.deadline_at,
              c.tokens, c.waited_s
         from visited v left join lateral (
              select {LINE_READ} from calls c
               where c.team_id = s.team_id and {LINE} and c.run_at <= app_now()
                 and (c.key_id, {ALIAS}) >= (v.key_id, v.alias) and (c.key_id, {ALIAS}) <= (v.key_id, v.alias)
               order by {FLOW_ORDER} limit case when v.is_open then 1 + s.share / v.open else 0 end
              ) c on c.deadline_at > app_now()) l
 where (select true from calls c where c.team_id = s.team_id and {LINE} and c.run_at <= app_now()
         order by {LINES_ORDER} offset s.read limit 1)
"""

# What a limited team was held from until now lacks nothing but a worker from now on, which is what run_at says.
MARK = f"""
with open as (
    select c.id from calls c where c.id = any(%(ids)s) and {IS_PENDING} and c.rung_at is null
     order by c.id for update skip locked
)
update calls c set rung_at = app_now(), run_at = case when c.id = any(%(held)s) then app_now() else c.run_at end
 where c.id = any(array(select id from open)) returning c.id
"""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is rung and not claimed yet, counted up to a limit, and whether anything waits to be rung."""

    calls_rung: int
    calls_wait: bool
    lines_rung: int
    lines_wait: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting(Turn):
    """A call, or a line with all that may hold it: the provider it goes to, and the limits of its team and key.

    waited_s: of a line, since it was due.
    """

    priority: int
    waited_s: float
    room: int | None
    key_id: UUID | None
    scope: str | None
    rpm: int | None
    tpm: int | None
    key_rpm: int | None
    key_tpm: int | None


WAITING = tuple(field.name for field in fields(Waiting))


@dataclass(frozen=True, kw_only=True)
class Head:
    """The first calls of a team that may be rung, in its order. share: how many were asked for; is_cut: there are more.

    room: what its `max_parallel_calls` leaves; None: all.
    """

    team_id: str
    share: int
    room: int | None
    calls: Sequence[Waiting]
    is_cut: bool

    @property
    def most(self) -> int:
        """So many at most are of use to it."""
        return self.share if self.room is None else min(self.share, self.room)

    def of(self, calls: Sequence[Waiting], *, is_cut: bool | None = None) -> "Head":
        """The same with these calls."""
        return replace(self, calls=calls, is_cut=self.is_cut if is_cut is None else is_cut)

    def at(self, scope: str) -> "Head":
        """Those of its calls that go there; what comes after them is not asked for."""
        return self.of([call for call in self.calls if call.scope == scope], is_cut=False)


@dataclass(frozen=True, kw_only=True)
class Flow:
    """The last flow of a team that was visited."""

    key_id: UUID
    alias: str


FIRST = Flow(key_id=UUID(int=0), alias="")


async def look(tx: Tx, *, calls: int, lines: int) -> Seen:
    """How full the queues are, counted up to these, and whether there is more. In a transaction, like all here."""
    [row] = await _planned(tx, LOOK, {"calls": calls, "lines": lines})
    return Seen(**row._asdict())


async def waiting_calls(tx: Tx, *, room: int) -> list[Head]:
    """The head of every team's calls."""
    return _heads(await _planned(tx, CALLS, {"room": room}))


async def waiting_lines(
    tx: Tx, *, room: int, teams: Collection[str], keys: Collection[UUID], scopes: Collection[str]
) -> list[Head]:
    """The head of every team's lines, but for those of these teams, keys and providers."""
    given = {"room": room, "teams": list(teams), "keys": list(keys), "scopes": list(scopes)}
    return _heads(await _planned(tx, LINES, given))


async def lines_of_flows(
    tx: Tx, short: Sequence[Head], after: dict[str, Flow], *, keys: Collection[UUID], scopes: Collection[str]
) -> dict[str, list[Waiting]]:
    """Lines of these teams by their flows, wherever in the queue they stand, but for those of these keys and providers.

    `short` are heads as they were read. `after`: where each team goes on, moved on here.
    """
    most = max(1, FLOWS // len(short))
    places = [after.get(head.team_id, FIRST) for head in short]
    given = {
        "teams": [head.team_id for head in short],
        "rooms": [head.room for head in short],
        "shares": [head.share for head in short],
        "read": [head.share if head.is_cut else HEADS_READ * head.share for head in short],
        "after_keys": [place.key_id for place in places],
        "after_aliases": [place.alias for place in places],
        "keys": list(keys),
        "scopes": list(scopes),
        "flows": most,
    }
    rows = await _planned(tx, FLOWS_LINES, given)
    for head in short:
        after.pop(head.team_id, None)
    found: dict[str, list[Waiting]] = {}
    for team_id, of_team in groupby(rows, key=lambda row: row.team_id):
        known = list(of_team)
        if len({(row.key_id, row.alias) for row in known}) == most:
            after[team_id] = Flow(key_id=known[-1].key_id, alias=known[-1].alias)
        lines = sorted((row for row in known if row.id), key=_in_order)
        found[team_id] = [_waiting(row) for row in lines]
    return found


def _in_order(row: Any) -> tuple[int, datetime, datetime, UUID]:
    """Of lines, as LINES_ORDER has them."""
    return -row.priority, row.deadline_at, row.run_at, row.id


async def mark(tx: Tx, chosen: Sequence[Waiting]) -> set[UUID]:
    """These count as rung now. Returns those that still waited."""
    held = [call.id for call in chosen if call.room is not None]
    rows = await _planned(tx, MARK, {"ids": [call.id for call in chosen], "held": held}) if chosen else []
    return {row.id for row in rows}


def queues(heads: Sequence[Head]) -> dict[str, Queue[Waiting]]:
    """Each team's calls as far as they are known."""
    return {head.team_id: _queue(head) for head in heads}


def _queue(head: Head) -> Queue[Waiting]:
    if head.room is not None and head.room <= len(head.calls):
        return Queue(turns=head.calls[: head.room])
    return Queue(turns=head.calls, is_cut=head.is_cut)


async def _planned(tx: Tx, sql: str, given: dict[str, Any]) -> list[Any]:
    await hot(tx, PLANNED)
    return await hot(tx, sql, given)


def _heads(rows: Sequence[Any]) -> list[Head]:
    return [_head(list(of_team)) for _, of_team in groupby(rows, key=lambda row: row.team_id)]


def _head(rows: Sequence[Any]) -> Head:
    head = rows[0]
    calls = [] if head.id is None else [_waiting(row) for row in rows]
    is_cut = len(calls) == head.share
    return Head(team_id=head.team_id, share=head.share, room=head.room, calls=calls, is_cut=is_cut)


def _waiting(row: Any) -> Waiting:
    return Waiting(**{name: getattr(row, name) for name in WAITING})
