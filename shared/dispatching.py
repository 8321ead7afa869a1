"""What the dispatcher reads and marks: calls, and lines of batches, that nobody has rung yet, bounded for each team.

Priority and age order a team's own; the turns of teams are in shared/turns.py.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from itertools import groupby
from typing import Any
from uuid import UUID

from shared.db import Tx, hot
from shared.sql_terms import BUSY, SCOPE
from shared.turns import Queue, Turn

LOOK = """
select (select count(*) from (select 1 from calls where state = 'pending' and rung_at is not null and not batched
                                 and run_at <= app_now() limit %(calls)s) r) as calls_rung,
       exists (select from calls where state = 'pending' and rung_at is null and not batched) as calls_wait,
       (select count(*) from (select 1 from calls where state = 'pending' and rung_at is not null and batched
                                 and run_at <= app_now() limit %(lines)s) r) as lines_rung,
       exists (select from calls where state = 'pending' and rung_at is null and batched) as lines_wait
"""

# Twice a team's share of the room is read, since its calls may be smaller than the others'; what is cut is read again.
SHARE = "least(%(room)s, 1 + ceil(2.0 * %(room)s * t.weight / sum(t.weight) over ()))::bigint"
ROOM = f"case when t.max_parallel_calls is not null then greatest(0, t.max_parallel_calls - ({BUSY})) end"
TOKENS = "greatest(1, c.estimated_prompt_tokens::bigint + c.estimated_output_tokens) as tokens"

CALLS = f"""
with recursive waiting(team_id) as (
    (select team_id from calls where state = 'pending' and rung_at is null and not batched order by team_id limit 1)
    union all
    select (select c.team_id from calls c where c.state = 'pending' and c.rung_at is null and not c.batched
               and c.team_id > w.team_id order by c.team_id limit 1)
      from waiting w where w.team_id is not null
), team as materialized (
    select t.id as team_id, t.weight, {SHARE} as share, {ROOM} as room
      from waiting w join teams t on t.id = w.team_id
)
select t.team_id, t.weight, t.room, t.share, null::uuid as key_id, null::text as alias, null::text as scope,
       null::int as rpm, null::int as tpm, null::int as key_rpm, null::int as key_tpm, c.id, c.priority, c.tokens
  from team t left join lateral (
       select c.id, c.priority, {TOKENS} from calls c
        where c.team_id = t.team_id and c.state = 'pending' and c.rung_at is null and not c.batched
        order by c.priority desc, c.id limit least(t.share, t.room)) c on true
 order by t.team_id, c.priority desc, c.id
"""

# A flow is what a limit or a slowed provider can hold: a team's lines that one key brought for one alias.
LINES = f"""
with recursive flow(team_id, key_id, alias) as (
    (select team_id, key_id, candidates[candidate + 1] from calls
      where state = 'pending' and rung_at is null and batched
      order by team_id, key_id, candidates[candidate + 1] limit 1)
    union all
    select c.team_id, c.key_id, c.alias from flow f cross join lateral (
           select c.team_id, c.key_id, c.candidates[c.candidate + 1] as alias from calls c
            where c.state = 'pending' and c.rung_at is null and c.batched
              and (c.team_id, c.key_id, c.candidates[c.candidate + 1]) > (f.team_id, f.key_id, f.alias)
            order by c.team_id, c.key_id, c.candidates[c.candidate + 1] limit 1) c
), open as materialized (
    select f.*, {SCOPE} as scope, k.rpm_limit as key_rpm, k.tpm_limit as key_tpm
      from flow f left join model_aliases a using (alias) left join virtual_keys k on k.id = f.key_id
     where f.team_id <> all(%(teams)s) and f.key_id <> all(%(keys)s)
       and ({SCOPE} <> all(%(scopes)s)) is not false
), team as materialized (
    select t.id as team_id, t.weight, t.rpm_limit as rpm, t.tpm_limit as tpm, {SHARE} as share, {ROOM} as room
      from teams t where t.id in (select team_id from open)
)
select t.team_id, t.weight, t.room, t.share, f.key_id, f.alias, f.scope, t.rpm, t.tpm, f.key_rpm, f.key_tpm,
       c.id, c.priority, c.tokens
  from team t join open f using (team_id) left join lateral (
       select c.id, c.priority, {TOKENS} from calls c
        where c.team_id = f.team_id and c.key_id = f.key_id and c.candidates[c.candidate + 1] = f.alias
          and c.state = 'pending' and c.rung_at is null and c.batched
          and c.run_at <= app_now() and c.deadline_at > app_now()
        order by c.priority desc, c.id limit least(t.share, t.room)) c on true
 order by t.team_id, f.key_id, f.alias, c.priority desc, c.id
