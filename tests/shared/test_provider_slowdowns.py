"""Providers that refuse: halved once for a burst, paused for longer while they go on, forgotten when they do not."""

import pytest

from shared import provider_slowdowns
from shared.provider_slowdowns import Slowdown
from tests.scene import Scene, Team
from tests.workers.line_rows import accepted


@pytest.fixture
def database_url(fresh_database_url: str) -> str:
    """All lines that run count."""
    return fresh_database_url


async def record(
    scene: Scene, team: Team, *, later_s: float = 0, began_s: float = 0, retry_after_s: float | None = None
) -> None:
    """An attempt at the team's alias is refused so many seconds from now."""
    async with scene.later(later_s) as rt, rt.db.hot_statement() as tx:
        await provider_slowdowns.record(tx, alias=team.models[0], began_s=began_s, retry_after_s=retry_after_s)


async def known(scene: Scene, *, later_s: float = 0) -> list[Slowdown]:
    async with scene.later(later_s) as rt, rt.db.hot_statement() as tx:
        return await provider_slowdowns.known(tx)


async def running(scene: Scene, team: Team, lines: int) -> None:
    await scene.worker.claim((await accepted(scene, team, lines)).ids)


async def test_a_burst_of_refusals_halves_once_and_one_that_began_later_halves_again(scene: Scene):
    team = await scene.team()
    await running(scene, team, 12)
    await record(scene, team, retry_after_s=5)
    await running(scene, team, 4)
    await record(scene, team, later_s=2, began_s=9)
    [slow] = await known(scene, later_s=5.5)
    assert slow.may_run == 6

    await record(scene, team, later_s=6, began_s=0.5)
    [slow] = await known(scene, later_s=7)
    assert slow.may_run == 8


async def test_without_a_retry_after_each_pause_is_twice_the_last_up_to_a_minute(scene: Scene):
    team, at_s = await scene.team(), 0.0
    for pause_s in (1, 2, 4, 8, 16, 32, 60, 60):
        await record(scene, team, later_s=at_s)
        assert [slow.is_paused for slow in await known(scene, later_s=at_s + pause_s - 0.2)] == [True]
        assert [slow.is_paused for slow in await known(scene, later_s=at_s + pause_s + 0.2)] == [False]
        at_s += pause_s + 0.5


async def test_what_may_run_grows_with_time_until_the_provider_is_like_any_other(scene: Scene):
    team = await scene.team()
    await running(scene, team, 40)
    await record(scene, team, retry_after_s=10)

    grown = [(await known(scene, later_s=later_s))[0].may_run for later_s in (5, 10.1, 15.1, 20.1)]
    assert grown == [20, 20, 30, 40]
    assert await known(scene, later_s=131) == []


async def test_an_alias_with_an_address_of_its_own_is_a_server_of_its_own(scene: Scene):
    team, own = await scene.team(), await scene.team(alias={"api_base": "http://127.0.0.1:9009/v1"})
    await record(scene, own, retry_after_s=10)
    assert [slow.scope for slow in await known(scene)] == ["openai http://127.0.0.1:9009/v1"]

    await record(scene, team, retry_after_s=10)
    assert len(await known(scene)) == 2
