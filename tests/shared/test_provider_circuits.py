"""The rows of circuits: what opens, lengthens and closes one, and who sees it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from shared import provider_circuits
from shared.db import Tx, hot
from shared.provider_circuits import Answered, Circuit, Failed, Target
from shared.runtime import Runtime
from tests.workers.moved_clock import later
from workers import retention

A, B = Target("openai", "openai/gpt", ""), Target("openai http://10.0.0.1", "openai/gpt", "")


@pytest.fixture
def database_url(module_database_url: str) -> str:
    """All circuits count."""
    return module_database_url


@pytest.fixture(autouse=True)
async def _all_is_well(runtime: Runtime) -> None:
    async with runtime.db.hot_statement() as tx:
        await hot(tx, "delete from provider_circuits")


@asynccontextmanager
async def at(rt: Runtime, seconds: float) -> AsyncIterator[Tx]:
    async with later(rt, seconds) as moved, moved.db.hot_statement() as tx:
        yield tx


async def opened(rt: Runtime) -> None:
    async with rt.db.hot_statement() as tx:
        [one] = await provider_circuits.record(tx, [Failed(A, 5, 0)])
    assert (one.opens, one.failures, one.open_in_s) == (True, 5, 10)


async def test_failures_add_up_until_they_open_it_each_target_for_itself(runtime: Runtime):
    async with runtime.db.hot_statement() as tx:
        for failures, opens in ((3, False), (1, False), (1, True), (1, False)):
            found = await provider_circuits.record(tx, [Failed(B, 1, 0), Failed(A, failures, 0)])
            assert {one.target: one.opens for one in found} == {A: opens, B: False}
        assert [one.target for one in await provider_circuits.known(tx) if one.open_in_s is not None] == [A]


async def test_only_an_attempt_that_began_when_it_was_half_open_lengthens_it(runtime: Runtime):
    await opened(runtime)
    async with at(runtime, 8) as tx:
        [early] = await provider_circuits.record(tx, [Failed(A, 1, 1)])
    async with at(runtime, 15) as tx:
        [half_open] = await provider_circuits.known(tx)
        assert half_open.open_in_s is not None
        assert half_open.open_in_s <= 0
        [hung] = await provider_circuits.record(tx, [Failed(A, 1, 14)])
        [probe] = await provider_circuits.record(tx, [Failed(A, 1, 1)])
        assert [one.open_in_s for one in await provider_circuits.known(tx)] == [20]
    assert [one.opens for one in (early, hung, probe)] == [False, False, True]
    assert probe.open_in_s == 20


async def test_only_an_attempt_that_began_after_it_opened_closes_it(runtime: Runtime):
    await opened(runtime)
    async with at(runtime, 3) as tx:
        assert await provider_circuits.close(tx, [Answered(A, 5)]) == []
        [closed] = await provider_circuits.close(tx, [Answered(A, 1), Answered(B, 1)])
        assert (closed.target, closed.was_open) == (A, True)
        assert await provider_circuits.known(tx) == []


async def test_failures_that_opened_nothing_are_forgotten_by_any_answer(runtime: Runtime):
    async with runtime.db.hot_statement() as tx:
        await provider_circuits.record(tx, [Failed(A, 4, 0)])
        [closed] = await provider_circuits.close(tx, [Answered(A, 60)])
        assert not closed.was_open
        assert await provider_circuits.record(tx, [Failed(A, 0, 0)]) == [], "it has answered since it failed"
        assert await provider_circuits.record(tx, [Failed(A, 4, 0)]) == [Circuit(target=A, open_in_s=None, failures=4)]


async def test_what_nobody_asks_any_more_is_forgotten_after_an_hour(runtime: Runtime):
    await opened(runtime)
    for seconds, left in ((provider_circuits.OLD_S - 5, 1), (provider_circuits.OLD_S + 5, 0)):
        async with later(runtime, seconds) as rt:
            await retention.rounds(rt).run()
            async with rt.db.hot_statement() as tx:
                assert len(await provider_circuits.known(tx)) == left