"""

# What a limited team was held from until now lacks nothing but a worker from now on, which is what run_at says.
MARK = """
with open as (
    select c.id from calls c where c.id = any(%(ids)s) and c.state = 'pending' and c.rung_at is null
     order by c.id for update skip locked
)
update calls c set rung_at = app_now(), run_at = case when c.id = any(%(held)s) then app_now() else c.run_at end
  from open where c.id = open.id returning c.id
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
    """A call, or a line with all that may hold it: the provider it goes to, and the limits of its team and key."""

    priority: int
    room: int | None
    key_id: UUID | None
    scope: str | None
    rpm: int | None
    tpm: int | None
    key_rpm: int | None
    key_tpm: int | None


WAITING = tuple(field.name for field in fields(Waiting))


@dataclass(frozen=True, kw_only=True, slots=True)
class Flow:
    """Calls of a team that are held together, in its order. room: what its `max_parallel_calls` leaves; None: all."""

    team_id: str
    scope: str | None
    room: int | None
    calls: Sequence[Waiting]
    is_cut: bool

    def only(self, placed: Collection[UUID]) -> "Flow":
        """The same with these calls alone."""
        calls = [call for call in self.calls if call.id in placed]
        return replace(self, calls=calls, is_cut=self.is_cut and len(calls) == len(self.calls))


async def look(tx: Tx, *, calls: int, lines: int) -> Seen:
    """How full the queues are, counted up to these, and whether there is more."""
    [row] = await hot(tx, LOOK, {"calls": calls, "lines": lines})
    return Seen(**row._asdict())


async def waiting_calls(tx: Tx, *, room: int) -> list[Flow]:
    """The head of every team's calls, one flow each."""
    return _flows(await hot(tx, CALLS, {"room": room}))


async def waiting_lines(
    tx: Tx, *, room: int, teams: Collection[str], keys: Collection[UUID], scopes: Collection[str]
) -> list[Flow]:
    """The heads of every team's flows of lines, but for those of these teams, keys and providers."""
    given = {"room": room, "teams": list(teams), "keys": list(keys), "scopes": list(scopes)}
    return _flows(await hot(tx, LINES, given))


async def mark(tx: Tx, chosen: Sequence[Waiting]) -> set[UUID]:
    """These count as rung now. Returns those that still waited."""
    held = [call.id for call in chosen if call.room is not None]
    rows = await hot(tx, MARK, {"ids": [call.id for call in chosen], "held": held}) if chosen else []
    return {row.id for row in rows}


def queues(flows: Sequence[Flow]) -> dict[str, Queue[Waiting]]:
    """Each team's calls of all its flows in its own order, as far as they are known."""
    return {team_id: _queue(list(of_team)) for team_id, of_team in groupby(flows, key=lambda flow: flow.team_id)}


def _queue(flows: Sequence[Flow]) -> Queue[Waiting]:
    """Beyond the last call of a flow that is cut nobody knows what comes next."""
    calls = sorted((call for flow in flows for call in flow.calls), key=_place)
    room = flows[0].room
    ends = [_place(flow.calls[-1]) for flow in flows if flow.is_cut]
    known = [call for call in calls if _place(call) <= min(ends)] if ends else calls
    if room is not None and room <= len(known):
        return Queue(turns=known[:room])
    return Queue(turns=known, is_cut=bool(ends))


def _place(call: Waiting) -> tuple[int, UUID]:
    return -call.priority, call.id


def _flows(rows: Sequence[Any]) -> list[Flow]:
    return [_flow(list(of_flow)) for _, of_flow in groupby(rows, key=lambda row: (row.team_id, row.key_id, row.alias))]


def _flow(rows: Sequence[Any]) -> Flow:
    head = rows[0]
    calls = [] if head.id is None else [Waiting(**{name: getattr(row, name) for name in WAITING}) for row in rows]
    is_cut = len(calls) == head.share
    return Flow(team_id=head.team_id, scope=head.scope, room=head.room, calls=calls, is_cut=is_cut)
