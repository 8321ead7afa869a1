"""The pool: room is taken before a bell is answered and given back whatever becomes of its rows."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import pytest

from shared.ids import Fence
from tests.waiting import until
from workers.pool import LATE_S, TICK_S, LoopLag, Pool


@dataclass(frozen=True)
class Claim:
    """A claimed row."""

    fence: Fence


@dataclass
class Rows:
    """Rows that are claimed and run as told: `others` are somebody else's, each of ours runs until it is let go."""

    others: set[UUID] = field(default_factory=set)
    trouble: Exception | None = None
    number: int = 1
    let_go_at_once: bool = False
    held: dict[Fence, asyncio.Event] = field(default_factory=dict)
    ran: list[Fence] = field(default_factory=list)
    claimed: asyncio.Event = field(default_factory=asyncio.Event)
    """What a claim waits for at its end; others may start meanwhile."""

    def __post_init__(self) -> None:
        self.claimed.set()

    async def claim(self, ids: Sequence[UUID], start: Callable[[Claim], None]) -> None:
        if self.trouble is not None:
            raise self.trouble
        for row in [Claim((id_, self.number)) for id_ in ids if id_ not in self.others]:
            self.held[row.fence] = asyncio.Event()
            if self.let_go_at_once:
                self.held[row.fence].set()
            start(row)
        await self.claimed.wait()

    async def run(self, row: Claim) -> None:
        await self.held[row.fence].wait()
        self.ran.append(row.fence)

    def let_go(self) -> None:
        for held in self.held.values():
            held.set()


@pytest.fixture
def rows() -> Rows:
    return Rows()


@pytest.fixture
async def pool(rows: Rows) -> AsyncIterator[Pool[Claim]]:
    """Room for one. A reservation may go over the limit, so a bell of three takes all there is and more."""
    made = Pool(limit=1, lag=LoopLag(), claim=rows.claim, run=rows.run)
    yield made
    made.close_door()
    rows.let_go()
    await made.drain(10, lambda _: None)


async def happens(condition: Callable[[], object], what: str) -> None:
    async def look() -> bool:
        return bool(condition())

    await until(look, what, timeout_s=10)


async def waiting(pool: Pool[Claim]) -> asyncio.Task[bool]:
    """A reservation from a thread that found no room."""
    reserving = asyncio.create_task(asyncio.to_thread(pool.reserve, 1))
    await happens(lambda: pool._room._waiters or reserving.done(), "the thread waits")
    assert not reserving.done(), "there was no room to take"
    return reserving


async def test_reserve_waits_at_the_limit_until_a_task_ends(pool: Pool[Claim], rows: Rows):
    assert pool.reserve(1)
    await pool.take([uuid4()])
    reserving = await waiting(pool)
    assert not pool.has_room()

    rows.let_go()
    async with asyncio.timeout(10):
        assert await reserving
    assert len(rows.ran) == 1


async def test_rows_are_taken_no_faster_than_their_pace(rows: Rows):
    paced = Pool(limit=9, lag=LoopLag(), claim=rows.claim, run=rows.run, pace_s=0.1)
    assert paced.reserve(2)
    assert not paced.has_room()
    assert await asyncio.wait_for(await waiting(paced), 5)


async def test_closed_door_sends_waiting_threads_home(pool: Pool[Claim]):
    assert pool.reserve(1)
    reserving = [await waiting(pool) for _ in range(3)]
    pool.close_door()

    assert await asyncio.gather(*reserving) == [False] * 3
    assert not pool.reserve(1), "nothing is taken after that"


async def test_failed_claim_gives_all_its_slots_back(pool: Pool[Claim], rows: Rows):
    rows.trouble = LookupError("no database")
    assert pool.reserve(3)
    with pytest.raises(LookupError):
        await pool.take([uuid4() for _ in range(3)])

    assert pool.has_room()
    assert pool.tasks == {}


async def test_a_row_starts_when_it_is_won_whatever_the_rest_of_its_bell_waits_for(pool: Pool[Claim], rows: Rows):
    first, second = uuid4(), uuid4()
    rows.others.add(second)
    rows.claimed.clear()
    rows.let_go_at_once = True
    assert pool.reserve(2)
    taking = asyncio.create_task(pool.take([first, second]))
    await happens(lambda: rows.ran == [(first, 1)], "the first runs")
    assert not taking.done()
    assert not pool.has_room(), "the second may still be won"

    rows.claimed.set()
    await taking
    assert pool.has_room()


