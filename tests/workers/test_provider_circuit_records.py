"""What workers tell of providers: which failures count, in what order, and at what cost."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from shared import provider_circuits
from shared.calls import Claimed
from shared.db import Database, hot
from shared.provider_circuits import Answered, Failed, Target
from tests.scene import Scene, Team, answer, refused
from tests.waiting import until
from tests.workers.outages import (
    OUTAGE,
    CountedDatabase,
    circuit,
    claimed,
    ends,
    fail,
    outage,
    submitted,
    target,
    worker,
)
from workers.circuits import Observation, counts, folded


@pytest.fixture
async def team(scene: Scene) -> Team:
    """With a model and its fallback."""
    return await scene.team(models=2)


@pytest.mark.parametrize(
    ("code", "status", "again", "is_counted"),
    [
        ("provider_error", None, "same", True),
        ("provider_error", 408, "same", True),
        ("provider_error", 500, "same", True),
        ("provider_error", 529, "same", True),
        ("provider_timeout", None, "same", True),
        ("provider_rate_limit", 429, "same", True),
        ("provider_error", 409, "same", False),
        ("provider_error", 404, "next", False),
        ("provider_error", 200, "same", False),
        ("provider_error", None, "next", False),
        ("provider_auth", 401, "next", False),
        ("provider_auth", 429, "next", False),
        ("provider_bad_request", 400, "never", False),
        ("context_length_exceeded", 400, "next", False),
        ("content_policy_violation", 400, "never", False),
        ("deadline_exceeded", None, "never", False),
    ],
)
def test_only_trouble_of_the_provider_counts(code: str, status: int | None, again: Any, is_counted: bool):
    assert counts(refused(code, http_status=status, again=again)) is is_counted


def test_what_is_told_at_once_is_one_row_for_each_target_since_it_was_last_answered():
    one, other = Target("openai", "openai/gpt", ""), Target("openai", "openai/gpt", "alias own")
    ended = [(one, 1, True), (other, 2, True), (one, 5, True), (one, 3, False), (one, 4, True), (other, 1, True)]
    told = [Observation(target=target, began=began, is_failure=is_failure) for target, began, is_failure in ended]
    assert folded(told, now=10) == ([Failed(one, 1, 5), Failed(other, 2, 8)], [Answered(one, 7)])


async def test_what_says_nothing_about_the_provider_writes_nothing(scene: Scene, team: Team):
    await fail(scene, team, *[refused("provider_bad_request", http_status=400, again="never")] * (OUTAGE + 1))
    assert await circuit(scene, team.models[0]) is None


async def test_an_answer_in_between_begins_the_row_anew(scene: Scene, team: Team):
    for _ in range(2):
        await fail(scene, team, *[refused()] * (OUTAGE - 1))
        await scene.work(await submitted(team, 1))
        assert await circuit(scene, team.models[0]) is None


async def test_failures_a_minute_apart_are_not_in_a_row(scene: Scene, team: Team):
    await fail(scene, team, *[refused()] * (OUTAGE - 1))
    async with scene.later(provider_circuits.FORGETS_S + 1) as rt:
        scene.worker = worker(scene, rt)
        await fail(scene, team, refused())
    found = await circuit(scene, team.models[0])
    assert (found.failures, found.opened_at) == (1, None)


async def test_many_failures_at_once_are_few_writes(scene: Scene, team: Team):
    counted = CountedDatabase(scene.rt.settings.database_url, pool=4)
    scene.worker = worker(scene, replace(scene.rt, db=counted))
    calls = await submitted(team, 30)
    scene.provider.steps = [refused()] * 30
    won = await claimed(scene.worker, calls)
    counted.statements = 0
    await asyncio.gather(*(scene.worker.run(call) for call in won))
    assert counted.statements <= 2
    assert (await circuit(scene, team.models[0])).failures >= OUTAGE
    await counted.close()


async def test_the_answers_of_a_provider_that_is_well_cost_no_statement(scene: Scene, team: Team):
    counted = CountedDatabase(scene.rt.settings.database_url, pool=4)
    scene.worker = worker(scene, replace(scene.rt, db=counted))
    await fail(scene, team, refused())
    await scene.work(await submitted(team, 1))
    won = await claimed(scene.worker, await submitted(team, 3))
    counted.statements = 0
    await asyncio.gather(*(scene.worker.run(call) for call in won))
    assert (counted.statements, await circuit(scene, team.models[0])) == (0, None)
    await counted.close()


async def test_failures_at_an_open_circuit_cost_no_statement(scene: Scene):
    team = await scene.team()
    counted = CountedDatabase(scene.rt.settings.database_url, pool=4)
    scene.worker = worker(scene, replace(scene.rt, db=counted))
    await outage(scene, team)
    won = await claimed(scene.worker, await submitted(team, 3))
    scene.provider.steps = [refused()] * 3
    counted.statements = 0
    await asyncio.gather(*(scene.worker.run(call) for call in won))
    assert (counted.statements, len(won)) == (0, 3)
    await counted.close()


async def test_an_answer_that_comes_while_a_failure_is_being_written_counts_after_it(scene: Scene, team: Team):
    failing, well = await claimed(scene.worker, await submitted(team, 2))
    scene.provider.steps = [refused(), answer()]
    unit = worker(scene)
    async with scene.rt.db.transaction() as tx:
        await provider_circuits.record(tx, [Failed(await target(scene, failing.alias), 1, 0)])
        running = [asyncio.create_task(unit.run(failing))]
        await scene.provider.until_asked(1)
        await claimed(unit, [])
        running.append(asyncio.create_task(unit.run(well)))
        await scene.provider.until_asked(2)
        await until(lambda: completed(scene, well), "the other one is answered")
    await asyncio.gather(*running)
    assert await circuit(scene, team.models[0]) is None


async def completed(scene: Scene, call: Claimed) -> list[Any]:
    return await scene.rows("select id from calls where id = :id and state = 'completed'", id=call.id)


async def test_attempts_that_began_before_it_opened_neither_lengthen_nor_close_it(scene: Scene, team: Team):
    first, _ = team.models
    unit = worker(scene)
    scene.provider.held.clear()
    running = [asyncio.create_task(unit.run(call)) for call in await claimed(scene.worker, await submitted(team, 2))]
    await scene.provider.until_asked(2)
    async with scene.rt.db.hot_statement() as tx:
        await provider_circuits.record(tx, [Failed(await target(scene, first), OUTAGE, 0)])
    opened = await circuit(scene, first)
    [told] = await claimed(unit, await submitted(team, 1))
    scene.provider.steps = [answer(), refused()]
    scene.provider.held.set()
    await asyncio.gather(*running)
    assert told.alias != first, "the unit knows"
    after = await circuit(scene, first)
    assert (after.opened_at, after.open_until) == (opened.opened_at, opened.open_until)


async def test_a_circuit_that_cannot_be_written_keeps_no_call(scene: Scene, team: Team):
    await fail(scene, team, refused())
    impatient = Database(scene.rt.settings.database_url, pool=4, session={"lock_timeout": "50ms"})
    scene.worker = worker(scene, replace(scene.rt, db=impatient))
    async with scene.rt.db.transaction() as tx:
        await hot(tx, "select from provider_circuits for update")
        [call] = await fail(scene, team, refused())
        await scene.work([call])
    assert await ends(scene, call) == [(team.models[0], "failed"), (team.models[0], "succeeded")]
    await impatient.close()
