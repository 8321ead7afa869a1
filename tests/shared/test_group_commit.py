"""Group commit: who arrives together is committed together, and hears only of what concerns him."""

import asyncio
from collections.abc import Sequence

import pytest

from shared.group_commit import GroupCommit


class Recorder:
    """Commits numbers; refuses 13 alone and fails with a group that holds 99."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.open = asyncio.Event()
        self.open.set()

    async def commit(self, group: Sequence[int]) -> list[int | Exception]:
        self.groups.append(list(group))
        await self.open.wait()
        if 99 in group:
            raise LookupError("poison")
        return [ValueError("unlucky") if n == 13 else n * 2 for n in group]


async def test_items_that_come_together_share_one_commit():
    recorder = Recorder()
    group = GroupCommit(recorder.commit)

    assert await asyncio.gather(*(group.add(n) for n in range(5))) == [0, 2, 4, 6, 8]
    assert recorder.groups == [[0, 1, 2, 3, 4]]


async def test_items_that_come_during_a_commit_share_the_next_one():
    recorder = Recorder()
    recorder.open.clear()
    group = GroupCommit(recorder.commit)
    first = asyncio.create_task(group.add(1))
    while not recorder.groups:  # noqa: ASYNC110
        await asyncio.sleep(0)
    later = [asyncio.create_task(group.add(n)) for n in (2, 3)]
    await asyncio.sleep(0)
    recorder.open.set()

    assert await asyncio.gather(first, *later) == [2, 4, 6]
    assert recorder.groups == [[1], [2, 3]]


async def test_a_group_is_never_larger_than_allowed():
    recorder = Recorder()
    group = GroupCommit(recorder.commit, most=2)
    await asyncio.gather(*(group.add(n) for n in range(5)))
    assert recorder.groups == [[0, 1], [2, 3], [4]]


async def test_a_refusal_reaches_its_own_waiter_only():
    group = GroupCommit(Recorder().commit)
    results = await asyncio.gather(*(group.add(n) for n in (1, 13, 2)), return_exceptions=True)
    assert results[0] == 2
    assert isinstance(results[1], ValueError)
    assert results[2] == 4


async def test_everybody_hears_of_a_failure_of_the_whole_group():
    recorder = Recorder()
    group = GroupCommit(recorder.commit)
    results = await asyncio.gather(*(group.add(n) for n in (1, 99)), return_exceptions=True)
    assert [type(result) for result in results] == [LookupError, LookupError]
    assert recorder.groups == [[1, 99]]


async def test_a_waiter_that_gives_up_takes_nobody_with_him():
    recorder = Recorder()
    recorder.open.clear()
    group = GroupCommit(recorder.commit)
    gone, stays = asyncio.create_task(group.add(1)), asyncio.create_task(group.add(2))
    while not recorder.groups:  # noqa: ASYNC110
        await asyncio.sleep(0)
    gone.cancel()
    recorder.open.set()

    assert await stays == 4
    with pytest.raises(asyncio.CancelledError):
        await gone
