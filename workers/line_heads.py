"""Reads the lines that may be rung: of every team the first ones, and where those are held what else it has.

A provider that refused and is not paused any more takes so many lines at once: its teams take turns for it first.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from uuid import UUID

from shared import dispatching, provider_slowdowns
from shared.db import Database
from shared.dispatching import Flow, Head, Waiting, queues
from shared.team_turns import TeamTurns


class LineHeads:
    """In the memory of the one process that dispatches: turns at slowed providers, and where to go on reading.

    waits_for_a_place: a line of what was read last waits for another to end, so for no moment that is known.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._slowed: dict[str, TeamTurns] = {}
        self._after: dict[str, Flow] = {}
        self.waits_for_a_place = False

    async def read(
        self, room: int, *, teams: Collection[str], keys: Collection[UUID], lines: Collection[UUID]
    ) -> list[Head]:
        """Every team's lines that may be rung now, but for those of these teams and keys and for these lines."""
        async with self._db.hot_transaction() as tx:
            slowed = await provider_slowdowns.known(tx)
            may_run = {slow.scope: slow.may_run for slow in slowed if not slow.is_paused}
            running = await provider_slowdowns.running(tx, may_run)
            rooms = {scope: most - running.get(scope, 0) for scope, most in may_run.items()}
            closed = [slow.scope for slow in slowed if rooms.get(slow.scope, 0) <= 0]
            self._slowed = {slow.scope: self._slowed.get(slow.scope) or TeamTurns() for slow in slowed}
            heads = await dispatching.waiting_lines(tx, room=room, teams=teams, keys=keys, scopes=closed)
            self.waits_for_a_place = any(head.room == 0 for head in heads) or any(left <= 0 for left in rooms.values())
            offered = self._offered(heads, rooms, lines)
            short = [head for head, offer in zip(heads, offered, strict=True) if len(offer.calls) < head.most]
            if not short:
                return offered
            more = await dispatching.lines_of_flows(tx, short, self._after, keys=keys, scopes=closed)
        return self._offered([_joined(head, more.get(head.team_id, ())) for head in heads], rooms, lines)

    def count(self, rung: Sequence[Waiting]) -> None:
        """These were rung, in this order."""
        for scope, turns in self._slowed.items():
            turns.count(line for line in rung if line.scope == scope)

    def _offered(self, heads: Sequence[Head], rooms: Mapping[str, int], but_for: Collection[UUID]) -> list[Head]:
        """The heads without these lines, what goes to a slowed provider cut to what has a place there."""
        heads = [head.of([c for c in head.calls if c.id not in but_for]) for head in heads]
        placed: set[UUID] = set()
        for scope, room in rooms.items():
            there = [head.at(scope) for head in heads]
            placed.update(line.id for line in self._slowed[scope].choose(queues(there), max(0, room))[0])
        return [head.of([c for c in head.calls if c.scope not in rooms or c.id in placed]) for head in heads]


def _joined(head: Head, more: Iterable[Waiting]) -> Head:
    """What its flows have comes after what is known of its head."""
    known = {line.id for line in head.calls}
    new = [line for line in more if line.id not in known]
    return head.of([*head.calls, *new], is_cut=head.is_cut or bool(new))
