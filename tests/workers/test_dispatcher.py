"""The dispatcher: calls before lines, teams by weight, a team's batches by priority and deadline."""

from dataclasses import replace
from uuid import UUID

import pytest

from shared import waiting_calls
from shared.db import Database, hot
from shared.dispatching import FLOWS, HEADS_READ
from shared.messages import RunCalls
from tests.scene import HELLO, Scene
from tests.workers.line_rows import accepted, bells, key_of, of_teams, state_of, team_with
from workers.dispatcher import LEAST_WINDOW, LINES_DOWN_S, Dispatcher, LineWindow

MANY = LEAST_WINDOW + 8


@pytest.fixture
def database_url(fresh_database_url: str) -> str:
    """The dispatcher looks at every row there is."""
    return fresh_database_url


@pytest.fixture
def dispatcher(scene: Scene) -> Dispatcher:
    return Dispatcher(scene.rt)


async def test_lines_are_rung_in_their_own_lane_and_in_the_order_of_the_file(scene: Scene, dispatcher: Dispatcher):
    team = await scene.team()
    job = await team.job(calls=[{"messages": HELLO}] * 70)
    lines = await accepted(scene, team, 3)
    bells(scene, RunCalls)

    assert await dispatcher.tick() == 6 + 3
    assert {str(id_) for id_ in bells(scene, RunCalls)} == {call["call_id"] for call in job["calls"][64:]}
    assert bells(scene) == lines.ids
    assert await dispatcher.tick() == 0


async def test_no_more_lines_are_rung_than_workers_take_and_more_when_they_took_them(
    scene: Scene, dispatcher: Dispatcher
):
    lines = await accepted(scene, await scene.team(), MANY)
    assert await dispatcher.tick() == LEAST_WINDOW
    assert await dispatcher.tick() == 0

    await scene.worker.claim(bells(scene))
    assert await dispatcher.tick() == MANY - LEAST_WINDOW
    assert bells(scene) == lines.ids[LEAST_WINDOW:]


def test_a_burst_of_claims_is_not_taken_for_speed():
    window = LineWindow()
    window.rang(500)
    window.saw(0)
    assert LEAST_WINDOW < window.size < 250


async def test_lines_that_cannot_be_looked_at_keep_no_call_waiting(scene: Scene):
    await accepted(scene, await scene.team(), 1)
    job = await (await scene.team()).job(calls=[{"messages": HELLO}] * 65)
    bells(scene, RunCalls)
    url = scene.rt.settings.database_url
    hurried = Database(url, pool=2, name="hurried", session={"lock_timeout": "20ms"})
    dispatcher = Dispatcher(replace(scene.rt, db=hurried))
    async with scene.rt.db.hot_transaction() as tx:
        await hot(tx, "lock provider_slowdowns in access exclusive mode")
        assert (await dispatcher.tick(), len(job["calls"])) == (1, 65)
        assert await dispatcher.tick() == 0
    await hurried.close()
    assert bells(scene) == []
    assert dispatcher.pause_s <= LINES_DOWN_S


async def test_it_looks_again_soon_only_while_there_is_work_for_workers_or_a_place_to_wait_for(scene: Scene):
    patient = replace(scene.rt, settings=scene.rt.settings.model_copy(update={"dispatch_s": 30}))
    idle, held, busy = Dispatcher(patient), Dispatcher(patient), Dispatcher(patient)
    await idle.tick()
    await accepted(scene, await team_with(scene, rpm_limit=0), 1)
    await held.tick()
    await accepted(scene, await team_with(scene, max_parallel_calls=0), 1)
    await busy.tick()
    assert (idle.pause_s, held.pause_s) == (30, 30)
    assert busy.pause_s < 30


async def test_teams_have_turns_by_weight_and_priority_orders_a_teams_own(scene: Scene, dispatcher: Dispatcher):
    heavy, light = await team_with(scene, weight=3), await scene.team()
    later = await accepted(scene, heavy, MANY)
    sooner = await accepted(scene, heavy, 2, priority=5)
    await accepted(scene, light, MANY)

    await dispatcher.tick()
    rung = bells(scene)
    assert await of_teams(scene, rung) == {heavy.id: 24, light.id: 8}
    assert [id_ for id_ in rung if id_ in {*sooner.ids, *later.ids}][:3] == [*sooner.ids, later.ids[0]]


async def test_a_batch_that_comes_later_begins_with_the_next_look(scene: Scene, dispatcher: Dispatcher):
    await accepted(scene, await scene.team(), 3 * MANY)
    await dispatcher.tick()
    await scene.worker.claim(bells(scene))

    second = await scene.team()
    await accepted(scene, second, 3 * MANY)
    await dispatcher.tick()
    assert (await of_teams(scene, bells(scene)))[second.id] >= LEAST_WINDOW // 2


async def test_lines_that_are_not_due_or_too_late_are_not_rung(scene: Scene, dispatcher: Dispatcher):
    team = await scene.team()
    waiting, late, due = [await accepted(scene, team, 1, window_s=window_s) for window_s in (9_999, 5, 9_999)]
    await scene.rows(
        "update calls set run_at = run_at + interval '60 s' where job_id = :id returning id", id=waiting.job_id
    )
    async with scene.later(10) as rt:
        await Dispatcher(rt).tick()
    assert bells(scene) == due.ids
    async with scene.later(61) as rt:
        await Dispatcher(rt).tick()
    assert bells(scene) == waiting.ids
    assert await state_of(scene, late.ids[0]) == ("pending", False, 0)


HELD = [
    ("virtual_keys set blocked", "true", "false"),
    ("virtual_keys set revoked_at", "app_now()", "null"),
    ("teams set status", "'suspended'", "'active'"),
    ("teams set status", "'paused'", "'active'"),
    ("organizations set status", "'suspended'", "'active'"),
]


