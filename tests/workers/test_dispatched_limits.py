"""Limits and providers that refuse hold the lines of theirs, and nobody else's."""

from dataclasses import replace
from uuid import UUID

import pytest

from shared.db import Database, hot
from shared.messages import RunCalls
from shared.runtime import redis_client
from tests.scene import Scene, refused
from tests.workers.line_rows import Lines, accepted, at, bells, key_of, of_teams, state_of, team_with
from workers.dispatcher import LEAST_WINDOW, Dispatcher


@pytest.fixture
def database_url(fresh_database_url: str) -> str:
    """The dispatcher looks at every row there is."""
    return fresh_database_url


@pytest.fixture
def dispatcher(scene: Scene) -> Dispatcher:
    return Dispatcher(scene.rt)


async def test_max_parallel_calls_counts_lines_and_live_calls_come_first(scene: Scene, dispatcher: Dispatcher):
    team = await team_with(scene, max_parallel_calls=3)
    lines = await accepted(scene, team, 5)
    await dispatcher.tick()
    assert bells(scene) == lines.ids[:3]
    assert await dispatcher.tick() == 0

    claimed = await scene.worker.claim(lines.ids[:3])
    call = UUID(await team.call((await team.job())["job_id"]))
    await scene.worker.claim([call])
    bells(scene, RunCalls)
    await scene.worker.run(claimed[0])
    assert bells(scene, RunCalls) == [call], "the place that is free is the call's"
    await dispatcher.tick()
    assert bells(scene) == []


async def test_requests_per_minute_pace_the_lines_of_that_team_alone(scene: Scene, dispatcher: Dispatcher):
    limited, free = await team_with(scene, rpm_limit=4), await scene.team()
    await accepted(scene, limited, 6)
    await accepted(scene, free, 6)

    assert await dispatcher.tick() == 4 + 6
    assert await of_teams(scene, bells(scene)) == {limited.id: 4, free.id: 6}
    assert await dispatcher.tick() == 0
    live = await limited.post("/jobs/create", {"team_id": limited.id, "job_type": "test"})
    assert live.status_code == 429, "lines and live requests have one limit"


async def test_a_keys_limit_holds_its_lines_and_no_other_keys(scene: Scene, dispatcher: Dispatcher):
    team = await scene.team()
    slow = await accepted(scene, team, 5, key_id=await key_of(scene, team, rpm_limit=2))
    fast = await accepted(scene, team, 5, key_id=await key_of(scene, team))

    await dispatcher.tick()
    assert sorted(bells(scene)) == sorted([*slow.ids[:2], *fast.ids])


async def test_tokens_per_minute_count_estimates_and_one_line_larger_than_the_limit_takes_it_all(
    scene: Scene, dispatcher: Dispatcher
):
    team, other = await team_with(scene, tpm_limit=250), await team_with(scene, tpm_limit=250)
    lines = await accepted(scene, team, 4, tokens=100)
    large = await accepted(scene, other, 2, tokens=1000)

    await dispatcher.tick()
    assert sorted(bells(scene)) == sorted([*lines.ids[:2], large.ids[0]])


async def test_a_line_larger_than_the_limit_keeps_no_other_line_of_its_team_waiting(
    scene: Scene, dispatcher: Dispatcher
):
    team = await team_with(scene, tpm_limit=250)
    first = await accepted(scene, team, 1, tokens=100, priority=2)
    large = await accepted(scene, team, LEAST_WINDOW, tokens=1000, priority=1)
    small = await accepted(scene, team, 1, tokens=100, model="another")

    await dispatcher.tick()
    assert bells(scene) == [*first.ids, *small.ids]
    async with scene.later(61) as rt:
        await Dispatcher(rt).tick()
    assert bells(scene) == large.ids[:1], "it takes the 50 that are left"


async def test_what_could_not_be_marked_is_given_back(scene: Scene):
    team = await team_with(scene, rpm_limit=2)
    lines = await accepted(scene, team, 2)
    url = scene.rt.settings.database_url
    hurried = Database(url, pool=2, name="hurried", session={"lock_timeout": "20ms"})
    async with scene.rt.db.hot_transaction() as tx:
        await hot(tx, "lock calls in share mode")
        assert await Dispatcher(replace(scene.rt, db=hurried)).tick() == 0
    await hurried.close()
    other = await accepted(scene, team, 2, priority=1)
    await Dispatcher(scene.rt).tick()
    assert (bells(scene), len(lines.ids)) == (other.ids, 2)


async def test_without_redis_limited_lines_wait_and_others_go_on(scene: Scene):
    await accepted(scene, await team_with(scene, rpm_limit=100), 2)
    free = await accepted(scene, await scene.team(), 2)
    gone = redis_client("redis://127.0.0.1:1")
    await Dispatcher(replace(scene.rt, redis=gone)).tick()
    await gone.aclose()
    assert bells(scene) == free.ids


async def refuse_one(scene: Scene, dispatcher: Dispatcher, lines: Lines, **fields: object) -> UUID:
    """The first line runs into its provider's rate limit, and the others that were rung with it are answered."""
    scene.provider.steps = [refused("provider_rate_limit", http_status=429, **fields)]
    await dispatcher.tick()
    await scene.work(bells(scene)[:1])
    return lines.ids[0]