async def test_slots_of_rows_that_others_have_are_given_back(pool: Pool[Claim], rows: Rows):
    ids = [uuid4() for _ in range(3)]
    rows.others = set(ids[1:])
    assert pool.reserve(3)
    await pool.take(ids)
    assert set(pool.tasks) == {(ids[0], 1)}
    assert not pool.has_room(), "one is running, and there is room for one"

    rows.let_go()
    await happens(pool.has_room, "room after the only task")
    assert rows.ran == [(ids[0], 1)]


async def test_row_that_fails_gives_its_slot_back(rows: Rows):
    async def fail(_: Claim) -> None:
        raise LookupError("a mistake of ours")

    pool = Pool(limit=1, lag=LoopLag(), claim=rows.claim, run=fail)
    assert pool.reserve(1)
    await pool.take([uuid4()])

    await happens(pool.has_room, "room after the failure")
    assert pool.tasks == {}


async def test_drain_waits_for_what_runs(pool: Pool[Claim], rows: Rows):
    cut: list[Fence] = []
    assert pool.reserve(2)
    await pool.take([uuid4(), uuid4()])
    draining = asyncio.create_task(pool.drain(60, cut.append))
    next(iter(rows.held.values())).set()
    await happens(lambda: len(rows.ran) == 1, "one of the two ends")
    assert not draining.done()
    rows.let_go()

    assert await draining == 0
    assert cut == []
    assert len(rows.ran) == 2


@pytest.mark.parametrize("grace_s", [60, 0.01])
async def test_drain_waits_for_claims_and_for_what_they_bring(rows: Rows, grace_s: float):
    known, cut = asyncio.Event(), list[Fence]()

    async def claim(ids: Sequence[UUID], start: Callable[[Claim], None]) -> None:
        await known.wait()
        await rows.claim(ids, start)

    def stop(fence: Fence) -> None:
        cut.append(fence)
        rows.let_go()

    pool = Pool(limit=1, lag=LoopLag(), claim=claim, run=rows.run)
    assert pool.reserve(1)
    taking = asyncio.create_task(pool.take([uuid4()]))
    await asyncio.sleep(0)
    draining = asyncio.create_task(pool.drain(grace_s, stop))
    await asyncio.sleep(0.05)
    assert not draining.done()

    known.set()
    await taking
    if grace_s == 60:
        assert not draining.done(), "what was won has the whole grace"
        rows.let_go()
    assert await draining == len(cut) == (grace_s != 60)
    assert len(rows.ran) == 1


async def test_drain_cuts_what_is_left_after_its_grace(pool: Pool[Claim], rows: Rows):
    ids = [uuid4(), uuid4()]
    assert pool.reserve(2)
    await pool.take(ids)
    cut: list[Fence] = []

    def stop(fence: Fence) -> None:
        cut.append(fence)
        rows.held[fence].set()

    assert await pool.drain(0.01, stop) == 2
    assert sorted(cut) == sorted((id_, 1) for id_ in ids)
    assert pool.tasks == {}, "it waits for what it cut"


async def test_same_row_under_another_attempt_number_runs_beside(pool: Pool[Claim], rows: Rows):
    id_ = uuid4()
    assert pool.reserve(2)
    for rows.number in (1, 2):
        await pool.take([id_])
    assert set(pool.tasks) == {(id_, 1), (id_, 2)}

    rows.held[id_, 1].set()
    await happens(lambda: (id_, 1) not in pool.tasks, "the first attempt ended")
    assert set(pool.tasks) == {(id_, 2)}, "its end is not the other's"


async def test_no_room_while_the_loop_is_late(pool: Pool[Claim]):
    busy, seen = [True], threading.Event()

    def look() -> None:
        while pool.has_room() and busy:
            pass
        seen.set()

    pool._lag.watch(lambda: bool(busy))
    looking = asyncio.create_task(asyncio.to_thread(look))
    await asyncio.sleep(0)
    late = seen.wait(10)  # blocks the loop, which is what makes it late
    busy.clear()
    await looking

    assert late
    await happens(pool.has_room, "room once the loop is on time")


async def test_the_loop_is_watched_while_any_of_those_who_share_it_works():
    lag, first, second = LoopLag(), [True], [True]
    lag.watch(lambda: bool(first))
    lag.watch(lambda: bool(second))
    first.clear()
    await asyncio.sleep(2 * TICK_S)

    time.sleep(2 * LATE_S)  # noqa: ASYNC251 - blocks the loop, which is what makes it late

    assert lag.seconds() >= LATE_S
    second.clear()
    await happens(lambda: not lag.seconds(), "nobody works, nobody is late")
