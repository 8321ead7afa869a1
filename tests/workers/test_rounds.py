"""Rounds: every step gets its turn, whatever becomes of the others."""

import asyncio

from workers.rounds import Rounds


async def test_a_step_that_fails_stops_no_other():
    async def fail() -> int:
        raise LookupError("a mistake of ours")

    async def work() -> int:
        return 3

    assert await Rounds("look", {"broken": fail, "well": work}).run() == {"well": 3}


async def test_the_round_after_one_that_was_cut_begins_behind_the_step_it_was_cut_in():
    ran: list[str] = []
    stuck = asyncio.Event()

    async def first() -> int:
        ran.append("first")
        return 0

    async def slow() -> int:
        ran.append("slow")
        stuck.set()
        return await asyncio.Future[int]()

    async def last() -> int:
        ran.append("last")
        return 0

    rounds = Rounds("look", {"first": first, "slow": slow, "last": last})
    for _ in range(2):
        stuck.clear()
        cut = asyncio.create_task(rounds.run())
        await stuck.wait()
        cut.cancel()
        await asyncio.wait({cut})
    assert ran == ["first", "slow", "last", "first", "slow"]