async def test_a_refused_line_waits_and_has_lost_no_try(scene: Scene, dispatcher: Dispatcher):
    lines = await accepted(scene, await scene.team(), 2)
    line = await refuse_one(scene, dispatcher, lines, retry_after_s=20)

    assert await state_of(scene, line) == ("pending", False, 0)
    row = await scene.row("select run_at - app_now() as wait, attempt from calls where id = :id", id=line)
    assert 15 < row.wait.total_seconds() <= 20
    assert row.attempt == 1
    assert line not in bells(scene), "no bell of its own: the dispatcher finds it when it is due"


async def test_a_provider_that_refuses_pauses_for_everybody_who_uses_it_and_for_nobody_else(
    scene: Scene, dispatcher: Dispatcher
):
    one, two, elsewhere = await at(scene, "openai"), await at(scene, "openai"), await at(scene, "anthropic")
    await refuse_one(scene, dispatcher, await accepted(scene, one, 1), retry_after_s=20)
    held = [await accepted(scene, team, 2) for team in (one, two)]
    free = await accepted(scene, elsewhere, 2)

    await dispatcher.tick()
    assert bells(scene) == free.ids
    async with scene.later(19) as rt:
        assert await Dispatcher(rt).tick() == 0
    async with scene.later(21) as rt:
        assert await Dispatcher(rt).tick() > 0
    assert set(bells(scene)) & {*held[0].ids, *held[1].ids}


async def test_after_the_pause_half_as_many_run_at_once_and_more_with_time(scene: Scene, dispatcher: Dispatcher):
    team = await scene.team()
    lines = await accepted(scene, team, 30)
    await dispatcher.tick()
    claimed = await scene.worker.claim(bells(scene)[:8])
    scene.provider.steps = [refused("provider_rate_limit", retry_after_s=5) for _ in range(8)]
    for call in claimed:
        await scene.worker.run(call)
    await scene.rows("update calls set rung_at = null where job_id = :id returning id", id=lines.job_id)

    [row] = await scene.rows("select in_flight from provider_slowdowns")
    assert row.in_flight == 4, "half of the eight that ran: refusals of one burst are one refusal"
    async with scene.later(5.1) as rt:
        assert await Dispatcher(rt).tick() == 4
    async with scene.later(8.1) as rt:
        assert await Dispatcher(rt).tick() == 3
    async with scene.later(500) as rt:
        assert await Dispatcher(rt).tick() == LEAST_WINDOW - 4 - 3 - 2


async def test_at_a_slowed_provider_teams_have_their_turns_too(scene: Scene):
    heavy, light, other = await at(scene, "openai"), await at(scene, "openai"), await at(scene, "anthropic")
    await scene.rows("update teams set weight = 3 where id = :id returning id", id=heavy.id)
    for team in (heavy, light, other):
        await accepted(scene, team, 30)
    await scene.rows(
        """insert into provider_slowdowns (provider, refused_at, until, in_flight)
           values ('openai', app_now(), app_now(), 2) returning provider"""
    )
    dispatcher, given = Dispatcher(scene.rt), dict.fromkeys((heavy.id, light.id), 0)
    for _ in range(4):
        await dispatcher.tick()
        rung = bells(scene)
        for team, lines in (await of_teams(scene, rung)).items():
            if team in given:
                given[team] += lines
        await scene.rows(
            "update calls set state = 'cancelled', completed_at = app_now() where id = any(:ids) returning id", ids=rung
        )
    assert given == {heavy.id: 6, light.id: 2}


async def test_what_comes_behind_many_lines_for_a_slowed_provider_runs_meanwhile(scene: Scene, dispatcher: Dispatcher):
    first, second = sorted([await at(scene, "openai"), await at(scene, "openai")], key=lambda team: team.id)
    placed = await accepted(scene, first, 1)
    await accepted(scene, second, 2 * LEAST_WINDOW)
    free = await accepted(scene, second, 3, model="elsewhere")
    await scene.rows(
        """insert into provider_slowdowns (provider, refused_at, until, in_flight)
           values ('openai', app_now(), app_now(), 1) returning provider"""
    )
    await dispatcher.tick()
    assert sorted(bells(scene)) == sorted([*placed.ids, *free.ids])


async def test_a_live_call_that_is_refused_slows_lines_and_is_tried_again_as_ever(scene: Scene, dispatcher: Dispatcher):
    team = await scene.team()
    await accepted(scene, team, 2)
    scene.provider.steps = [refused("provider_rate_limit", retry_after_s=20)]
    call = UUID(await team.call((await team.job())["job_id"]))
    await scene.work([call])

    assert await state_of(scene, call) == ("pending", True, 1)
    assert await dispatcher.tick() == 0


async def test_another_failure_costs_a_line_a_try_and_it_waits_for_the_dispatcher(scene: Scene, dispatcher: Dispatcher):
    lines = await accepted(scene, await scene.team(), 1)
    scene.provider.steps = [refused()]
    await dispatcher.tick()
    await scene.work(bells(scene))
    assert await state_of(scene, lines.ids[0]) == ("pending", False, 1)

    await dispatcher.tick()
    assert bells(scene) == lines.ids
