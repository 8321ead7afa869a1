"""Team commit: a lock, or a mistake, of one team's items costs the others one short wait."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from psycopg import OperationalError
from psycopg.errors import DataError, LockNotAvailable

from shared.team_commit import BUSY_LOCK_S, LOCK_S, QUICK_AT_ONCE, TeamCommit

Item = tuple[str, int]


@dataclass
class Rows:
    """Commits items. Who needs a locked row fails where he waits for a short time, and else when it is unlocked.

    locked: items, or the teams of items. bad: items that no statement takes.
    """

    locked: set[object] = field(default_factory=set)
    bad: set[Item] = field(default_factory=set)
    down: bool = False
    groups: list[tuple[list[Item], float | None]] = field(default_factory=list)
    unlocked: asyncio.Event = field(default_factory=asyncio.Event)
    waits: asyncio.Event = field(default_factory=asyncio.Event)
    takes_s: float = 0.0
    time_s: float = 0.0

    async def commit(self, items: Sequence[Item], lock_s: float | None) -> list[str | Exception]:
        self.groups.append((list(items), lock_s))
        self.time_s += self.takes_s
        await asyncio.sleep(0)
        if self.down:
            raise OperationalError("the server is away")
        if self.bad.intersection(items):
            raise DataError("bad")
        if self.locked.intersection(items) or self.locked.intersection(team for team, _ in items):
            if lock_s is not None:
                raise LockNotAvailable("for a short time")
            self.waits.set()
            await self.unlocked.wait()
            if self.locked:
                raise LockNotAvailable("for long")
        return [f"{team}{n}" for team, n in items]

    def unlock(self) -> None:
        """For those who wait, and for who comes."""
        self.locked.clear()
        self.unlocked.set()


@pytest.fixture
def rows() -> Rows:
    return Rows()


@pytest.fixture
def commits(rows: Rows) -> TeamCommit[Item, str]:
    return TeamCommit(rows.commit, patient=asyncio.Semaphore(2), now=lambda: rows.time_s)


async def all_of(commits: TeamCommit[Item, str], *items: Item) -> list[str | BaseException]:
    return await asyncio.gather(*(commits.add(item, item[0]) for item in items), return_exceptions=True)


async def test_items_of_all_teams_share_a_transaction_that_waits_for_no_lock_for_long(
    commits: TeamCommit[Item, str], rows: Rows
):
    assert await all_of(commits, ("a", 1), ("b", 1), ("a", 2)) == ["a1", "b1", "a2"]
    assert rows.groups == [([("a", 1), ("b", 1), ("a", 2)], LOCK_S)]


async def test_a_team_with_a_locked_row_keeps_no_other_waiting(commits: TeamCommit[Item, str], rows: Rows):
    rows.locked.add("a")
    held = asyncio.create_task(all_of(commits, *(("a", n) for n in range(5))))
    assert await all_of(commits, ("b", 1), ("c", 1)) == ["b1", "c1"], "in one group with it"
    await rows.waits.wait()

    rows.groups.clear()
    more = asyncio.create_task(commits.add(("a", 6), "a"))
    assert await all_of(commits, ("b", 2), ("c", 2)) == ["b2", "c2"]
    assert rows.groups == [([("b", 2), ("c", 2)], LOCK_S)], "the held up team is not in later groups at all"
    assert not held.done()
    assert not more.done()

    rows.unlock()
    assert await held == [f"a{n}" for n in range(5)]
    assert await more == "a6"
    assert await all_of(commits, ("a", 7), ("b", 3)) == ["a7", "b3"]
    assert rows.groups[-1] == ([("a", 7), ("b", 3)], LOCK_S), "together again"


async def test_on_a_busy_database_a_group_waits_for_locks_that_others_usually_give_back(
    commits: TeamCommit[Item, str], rows: Rows
):
    for rows.takes_s in (0.1,) * 20 + (0.001,) * 20:
        await commits.add(("a", 1), "a")
    waits = [lock_s or 0.0 for _, lock_s in rows.groups]
    assert waits[0] == LOCK_S < waits[20] < BUSY_LOCK_S
    assert waits[-1] == LOCK_S
    rows.takes_s = 10
    await all_of(commits, ("a", 1))
    assert (await all_of(commits, ("a", 1)), rows.groups[-1][1]) == (["a1"], BUSY_LOCK_S)


async def test_a_team_alone_does_not_hold_up_who_comes_after_it(commits: TeamCommit[Item, str], rows: Rows):
    rows.locked.add("a")
    held = asyncio.create_task(commits.add(("a", 1), "a"))
    await rows.waits.wait()
    assert await commits.add(("b", 1), "b") == "b1"
    assert not held.done()
    rows.unlock()
    assert await held == "a1"


async def test_many_teams_with_locked_rows_keep_no_other_waiting(commits: TeamCommit[Item, str], rows: Rows):
    teams = [f"t{n}" for n in range(3 * QUICK_AT_ONCE)]
    rows.locked.update(teams)
    held = asyncio.create_task(all_of(commits, *((team, 1) for team in teams)))
    assert await all_of(commits, ("b", 1)) == ["b1"]
    assert not held.done()
    await rows.waits.wait()
    assert sum(lock_s is None for _, lock_s in rows.groups) <= 2, "the others keep their connections"
    rows.unlock()
    assert await held == [f"{team}1" for team in teams]


async def test_one_locked_row_of_a_team_does_not_fail_its_other_items(commits: TeamCommit[Item, str], rows: Rows):
    rows.locked.add(("a", 1))
    rows.unlocked.set()
    [held, other] = await all_of(commits, ("a", 1), ("a", 2))
    assert isinstance(held, LockNotAvailable)
    assert other == "a2"


async def test_one_bad_item_is_found_by_committing_each_alone(commits: TeamCommit[Item, str], rows: Rows):
    rows.bad.add(("a", 2))
    [first, bad, other] = await all_of(commits, ("a", 1), ("a", 2), ("b", 1))
    assert isinstance(bad, DataError)
    assert (first, other) == ("a1", "b1")
    assert [items for items, _ in rows.groups if len(items) == 1] == [[("b", 1)], [("a", 1)], [("a", 2)]]


async def test_one_bad_item_that_is_alone_is_tried_once(commits: TeamCommit[Item, str], rows: Rows):
    rows.bad.add(("a", 1))
    assert isinstance((await all_of(commits, ("a", 1)))[0], DataError)
    assert len(rows.groups) == 1


async def test_everybody_hears_at_once_that_the_database_is_away(commits: TeamCommit[Item, str], rows: Rows):
    rows.down = True
    results = await all_of(commits, ("a", 1), ("b", 1))
    assert [type(result) for result in results] == [OperationalError] * 2
    assert len(rows.groups) == 1


async def test_a_waiter_that_gives_up_in_its_lane_takes_nobody_with_him(commits: TeamCommit[Item, str], rows: Rows):
    rows.locked.add("a")
    gone, stays = (asyncio.create_task(commits.add(("a", n), "a")) for n in (1, 2))
    await rows.waits.wait()
    gone.cancel()
    rows.unlock()
    assert await stays == "a2"
    assert await commits.add(("a", 3), "a") == "a3"
    assert rows.groups[-1] == ([("a", 3)], LOCK_S)
