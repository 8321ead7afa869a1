"""Group commit of what belongs to teams: rows of one team that somebody keeps locked hold up no other team's items.

item ──► group of all ──► the lane of its team ──► alone
         LOCK_S           LOCK_S, then longer      LOCK_S

Each waits for a lock as long as is said below it, on a busy database longer (BUSY_LOCK_S). What a group could not
commit goes on to the right, beside the groups that come next.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Generic

from shared.db import one_to_blame, waited_for_a_lock
from shared.group_commit import COMMIT_TIMEOUT_S, GroupCommit, Item, Result

LOCK_S = 0.2
"""What one team's locked row may cost the others of a group."""
BUSY_LOCK_S = 1.0
BUSY_FACTOR = 5
"""A group waits for locks so many times as long as groups usually take, where that is more than LOCK_S: on a busy
database the next one has to wait for others that go on, and parting it would only make more work."""
WEIGHT = 0.1
"""Of the newest group in what groups usually take."""
QUICK_AT_ONCE = 4
"""Transactions beside the groups that wait no longer than this for a lock."""


class _Parted(Exception):
    """Nothing of the item's group is committed: it goes on with fewer others."""


@dataclass
class _Lane(Generic[Item, Result]):
    """The groups of one team, and how many of its items have not left it."""

    groups: GroupCommit[Item, Result]
    inside: int = 0


class TeamCommit(Generic[Item, Result]):
    """Commits items in groups, one group at a time, and each team that is held up in a lane of its own beside them.

    commit: as for GroupCommit; its second argument is for how many seconds it may wait for a lock, None: for as long
        as any statement. When it raises what one item alone may have caused (`one_to_blame`), the group is parted.
    patient: room for the transactions that wait so long, of all that commit on the same database. now: monotonic
        seconds.

    In order of arrival, and so within a team, but for items that are committed alone. What comes while its team has a
    lane joins that lane: a lock costs the other teams one short wait. An item is held up for about twice
    COMMIT_TIMEOUT_S at most, then its waiter gets the error.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Item], float | None], Awaitable[Sequence[Result | Exception]]],
        *,
        patient: asyncio.Semaphore,
        most: int = 256,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._commit = commit
        self._patient = patient
        self._most = most
        self._now = now
        self._usual_s = 0.0
        self._quick = asyncio.Semaphore(QUICK_AT_ONCE)
        self._groups: GroupCommit[Item, Result] = GroupCommit(self._commit_of_all, most=most)
        self._lanes: dict[str, _Lane[Item, Result]] = {}

    async def add(self, item: Item, team_id: str) -> Result:
        """The item's result, once the transaction that carries it is committed."""
        if team_id not in self._lanes:
            with suppress(_Parted):
                return await self._groups.add(item)
        with self._lane(team_id) as lane:
            with suppress(_Parted):
                return await lane.add(item)
            return await self._alone(item)

    @contextmanager
    def _lane(self, team_id: str) -> Iterator[GroupCommit[Item, Result]]:
        """The team's lane; it lasts for as long as one of its items is inside."""
        lane = self._lanes.get(team_id)
        if lane is None:
            lane = self._lanes[team_id] = _Lane(GroupCommit(self._commit_of_one_team, most=self._most))
        lane.inside += 1
        try:
            yield lane.groups
        finally:
            lane.inside -= 1
            if not lane.inside:
                del self._lanes[team_id]

    async def _commit_of_all(self, items: Sequence[Item]) -> Sequence[Result | Exception]:
        began = self._now()
        try:
            return await self._commit(items, self._lock_s())
        except Exception as error:  # noqa: BLE001 - it is raised where nobody can be parted
            if waited_for_a_lock(error):
                return [_Parted() for _ in items]
            return _parted(items, error)
        finally:
            self._usual_s += WEIGHT * (self._now() - began - self._usual_s)

    def _lock_s(self) -> float:
        return min(BUSY_LOCK_S, max(LOCK_S, BUSY_FACTOR * self._usual_s))

    async def _commit_of_one_team(self, items: Sequence[Item]) -> Sequence[Result | Exception]:
        """First as one that nobody keeps waiting, so that such a team stands behind few of those that are."""
        try:
            async with self._quick:
                return await self._commit(items, self._lock_s())
        except Exception as error:  # noqa: BLE001 - as above
            if not waited_for_a_lock(error):
                return _parted(items, error)
        try:
            async with self._patient:
                return await self._commit(items, None)
        except Exception as error:  # noqa: BLE001 - as above
            return _parted(items, error)

    async def _alone(self, item: Item) -> Result:
        async with asyncio.timeout(COMMIT_TIMEOUT_S), self._quick:
            [result] = await self._commit([item], self._lock_s())
        if isinstance(result, Exception):
            raise result
        return result


def _parted(items: Sequence[Item], error: Exception) -> "list[Result | Exception]":
    """Sends several items on where one of them may be to blame; else raises the error."""
    if len(items) == 1 or not one_to_blame(error):
        raise error
    return [_Parted() for _ in items]
