"""Claiming calls: many bells in one statement; those of limited teams by themselves, behind a lock on their team."""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from uuid import UUID

from shared import calls, log, waiting_calls
from shared.calls import Claimed
from shared.db import Tx, is_down
from shared.group_commit import GroupCommit
from shared.messages import RunCalls
from shared.runtime import Runtime
from shared.team_commit import TeamCommit
from shared.team_queue import RUNG_DIRECTLY
from workers.circuits import Circuits

logger = log.get(__name__)

Win = Callable[[Sequence[Claimed], float], None]
"""Told of calls the moment they are won, and the monotonic time at which they were asked for: their leases are as old
as that at most."""
Won = tuple[list[Claimed], float]


class CallClaims:
    """What one unit claims."""

    def __init__(self, rt: Runtime, circuits: Circuits, worker: str) -> None:
        self._rt = rt
        self._circuits = circuits
        self._worker = worker
        self._free: GroupCommit[Sequence[UUID], Won] = GroupCommit(self._claim_free)
        self._lookups: GroupCommit[Sequence[UUID], dict[str, list[UUID]]] = GroupCommit(self._look_up)
        self._limited: TeamCommit[Sequence[UUID], Won] = TeamCommit(self._claim_limited, patient=rt.db.patient)
        self._nexts: GroupCommit[str, None] = GroupCommit(self._ring_next)

    async def claim(self, call_ids: Sequence[UUID], win: Win) -> None:
        """Take calls under a lease; a bell rung twice takes nothing the second time.

        No call waits for those of a limited team, whose row somebody may keep locked.
        """
        won = await self._free.add(call_ids)
        win(*won)
        taken = {call.id for call in won[0]}
        left = [call_id for call_id in call_ids if call_id not in taken]
        if left:
            await self._claim_left(left, win)

    async def ended(self, team_id: str) -> None:
        """A call of this limited team ended: what it held back is rung."""
        await self._nexts.add(team_id)

    async def _claim_left(self, call_ids: Sequence[UUID], win: Win) -> None:
        """Those that only `max_parallel_calls` kept from being claimed; trouble with them is no other call's."""

        async def claim(team_id: str, ids: Sequence[UUID]) -> None:
            win(*await self._limited.add(ids, team_id))

        try:
            teams = await self._lookups.add(call_ids)
        except Exception as error:  # noqa: BLE001 - see below
            _left_waiting(error, call_ids)
            return
        claims = [claim(team_id, ids) for team_id, ids in teams.items()]
        outcomes = await asyncio.gather(*claims, return_exceptions=True)
        for outcome, ids in zip(outcomes, teams.values(), strict=True):
            if isinstance(outcome, Exception):
                _left_waiting(outcome, ids)

    async def _claim_free(self, group: Sequence[Sequence[UUID]]) -> list[Won]:
        async with self._rt.db.hot_statement() as tx:
            return _shared_out(await self._claimed(tx, _all_of(group)), group)

    async def _look_up(self, group: Sequence[Sequence[UUID]]) -> list[dict[str, list[UUID]]]:
        """Those that could be claimed if it were not for the limits of their teams, by team."""
        async with self._rt.db.hot_statement() as tx:
            teams = await waiting_calls.limited(tx, _all_of(group))
        found: list[dict[str, list[UUID]]] = [{} for _ in group]
        for ids, of_team in zip(group, found, strict=True):
            for call_id in ids:
                if call_id in teams:
                    of_team.setdefault(teams[call_id], []).append(call_id)
        return found

    async def _claim_limited(self, group: Sequence[Sequence[UUID]], lock_s: float | None) -> list[Won]:
        """Claim as many as the limits of their teams have room for; the others wait for their turn again."""
        wanted = _all_of(group)
        async with self._rt.db.hot_transaction(lock_s=lock_s) as tx:
            teams = await waiting_calls.lock_limited(tx, wanted)
            fitting = await waiting_calls.fitting(tx, wanted, teams)
            won = await self._claimed(tx, fitting, locked_teams=teams)
        return _shared_out(won, group)

    async def _claimed(self, tx: Tx, call_ids: Sequence[UUID], *, locked_teams: Collection[str] = ()) -> Won:
        """Those that are won, each at a candidate that may be asked."""
        around, asked_at = await self._circuits.any_open(tx), time.monotonic()
        won = await calls.claim(
            tx,
            call_ids,
            lease_s=self._rt.settings.lease_s,
            worker=self._worker,
            locked_teams=locked_teams,
            around=around,
        )
        return won, asked_at

    async def _ring_next(self, team_ids: Sequence[str]) -> list[None]:
        """Calls of these limited teams ended: what they held back is rung at once, the dispatcher is the net."""
        try:
            async with self._rt.db.hot_statement() as tx:
                following = await waiting_calls.next_of(tx, set(team_ids), most=RUNG_DIRECTLY)
        except Exception as error:
            if not is_down(error):
                raise
            logger.warning("ring_next_failed", error=type(error).__name__)
        else:
            self._rt.ring(RunCalls(ids=tuple(following)))
        return [None] * len(team_ids)


def _all_of(group: Sequence[Sequence[UUID]]) -> list[UUID]:
    return [call_id for ids in group for call_id in ids]


def _shared_out(won: Won, group: Sequence[Sequence[UUID]]) -> list[Won]:
    """What was claimed, to those who asked for it."""
    claimed = {call.id: call for call in won[0]}
    return [([claimed.pop(call_id) for call_id in ids if call_id in claimed], won[1]) for ids in group]


def _left_waiting(error: Exception, call_ids: Sequence[UUID]) -> None:
    if not is_down(error):
        logger.error("limited_claim_failed", exc_info=error)
    logger.warning("limited_claim_waits", error=type(error).__name__, calls=len(call_ids))