async def test_lines_wait_while_their_key_or_team_is_stopped_and_go_on_after(scene: Scene, dispatcher: Dispatcher):
    team = await scene.team()
    lines = await accepted(scene, team, 2)
    of = {"virtual_keys": "team_id", "teams": "id", "organizations": "id"}
    for change, stopped, again in HELD:
        update = f"update {change} = {{}} where {of[change.split()[0]]} = :id returning id"
        id_ = (await scene.row("select organization_id as id from teams where id = :id", id=team.id)).id
        given = id_ if change.startswith("organizations") else team.id
        await scene.rows(update.format(stopped), id=given)
        assert await dispatcher.tick() == 0, change
        await scene.rows(update.format(again), id=given)
    await scene.rows("update virtual_keys set expires_at = app_now() where team_id = :id returning id", id=team.id)
    assert await dispatcher.tick() == 2
    assert bells(scene) == lines.ids, "what a key brought before it expired runs"


async def test_lines_behind_many_that_are_held_are_found(scene: Scene, dispatcher: Dispatcher):
    team = await scene.team()
    held, free = await key_of(scene, team), await key_of(scene, team)
    await accepted(scene, team, HEADS_READ * LEAST_WINDOW + 1, key_id=held)
    await scene.rows("update virtual_keys set blocked = true where id = :id returning id", id=held)
    later = await accepted(scene, team, 2, key_id=free)
    sooner = await accepted(scene, team, 1, key_id=free, priority=-1)

    assert await dispatcher.tick() == 3
    assert bells(scene) == [*later.ids, *sooner.ids]


async def test_a_team_with_very_many_flows_is_visited_in_parts(scene: Scene, dispatcher: Dispatcher):
    team = await scene.team()
    lines = await accepted(scene, team, FLOWS + 2)
    await scene.rows(
        """with named as (update calls set candidates = array['alias-' || 1000 + position] where job_id = :id
                          returning candidates[1] as alias, position)
           insert into model_aliases (alias, litellm_model, provider, actual_model, display_name)
           select alias, 'm', case when position <= :held then 'refusing' else 'other' end, 'm', alias from named
           returning alias""",
        id=lines.job_id,
        held=FLOWS,
    )
    await scene.rows(
        """insert into provider_slowdowns (provider, refused_at, until, in_flight)
           values ('refusing', app_now(), app_now() + interval '60 s', 2) returning provider"""
    )
    assert [await dispatcher.tick(), await dispatcher.tick(), await dispatcher.tick()] == [0, 1, 0]
    assert bells(scene) == lines.ids[-1:]


async def test_of_two_batches_of_a_team_the_one_that_expires_sooner_goes_first(scene: Scene, dispatcher: Dispatcher):
    team = await scene.team()
    week = await accepted(scene, team, LEAST_WINDOW, window_s=7 * 86_400)
    soon = await accepted(scene, team, 2, window_s=900)
    urgent = await accepted(scene, team, 1, window_s=7 * 86_400, priority=1)
    await dispatcher.tick()
    assert bells(scene) == [*urgent.ids, *soon.ids, *week.ids[: LEAST_WINDOW - 3]]


async def test_in_a_flow_of_a_held_head_the_batch_that_expires_sooner_goes_first(scene: Scene, dispatcher: Dispatcher):
    team = await scene.team()
    held, free = await key_of(scene, team), await key_of(scene, team)
    await accepted(scene, team, HEADS_READ * LEAST_WINDOW + 1, key_id=held, window_s=900)
    await scene.rows("update virtual_keys set blocked = true where id = :id returning id", id=held)
    week = await accepted(scene, team, LEAST_WINDOW, key_id=free, window_s=7 * 86_400)
    day = await accepted(scene, team, 2, key_id=free)
    await dispatcher.tick()
    assert bells(scene) == [*day.ids, *week.ids[: LEAST_WINDOW - 2]]


async def test_a_line_that_is_tried_again_stands_behind_those_that_were_there(scene: Scene, dispatcher: Dispatcher):
    lines = await accepted(scene, await scene.team(), 3)
    await scene.rows("update calls set run_at = app_now() where id = :id returning id", id=lines.ids[0])
    await dispatcher.tick()
    assert bells(scene) == [*lines.ids[1:], lines.ids[0]]


async def test_a_team_of_many_models_has_its_order(scene: Scene, dispatcher: Dispatcher):
    team = await scene.team()
    lines = await accepted(scene, team, 2 * LEAST_WINDOW)
    await scene.rows(
        "update calls set candidates = array['m' || position] where job_id = :id returning id", id=lines.job_id
    )
    sooner = await accepted(scene, team, 3, priority=5)
    await dispatcher.tick()
    assert bells(scene) == [*sooner.ids, *lines.ids[: LEAST_WINDOW - 3]]


async def test_lines_leave_a_teams_own_calls_alone(scene: Scene):
    """They count neither among the 64, nor in max_queued_calls, nor in a key's max_parallel_requests."""
    team = await team_with(scene, max_queued_calls=1)
    await scene.rows("update virtual_keys set max_parallel_requests = 1 where team_id = :id returning id", id=team.id)
    await accepted(scene, team, 70)
    bells(scene, RunCalls)

    call = await team.call((await team.job())["job_id"])
    assert bells(scene, RunCalls) == [UUID(call)]


async def test_lines_that_wait_for_hours_do_not_close_the_door(scene: Scene):
    await accepted(scene, await scene.team(), 2)
    await Dispatcher(scene.rt).tick()
    await accepted(scene, await scene.team(), 2)
    async with scene.later(7200) as rt, rt.db.hot_statement() as tx:
        assert await waiting_calls.lacking_a_worker_s(tx) == 0
